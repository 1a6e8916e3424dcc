"""Amounts of resources as exact integers.

Units: ``cpu`` in millicores; ``memory``, ``ephemeral-storage`` and ``hugepages-*`` in bytes; every other name
(``pods``, ``nvidia.com/gpu``, …) in whole units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from muster.cluster.quantity import MILLI, UNIT, Format, QuantityError, amount, canonical

CPU = "cpu"
MEMORY = "memory"
GPU = "nvidia.com/gpu"
PODS = "pods"
EPHEMERAL_STORAGE = "ephemeral-storage"


class Resources(msgspec.Struct, frozen=True, gc=False, order=True):
    """A vector over named resources; names without an entry are 0.

    Hashable and equal by value: made by ``parse``, ``of`` or arithmetic, ``amounts`` is sorted by name and holds no 0.
    """

    amounts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, quantities: Mapping[str, str | int]) -> Resources:
        """From a Kubernetes ``requests`` or ``allocatable`` mapping; rounds up as Kubernetes does.

        Raises:
            QuantityError: a value that is no quantity, naming the resource and the text.
        """
        return _normal((name, _amount(name, quantity)) for name, quantity in quantities.items())

    @classmethod
    def of(cls, **amounts: int) -> Resources:
        """From amounts in base units, e.g. ``Resources.of(cpu=500, memory=2**30, **{"nvidia.com/gpu": 1})``."""
        return _normal(amounts.items())

    def get(self, name: str) -> int:
        """The amount of one resource, in base units."""
        for key, value in self.amounts:
            if key == name:
                return value
        return 0

    def __add__(self, other: Resources) -> Resources:
        sums = dict(self.amounts)
        for name, value in other.amounts:
            sums[name] = sums.get(name, 0) + value
        return _normal(sums.items())

    def __sub__(self, other: Resources) -> Resources:
        """May be negative."""
        return self + other.times(-1)

    def times(self, count: int) -> Resources:
        """``count`` of these together."""
        return _normal((name, value * count) for name, value in self.amounts)

    def largest(self, other: Resources) -> Resources:
        """The larger amount of each resource (init containers against containers, KEP-753)."""
        result = dict(self.amounts)
        for name, value in other.amounts:
            result[name] = max(result.get(name, 0), value)
        return _normal(result.items())

    def quantities(self) -> dict[str, str]:
        """As Kubernetes quantities, canonical form."""
        return {name: canonical(value, scale(name), _format(name)) for name, value in self.amounts}


def scale(name: str) -> int:
    """The power of ten of one base unit of this resource: milli for cpu, 1 for everything else."""
    return MILLI if name == CPU else UNIT


def _format(name: str) -> Format:
    in_bytes = name in (MEMORY, EPHEMERAL_STORAGE) or name.startswith("hugepages-")
    return Format.BINARY_SI if in_bytes else Format.DECIMAL_SI


def _amount(name: str, quantity: object) -> int:
    if isinstance(quantity, bool) or not isinstance(quantity, str | int | float):
        raise QuantityError(quantity, f"{name} must be a text or a number")
    try:
        return amount(str(quantity), scale(name))
    except QuantityError as error:
        raise QuantityError(error.text, f"{name}: {error.why}") from None


def _normal(amounts: Iterable[tuple[str, int]]) -> Resources:
    return Resources(tuple(sorted((name, value) for name, value in amounts if value)))
