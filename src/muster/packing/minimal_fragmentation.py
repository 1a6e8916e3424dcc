"""``minimal-fragmentation``: as few nodes as possible, and rather small gaps than the large ones.

Applications that share few nodes free whole nodes when they end.
Source: ``pkg/binpack/minimal_fragmentation.go`` of palantir/k8s-spark-scheduler-lib.
"""

from __future__ import annotations

import numpy as np

from muster.packing.frame import pack_anywhere
from muster.packing.model import Bools, Gang, Int64s, Packing


def minimal_fragmentation(gang: Gang) -> Packing | None:
    return pack_anywhere(gang, fill_smallest_gaps)


def fill_smallest_gaps(capacity: Int64s, count: int) -> tuple[Int64s, Int64s]:
    """Prefer nodes that hold less than about half of what is asked plus the largest gap; else use all of them."""
    order = _ascending(capacity)
    sizes = capacity.take(order)
    largest = int(sizes[-1])
    if count < largest:
        few = int(sizes.searchsorted((count + largest) // 2))
        filled = _fill(sizes[:few], count)
        if filled is not None:
            return order.take(filled[0]), filled[1]
    filled = _fill(sizes, count)
    if filled is None:
        raise ValueError(f"{count} executors do not fit in {int(capacity.sum())} places")
    return order.take(filled[0]), filled[1]


def most_fitting(capacity: Int64s, used: Bools) -> int | None:
    """The position for one more executor: on nodes already ``used``, then the smallest gap, then the order."""
    open_positions = capacity.nonzero()[0]
    if not len(open_positions):
        return None
    strangers = ~used.take(open_positions)
    return int(open_positions[np.lexsort((capacity.take(open_positions), strangers))[0]])


def _ascending(capacity: Int64s) -> Int64s:
    """Positions that hold anything, stably sorted by how much."""
    positions = capacity.nonzero()[0]
    sizes = capacity.take(positions)
    if len(sizes) and int(sizes.max()) < 2**15:
        # NumPy sorts 16-bit integers by radix, five times as fast.
        return positions.take(sizes.astype(np.int16).argsort(kind="stable"))
    return positions.take(sizes.argsort(kind="stable"))


def _fill(sizes: Int64s, count: int) -> tuple[Int64s, Int64s] | None:
    """Fill whole nodes from the largest down until the rest fits on one; ``sizes`` ascend. ``None``: too few."""
    parts: list[Int64s] = []
    amounts: list[tuple[int, int]] = []
    end = len(sizes)
    while end:
        size = int(sizes[end - 1])
        if size >= count:
            parts.append(sizes[:end].searchsorted(np.array([count])))
            amounts.append((count, 1))
            return _joined(parts, amounts)
        begin = int(sizes[:end].searchsorted(size))
        taken = min(end - begin, count // size)
        parts.append(np.arange(begin, begin + taken))
        amounts.append((size, taken))
        count -= taken * size
        if count == 0:
            return _joined(parts, amounts)
        if begin + taken < end:
            # The rest is smaller than this size: the smallest node that holds it, this size's next one at worst.
            smallest = int(sizes[:begin].searchsorted(count))
            parts.append(np.array([smallest if smallest < begin else begin + taken]))
            amounts.append((count, 1))
            return _joined(parts, amounts)
        end = begin
    return None


def _joined(parts: list[Int64s], amounts: list[tuple[int, int]]) -> tuple[Int64s, Int64s]:
    sizes, repeats = zip(*amounts, strict=True)
    return np.concatenate(parts), np.repeat(np.array(sizes, dtype=np.int64), repeats)
