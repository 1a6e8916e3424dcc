"""The order in which nodes are tried: fullest first, so that empty nodes stay empty and can be scaled away.

Source: palantir/k8s-spark-scheduler ``internal/sort/nodesorting.go``. Zones by their summed free memory, then cpu;
inside a zone nodes by free memory, free cpu, name. Where the original leaves ties to chance (zones), the name decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.complex128]

_RANK_BITS = 20
_CPU_LIMIT = 2**32
_REBUILD_SHARE = 8
_RENAME_ALL = 64


class LabelPriority(msgspec.Struct, frozen=True):
    """Prefer nodes by the value of a label; nodes with other values, or without the label, come last."""

    label: str
    values: tuple[str, ...]
    """Most wanted first."""


class NameRanks:
    """[N] the position of each row's name among all names in byte order, kept as nodes come and go."""

    def __init__(self, rows: int) -> None:
        self.ranks: Int64s = np.zeros(rows, dtype=np.int64)
        self._sorted: list[str] = []

    def copy(self) -> NameRanks:
        other = copy(self)
        other.ranks, other._sorted = self.ranks.copy(), self._sorted.copy()
        return other

    def grow(self, rows: int) -> None:
        self.ranks = np.concatenate([self.ranks, np.zeros(rows - len(self.ranks), dtype=np.int64)])

    def update(self, renamed: Mapping[str, int | None], row_of: Mapping[str, int]) -> None:
        """Take over names that came (with their row) or went (``None``); ``row_of`` are all there are now."""
        if len(renamed) > _RENAME_ALL:
            self._sorted = sorted(row_of)
            self.ranks[[row_of[name] for name in self._sorted]] = np.arange(len(self._sorted))
            return
        for name, row in renamed.items():
            self._discard(name)
            if row is not None:
                self._add(row, name)

    def _add(self, row: int, name: str) -> None:
        position = bisect_left(self._sorted, name)
        self._sorted.insert(position, name)
        self.ranks[self.ranks >= position] += 1
        self.ranks[row] = position

    def _discard(self, name: str) -> None:
        position = bisect_left(self._sorted, name)
        if position < len(self._sorted) and self._sorted[position] == name:
            del self._sorted[position]
            self.ranks[self.ranks > position] -= 1


class NodeFacts(NamedTuple):
    """What the order depends on; arrays are [N] or longer."""

    present: Bools
    memory: Int64s
    """Free bytes."""
    cpu: Int64s
    """Free millicores."""
    ranks: Int64s
    zones: Int64s
    zone_count: int

    def keys(self, rows: Int64s) -> Keys:
        keys = np.empty(len(rows), dtype=np.complex128)
        keys.real = self.memory.take(rows)
        # Two ufuncs: np.clip costs three times as much on a few rows.
        cpu = np.minimum(np.maximum(self.cpu.take(rows), -_CPU_LIMIT), _CPU_LIMIT)
        keys.imag = (cpu << _RANK_BITS) + self.ranks.take(rows)
        return keys


class UsageOrder:
    """Present rows sorted by (zone code, free memory, free cpu, name), repaired where amounts changed.

    The keys hold memory as real and cpu with the name's rank as imaginary part: NumPy compares complex numbers
    lexicographically, and both parts stay within 2**53, where doubles are exact.
    """

    def __init__(self) -> None:
        self.rows: Int64s = np.empty(0, dtype=np.int64)
        self.edges: list[int] = [0]
        """[zones + 1] where each zone code begins in ``rows``."""
        self._keys: Keys = np.empty(0, dtype=np.complex128)
        self._where: Int64s = np.empty(0, dtype=np.int64)
        """[N] position in ``rows`` of each row; -1 for rows that are not there."""

    def rebuild(self, facts: NodeFacts) -> None:
        """Sort everything."""
        rows = facts.present.nonzero()[0]
        keys, zones = facts.keys(rows), facts.zones.take(rows)
        by_zone = [(zones == zone).nonzero()[0] for zone in range(facts.zone_count)]
        # Keys are distinct, and sorting complex numbers zone by zone takes two thirds of a lexsort of everything.
        order = np.concatenate([at.take(keys.take(at).argsort()) for at in by_zone]) if by_zone else rows
        self.rows, self._keys = rows.take(order), keys.take(order)
        self.edges = zones.take(order).searchsorted(np.arange(facts.zone_count + 1)).tolist()
        self._where = np.full(len(facts.present), -1, dtype=np.int64)
        self._where[self.rows] = np.arange(len(self.rows))

    def repair(self, changed: Int64s, facts: NodeFacts) -> None:
        """Move the ``changed`` rows (some perhaps twice) to where they belong now.

        Only amounts may have changed: the rows, their zones and their ranks are those of the last ``rebuild``.
        """
        positions = np.array(sorted(set(self._where.take(changed).tolist())))
        keys = facts.keys(self.rows.take(positions))
        firsts = positions.searchsorted(self.edges).tolist()
        for (begin, end), (first, last) in zip(pairwise(self.edges), pairwise(firsts), strict=True):
            if first < last:
                self._move(begin, end, positions[first:last], keys[first:last])

    def _move(self, begin: int, end: int, old: Int64s, keys: Keys) -> None:
        """Give the rows at the ascending positions ``old`` of a zone, which is ``begin`` to ``end``, new keys."""
        order = keys.argsort()
        keys, moving = keys.take(order), self.rows.take(old.take(order))
        # The outdated keys are still in their places, so that the zone is sorted for the search.
        new = self._keys[begin:end].searchsorted(keys) + begin
        new += np.arange(len(new)) - old.searchsorted(new)
        low = min(int(old[0]), int(new[0]))
        high = max(int(old[-1]), int(new[-1])) + 1
        stays, kept = np.ones((2, high - low), dtype=np.bool_)
        stays[old - low] = False
        kept[new - low] = False
        rows_there, keys_there = self.rows[low:high], self._keys[low:high]
        rows_there[kept], keys_there[kept] = rows_there[stays], keys_there[stays]
        self.rows[new], self._keys[new] = moving, keys
        self._where[rows_there] = np.arange(low, high)

    def worth_repairing(self, changes: int) -> bool:
        return changes * _REBUILD_SHARE <= len(self.rows)


def kept_edges(kept: Bools, edges: Sequence[int]) -> list[int]:
    """Where the segments that begin at ``edges`` begin once only the ``kept`` positions are left."""
    return [0, *accumulate(int(np.count_nonzero(kept[first:last])) for first, last in pairwise(edges))]


def fullest_zone_first(rows: Int64s, edges: Sequence[int], memory: Int64s, cpu: Int64s, names: Sequence[str]) -> Int64s:
    """Rows grouped by zone code, as whole zones in ascending order of their summed free memory, cpu, and name."""
    zones = [(code, first, last) for code, (first, last) in enumerate(pairwise(edges)) if first < last]
    if len(zones) < 2:
        return rows
    starts = [first for _, first, _ in zones]
    memories = np.add.reduceat(memory.take(rows), starts).tolist()
    cpus = [0] * len(zones)
    if len(set(memories)) < len(zones):
        cpus = np.add.reduceat(cpu.take(rows), starts).tolist()
    ranked = sorted(range(len(zones)), key=lambda at: (memories[at], cpus[at], names[zones[at][0]]))
    return np.concatenate([rows[zones[at][1] : zones[at][2]] for at in ranked])
