"""Amounts of resources as exact integers.

Units: ``cpu`` in millicores; ``memory``, ``ephemeral-storage`` and ``hugepages-*`` in bytes; every other name
(``pods``, ``nvidia.com/gpu``, …) in whole units.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Resources(msgspec.Struct, frozen=True, order=True):
    """A vector over named resources; names without an entry are 0. Hashable, ordered by name."""

    amounts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, quantities: Mapping[str, str | int]) -> Resources:
        """From a Kubernetes ``requests`` or ``allocatable`` mapping; rounds up as Kubernetes does."""
        raise NotImplementedError

    @classmethod
    def of(cls, **amounts: int) -> Resources:
        """From amounts in base units, e.g. ``Resources.of(cpu=500, memory=2**30)``."""
        raise NotImplementedError

    def get(self, name: str) -> int:
        raise NotImplementedError

    def __add__(self, other: Resources) -> Resources:
        raise NotImplementedError

    def __sub__(self, other: Resources) -> Resources:
        raise NotImplementedError

    def times(self, count: int) -> Resources:
        raise NotImplementedError

    def quantities(self) -> dict[str, str]:
        """As Kubernetes quantities, canonical form."""
        raise NotImplementedError
