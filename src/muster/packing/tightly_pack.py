"""``tightly-pack``: fill each node in order until the next executor does not fit."""

from __future__ import annotations

import numpy as np

from muster.packing.frame import pack_anywhere
from muster.packing.model import Gang, Int64s, Packing


def tightly_pack(gang: Gang) -> Packing | None:
    return pack_anywhere(gang, fill_in_order)


def fill_in_order(capacity: Int64s, count: int) -> tuple[Int64s, Int64s]:
    """As many as fit on each position in turn, until ``count`` are placed."""
    # Each position takes one at least: no more than ``count`` of them are needed.
    positions = capacity.nonzero()[0][:count]
    counts = np.minimum(capacity.take(positions), count)
    sums = counts.cumsum()
    last = int(sums.searchsorted(count))
    positions, counts = positions[: last + 1], counts[: last + 1]
    counts[last] -= int(sums[last]) - count
    return positions, counts
