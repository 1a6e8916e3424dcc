"""Values of properties, as Spark's ``ConfigBuilder`` parses them. Errors name the key, never the value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from muster.cluster.quantity import QuantityError, amount
from muster.cluster.resources import CPU, scale
from muster.spark.errors import InvalidSizeError

MIB = 2**20
MAX_MIB = (2**63 - 1) // MIB
"""What a Kubernetes quantity of memory can hold."""
INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1

_INT = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DOUBLE = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fFdD]?", re.ASCII)
_BYTES = re.compile(r"([0-9]+)([a-z]+)?", re.ASCII)
_UNITS = {"b": 1} | {
    suffix: 2 ** (10 * power) for power, unit in enumerate("kmgtp", start=1) for suffix in (unit, unit + "b")
}
_BINARY_UNITS = {
    suffix: 2 ** (10 * power) for power, unit in enumerate("kmgtp", start=1) for suffix in (unit + "i", unit + "ib")
}
_BLANK = "".join(map(chr, range(33)))
"""What ``String.trim`` drops."""


def boolean(properties: Mapping[str, str], key: str, default: bool = False) -> bool:
    """``ConfigHelpers.toBoolean``."""
    text = properties.get(key)
    if text is None:
        return default
    match text.strip(_BLANK).lower():
        case "true":
            return True
        case "false":
            return False
    raise InvalidSizeError(key, f"{key} is not true or false")


def integer(properties: Mapping[str, str], key: str) -> int | None:
    """``ConfigHelpers.toNumber`` with ``Integer.parseInt``; ``None`` when unset."""
    text = properties.get(key)
    if text is None:
        return None
    trimmed = text.strip(_BLANK)
    if _INT.fullmatch(trimmed) and len(trimmed) <= 20 and -INT_MAX - 1 <= (value := int(trimmed)) <= INT_MAX:
        return value
    raise InvalidSizeError(key, f"{key} is not a whole number that fits 32 bits")


def factor(properties: Mapping[str, str], key: str) -> float | None:
    """``ConfigHelpers.toNumber`` with ``Double.parseDouble``, checked to be above 0; ``None`` when unset."""
    text = properties.get(key)
    if text is None:
        return None
    trimmed = text.strip(_BLANK)
    value = float(trimmed.rstrip("fFdD")) if _DOUBLE.fullmatch(trimmed) else math.nan
    if not 0 < value < math.inf:
        raise InvalidSizeError(key, f"{key} is not a number above 0")
    return value


def mebibytes(properties: Mapping[str, str], key: str, *, binary_suffixes: bool = True) -> int | None:
    """A property of ``bytesConf(ByteUnit.MiB)``: ``512m``, ``4g``, a bare number of MiB; ``None`` when unset."""
    return _byte_string(properties, key, MIB, binary_suffixes)


def byte_count(properties: Mapping[str, str], key: str, *, binary_suffixes: bool = True) -> int | None:
    """A property of ``bytesConf(ByteUnit.BYTE)``: ``512m``, a bare number of bytes; ``None`` when unset."""
    return _byte_string(properties, key, 1, binary_suffixes)


def _byte_string(properties: Mapping[str, str], key: str, unit: int, binary_suffixes: bool) -> int | None:
    """``JavaUtils.byteStringAs``: whole numbers only, rounded down to ``unit``.

    ``binary_suffixes``: whether ``4Gi`` and ``4GiB`` are known too (Spark 4).
    """
    text = properties.get(key)
    if text is None:
        return None
    if text.startswith("-"):
        raise InvalidSizeError(key, f"{key} is negative")
    match = _BYTES.fullmatch(text.lower().strip(_BLANK))
    units = _UNITS | _BINARY_UNITS if binary_suffixes else _UNITS
    if match is None or (match[2] is not None and match[2] not in units):
        raise InvalidSizeError(
            key, f'{key} is not a size in Spark\'s notation (a whole number and a unit, like "512m" or "4g")'
        )
    if len(match[1].lstrip("0")) > 19:
        raise InvalidSizeError(key, f"{key} is larger than any machine's memory")
    size = int(match[1]) * (units[match[2]] if match[2] else unit)
    if size > LONG_MAX:
        raise InvalidSizeError(key, f"{key} is larger than any machine's memory")
    return size // unit


def quantity(source: str, text: str, resource: str = CPU) -> int:
    """A Kubernetes quantity, not negative, in the base unit of ``resource``."""
    try:
        value = amount(text, scale(resource))
    except QuantityError:
        expected = '"500m" or "2"' if resource == CPU else '"4Gi" or "4505Mi"'
        raise InvalidSizeError(source, f"{source} is not a Kubernetes quantity (like {expected})") from None
    if value < 0:
        raise InvalidSizeError(source, f"{source} is negative")
    return value
