"""``distribute-evenly``: rounds over the order, one executor per node and round; a node leaves when it is full."""

from __future__ import annotations

import numpy as np

from muster.packing.frame import pack_anywhere
from muster.packing.model import Gang, Int64s, Packing


def distribute_evenly(gang: Gang) -> Packing | None:
    return pack_anywhere(gang, deal_in_rounds, interleaved=True)


def deal_in_rounds(capacity: Int64s, count: int) -> tuple[Int64s, Int64s]:
    """How many each position got once all rounds are played, without playing them.

    After ``r`` rounds ``sum(min(capacity, r))`` executors are placed; that sum grows linearly between two neighbouring
    capacities, so the last full round follows from the sorted capacities.
    """
    positions = capacity.nonzero()[0]
    room = np.minimum(capacity.take(positions), count)
    levels = np.sort(room)
    sums = levels.cumsum()
    nodes = len(levels)
    placed_at = sums + levels * np.arange(nodes - 1, -1, -1)
    full = int(placed_at.searchsorted(count, side="right"))
    rounds, placed = (int(levels[full - 1]), int(placed_at[full - 1])) if full else (0, 0)
    if full < nodes:
        more, remainder = divmod(count - placed, nodes - full)
        rounds += more
    else:
        remainder = 0
    counts = np.minimum(room, rounds)
    if remainder:
        counts[(room > rounds).nonzero()[0][:remainder]] += 1
    used = counts > 0
    return positions[used], counts[used]
