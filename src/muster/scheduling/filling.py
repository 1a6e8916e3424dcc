"""``tightly-pack`` for gangs of everyday size: the fullest nodes with room are picked out, the rest is never sorted.

The packer itself works on the order of all nodes, and keeping that in repair costs more than placing 20 executors.
The answer is the packer's, or none: then the packer decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from muster.cluster.nodes import Bools, Int64s, NodeTable
from muster.scheduling.zones import ZoneMask

MOST_EXECUTORS = 64
"""Larger gangs go to the packer."""
_MOST_TIES = 256
"""Rows that are sorted one by one; nodes in larger herds of equals go to the packer."""


def fill_fullest(
    table: NodeTable,
    driver: Int64s | None,
    driver_zones: Sequence[ZoneMask],
    executor: Int64s,
    executor_zones: Sequence[ZoneMask],
    capacity: Int64s,
    total: int,
    count: int,
) -> tuple[int, list[int], list[int]] | None:
    """The driver's row (-1 without), the rows of its executors in the packer's order, and how many go on each.

    ``capacity`` [N] and its sum ``total`` are of the executors; zones come fullest first. ``None``: not decided here.
    """
    driver_row, left = -1, 0
    if driver is not None:
        found = _driver_row(table, driver, driver_zones)
        if found is None:
            return None
        driver_row, left = found, _beside(table, driver, executor, found, int(capacity[found]))
        if total - int(capacity[driver_row]) + left < count:
            return None
    rows, counts, missing = [], [], count
    open_rows = capacity > 0
    for zone in executor_zones:
        candidates = (open_rows & zone.eligible).nonzero()[0]
        # One more than needed: the driver's row may have no room beside the driver.
        fullest = first_rows(table, candidates, missing + 1)
        if fullest is None:
            return None
        for row, room in zip(fullest, capacity.take(fullest).tolist(), strict=True):
            taken = min(missing, left if row == driver_row else room)
            if taken:
                rows.append(row)
                counts.append(taken)
                missing -= taken
                if not missing:
                    return driver_row, rows, counts
    return None


def first_rows(table: NodeTable, rows: Int64s, most: int) -> list[int] | None:
    """The first ``most`` of ``rows`` by free memory, free cpu and name; ``None`` when too many are alike."""
    memory = table.free[1].take(rows)
    if len(rows) > most:
        limit = np.partition(memory, most - 1)[most - 1]
        kept = memory <= limit
        rows, memory = rows[kept], memory[kept]
        if len(rows) > _MOST_TIES:
            return None
    names = table.names
    keys = zip(memory.tolist(), table.free[0].take(rows).tolist(), rows.tolist(), strict=True)
    ordered = sorted(keys, key=lambda key: (key[0], key[1], names[key[2]]))
    return [row for _, _, row in ordered[:most]]


def _driver_row(table: NodeTable, driver: Int64s, zones: Sequence[ZoneMask]) -> int | None:
    """The first row with room for the driver."""
    room = with_room(table, driver)
    for zone in zones:
        rows = (room & zone.eligible).nonzero()[0]
        if len(rows):
            first = first_rows(table, rows, 1)
            return first[0] if first is not None else None
    return None


def with_room(table: NodeTable, vector: Int64s) -> Bools:
    """[N] rows with room for one such pod, whether it may be there or not; comparing is cheaper than dividing."""
    room: Bools = table.free[0] >= vector[0]
    for dimension in range(1, len(table.free)):
        room &= table.free[dimension] >= (vector[dimension] if dimension < len(vector) else 0)
    return room


def _beside(table: NodeTable, driver: Int64s, executor: Int64s, row: int, known: int) -> int:
    """Executors that fit on ``row`` beside the driver."""
    free = table.free[:, row].tolist()
    for dimension, amount in enumerate(driver.tolist()):
        free[dimension] -= amount
    if min(free) < 0:
        return 0
    left = known
    for at, amount in enumerate(executor.tolist()):
        if amount > 0:
            left = min(left, int(free[at]) // int(amount))
    return left
