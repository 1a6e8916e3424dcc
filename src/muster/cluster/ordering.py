"""The order in which nodes are tried: fullest first, so that empty nodes stay empty and can be scaled away.

Source: palantir/k8s-spark-scheduler ``internal/sort/nodesorting.go``. Zones by their summed free memory, then cpu;
inside a zone nodes by free memory, free cpu, name. Where the original leaves ties to chance (zones), the name decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.complex128]
T = TypeVar("T", bound=np.generic)

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
        keys.imag = (np.clip(self.cpu.take(rows), -_CPU_LIMIT, _CPU_LIMIT) << _RANK_BITS) + self.ranks.take(rows)
        return keys


class UsageOrder:
    """Present rows sorted by (zone code, free memory, free cpu, name), repaired where rows changed.

    The keys hold memory as real and cpu with the name's rank as imaginary part: NumPy compares complex numbers
    lexicographically, and both parts stay within 2**53, where doubles are exact.
    """

    def __init__(self) -> None:
        self.rows: Int64s = np.empty(0, dtype=np.int64)
        self.bounds: Int64s = np.zeros(1, dtype=np.int64)
        """[zones + 1] where each zone code begins in ``rows``."""
        self._keys: Keys = np.empty(0, dtype=np.complex128)

    def rebuild(self, facts: NodeFacts) -> None:
        """Sort everything."""
        self.rows, self._keys, self.bounds = _sorted_by_zone(facts.present.nonzero()[0], facts)

    def repair(self, changed: Int64s, facts: NodeFacts, renamed: bool) -> None:
        """Move the ``changed`` rows (distinct) to where they belong now; with ``renamed``, ranks of others shifted."""
        moved = np.zeros(len(facts.present), dtype=np.bool_)
        moved[changed] = True
        stays = ~moved.take(self.rows)
        rows = self.rows[stays]
        keys = facts.keys(rows) if renamed else self._keys[stays]
        bounds = kept_bounds(stays, self.bounds)
        bounds = np.append(bounds, np.full(facts.zone_count + 1 - len(bounds), bounds[-1]))

        arriving, arriving_keys, starts = _sorted_by_zone(changed[facts.present.take(changed)], facts)
        positions = np.arange(len(arriving))
        edges, firsts = bounds.tolist(), starts.tolist()
        for zone in range(facts.zone_count):
            first, last = firsts[zone], firsts[zone + 1]
            if first < last:
                segment = keys[edges[zone] : edges[zone + 1]]
                positions[first:last] += segment.searchsorted(arriving_keys[first:last]) + edges[zone]
        self.rows = _merged(rows, arriving, positions)
        self._keys = _merged(keys, arriving_keys, positions)
        self.bounds = bounds + starts

    def worth_repairing(self, changes: int) -> bool:
        return changes * _REBUILD_SHARE <= len(self.rows)


def kept_bounds(kept: Bools, bounds: Int64s) -> Int64s:
    """Where the segments that begin at ``bounds`` begin once only the ``kept`` positions are left."""
    edges = bounds.tolist()
    counts = [np.count_nonzero(kept[first:last]) for first, last in pairwise(edges)]
    return np.asarray([0, *accumulate(counts)], dtype=np.int64)


def fullest_zone_first(rows: Int64s, bounds: Int64s, memory: Int64s, cpu: Int64s, names: Sequence[str]) -> Int64s:
    """Rows grouped by zone code, as whole zones in ascending order of their summed free memory, cpu, and name."""
    edges = bounds.tolist()
    zones = [(code, rows[first:last]) for code, (first, last) in enumerate(pairwise(edges)) if first < last]
    if len(zones) < 2:
        return rows
    ranked = sorted(
        (int(memory.take(members).sum()), int(cpu.take(members).sum()), names[code], members) for code, members in zones
    )
    return np.concatenate([members for *_, members in ranked])


def _sorted_by_zone(rows: Int64s, facts: NodeFacts) -> tuple[Int64s, Keys, Int64s]:
    """The rows sorted, their keys, and [zones + 1] where each zone begins."""
    keys, zones = facts.keys(rows), facts.zones.take(rows)
    order = np.lexsort((keys.imag, keys.real, zones))
    return rows.take(order), keys.take(order), zones.take(order).searchsorted(np.arange(facts.zone_count + 1))


def _merged(kept: npt.NDArray[T], arriving: npt.NDArray[T], positions: Int64s) -> npt.NDArray[T]:
    """Both arrays as one, the arriving elements at ``positions`` of it."""
    result = np.empty(len(kept) + len(arriving), dtype=kept.dtype)
    free = np.ones(len(result), dtype=np.bool_)
    free[positions] = False
    result[free] = kept
    result[positions] = arriving
    return result
