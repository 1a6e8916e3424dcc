"""The driver's ``spark.properties``: what Muster needs of it, everything else forgotten (it may hold secrets)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from muster.spark import java_properties
from muster.spark.errors import PropertiesError

MAX_BYTES = 1024 * 1024
"""A ConfigMap's own limit (Kubernetes, ``MaxSecretSize``; Spark, ``spark.kubernetes.configMap.maxSize``)."""

ALLOWED_KEYS = frozenset(
    {
        "spark.driver.cores",
        "spark.driver.memory",
        "spark.driver.memoryOverhead",
        "spark.driver.memoryOverheadFactor",
        "spark.driver.minMemoryOverhead",
        "spark.dynamicAllocation.enabled",
        "spark.dynamicAllocation.initialExecutors",
        "spark.dynamicAllocation.maxExecutors",
        "spark.dynamicAllocation.minExecutors",
        "spark.executor.cores",
        "spark.executor.instances",
        "spark.executor.memory",
        "spark.executor.memoryOverhead",
        "spark.executor.memoryOverheadFactor",
        "spark.executor.minMemoryOverhead",
        "spark.executor.pyspark.memory",
        "spark.kubernetes.driver.limit.cores",
        "spark.kubernetes.driver.request.cores",
        "spark.kubernetes.executor.limit.cores",
        "spark.kubernetes.executor.request.cores",
        "spark.kubernetes.memoryOverheadFactor",
        "spark.kubernetes.resource.type",
        "spark.memory.offHeap.enabled",
        "spark.memory.offHeap.size",
    }
)
ALLOWED_PATTERN = re.compile(
    r"spark\.(?:driver|executor)\.resource\.[^.]+\.(?:amount|vendor)"
    r"|spark\.kubernetes\.(?:(?:driver|executor)\.)?node\.selector\..+"
)

ALTERNATIVES = {
    "spark.driver.memoryOverhead": "spark.yarn.driver.memoryOverhead",
    "spark.executor.memoryOverhead": "spark.yarn.executor.memoryOverhead",
    "spark.memory.offHeap.enabled": "spark.unsafe.offHeap",
}
"""Old keys that count where the key itself is absent (``SparkConf.configsWithAlternatives``): jobs that moved from
YARN still carry them."""

_REFERENCE = re.compile(r"\$\{(?:(\w+?):)?(\S+?)\}", re.ASCII)
_MAX_REFERENCES = 64
_MAX_REFERENCED = 1024
"""Longest value in which, or by which, a reference is resolved: sizes are short, and nesting must not multiply."""


class SparkProperties(Mapping[str, str]):
    """The allowed properties, with old keys under their new names and ``${spark.…}`` references resolved.

    Its ``repr`` shows keys alone, so that no log line can show a value.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        """``values``: any properties of an application; those not allowed are dropped here."""
        self._values = {key: _resolve(value, values) for key, value in values.items() if _allowed(key)}
        for key, alternative in ALTERNATIVES.items():
            if key not in self._values and alternative in values:
                self._values[key] = _resolve(values[alternative], values)

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"SparkProperties({', '.join(sorted(self._values))})"


def read_properties(text: str | bytes) -> SparkProperties:
    """Read the text under the key ``spark.properties`` of a driver's ConfigMap, as Spark's driver reads it.

    ``Utils.getPropertiesFromFile``: UTF-8, ``Properties.load``, blanks around values dropped.

    Raises:
        PropertiesError: larger than ``MAX_BYTES``, not UTF-8, or a malformed escape.
    """
    decoded = _decode(text)
    return SparkProperties({key: _trim_except_crlf(value) for key, value in java_properties.parse(decoded).items()})


def _decode(text: str | bytes) -> str:
    # Bytes per character are between 1 and 4: only a text in between needs to be encoded to know.
    if len(text) > MAX_BYTES or (isinstance(text, str) and len(text) > MAX_BYTES // 4 and _bytes(text) > MAX_BYTES):
        raise PropertiesError(f"larger than {MAX_BYTES} bytes")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = text[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        raise PropertiesError("a byte that is no UTF-8", line=before.count(b"\n") + 1) from None


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _allowed(key: str) -> bool:
    return key in ALLOWED_KEYS or ALLOWED_PATTERN.fullmatch(key) is not None


def _trim_except_crlf(value: str) -> str:
    """``Utils.trimExceptCRLF``: drops characters up to the blank at both ends, but keeps CR and LF."""
    return value.strip("".join(chr(code) for code in range(33) if code not in (10, 13)))


def _resolve(value: str, properties: Mapping[str, str]) -> str:
    """``ConfigReader.substitute`` for references to other properties.

    What cannot be resolved (environment, unset keys, cycles) stays as it is, and then does not parse.
    """
    for _ in range(_MAX_REFERENCES):
        if "${" not in value or len(value) > _MAX_REFERENCED:
            break
        value = _REFERENCE.sub(lambda reference: _referenced(reference, properties), value)
    return value


def _referenced(reference: re.Match[str], properties: Mapping[str, str]) -> str:
    prefix, key = reference.groups()
    if prefix is not None or not key.startswith("spark."):
        return reference.group()
    value = properties.get(key, reference.group())
    return value if len(value) <= _MAX_REFERENCED else reference.group()
