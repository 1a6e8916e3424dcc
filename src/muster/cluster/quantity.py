"""Kubernetes quantities, exactly: the grammar and canonical form of ``resource.Quantity`` (apimachinery, quantity.go).

quantity ::= sign? number suffix        number ::= digits | digits "." digits | digits "." | "." digits
suffix   ::= Ki Mi Gi Ti Pi Ei | n u m "" k M G T P E | ("e" | "E") sign? digits
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

import msgspec

MAX_AMOUNT = 2**63 - 1
"""Kubernetes' own bound of a quantity, in base units."""

NANO = -9
MILLI = -3
UNIT = 0

_GRAMMAR = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:(Ki|Mi|Gi|Ti|Pi|Ei)|([numkMGTPE]?)|[eE]([+-]?[0-9]+))", re.ASCII
)
_MAX_TEXT = 128
_MAX_EXPONENT = 64
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_SUFFIXES = ("", *_BINARY)
_DECIMAL_SUFFIXES = {power: suffix for suffix, power in _DECIMAL.items()}


class QuantityError(ValueError):
    """A text that is no quantity, or one too large to be an amount."""

    def __init__(self, text: object, why: str) -> None:
        shown = repr(text)
        self.text = text
        self.why = why
        super().__init__(f"{shown if len(shown) <= 80 else shown[:77] + '...'} is not a usable quantity: {why}")


class Format(StrEnum):
    """How a quantity is written; it keeps the format it was read in, as Kubernetes does."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


class Quantity(msgspec.Struct, frozen=True):
    """An exact amount in nano units (Kubernetes' finest scale) and the format it is written in."""

    nanos: int
    format: Format = Format.DECIMAL_SI

    def scaled(self, power: int) -> int:
        """The amount in units of ``10**power`` (``MILLI``, ``UNIT``), rounded away from 0 as ``ScaledValue`` does."""
        magnitude = -(-abs(self.nanos) // _ten_to(power - NANO))
        return magnitude if self.nanos >= 0 else -magnitude

    def __str__(self) -> str:
        """Canonical: no precision lost, no fraction, the largest suffix that allows both."""
        whole, fraction = divmod(abs(self.nanos), 10**-NANO)
        sign = "-" if self.nanos < 0 else ""
        if self.nanos == 0:
            return "0"
        if self.format is Format.BINARY_SI and not fraction and whole >= 1024:
            power = 0
            while whole % 1024 == 0 and power < len(_BINARY):
                whole //= 1024
                power += 1
            return f"{sign}{whole}{_BINARY_SUFFIXES[power]}"
        exponent = NANO
        number = abs(self.nanos)
        highest = max(_DECIMAL_SUFFIXES) if self.format is not Format.DECIMAL_EXPONENT else _MAX_EXPONENT
        while number % 1000 == 0 and exponent < highest:
            number //= 1000
            exponent += 3
        if self.format is Format.DECIMAL_EXPONENT:
            return f"{sign}{number}" + (f"e{exponent}" if exponent else "")
        return f"{sign}{number}{_DECIMAL_SUFFIXES[exponent]}"


def _ten_to(exponent: int) -> int:
    return int(10**exponent)


@lru_cache(maxsize=8192)
def parse(text: str) -> Quantity:
    """Read a quantity; finer than nano is rounded up, as Kubernetes does.

    Raises:
        QuantityError: not in the grammar, or absurdly long or large.
    """
    if len(text) > _MAX_TEXT:
        raise QuantityError(text, f"longer than {_MAX_TEXT} characters")
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise QuantityError(text, 'expected a number with an optional suffix, like "500m", "4", "18Gi" or "2e3"')
    sign, number, binary, decimal, exponent = match.groups()
    whole, _, fraction = number.partition(".")
    digits = int(whole + fraction or "0")
    power = -len(fraction) - NANO
    if binary:
        form = Format.BINARY_SI
        digits <<= _BINARY[binary]
    elif exponent is not None:
        form = Format.DECIMAL_EXPONENT
        power += _bounded_exponent(text, int(exponent), digits)
    else:
        form = Format.DECIMAL_SI
        power += _DECIMAL[decimal or ""]
    nanos = digits * _ten_to(power) if power >= 0 else -(-digits // _ten_to(-power))
    if form is Format.BINARY_SI and 0 < nanos < 10**-NANO:
        form = Format.DECIMAL_SI
    return Quantity(-nanos if sign == "-" else nanos, form)


def _bounded_exponent(text: str, exponent: int, digits: int) -> int:
    """The exponent, unless the power of ten it asks for would be absurd to compute with."""
    if digits == 0:
        return 0
    if exponent > _MAX_EXPONENT:
        raise QuantityError(text, f"larger than {MAX_AMOUNT}")
    return max(exponent, -2 * _MAX_TEXT)


@lru_cache(maxsize=8192)
def amount(text: str, power: int = UNIT) -> int:
    """``text`` in units of ``10**power``, rounded away from 0.

    Raises:
        QuantityError: not a quantity, or beyond ±(2⁶³ - 1) of those units.
    """
    value = parse(text).scaled(power)
    if abs(value) > MAX_AMOUNT:
        raise QuantityError(text, f"larger than {MAX_AMOUNT}")
    return value


def canonical(value: int, power: int = UNIT, form: Format = Format.DECIMAL_SI) -> str:
    """``value`` units of ``10**power`` as a canonical quantity."""
    return str(Quantity(value * _ten_to(power - NANO), form))
