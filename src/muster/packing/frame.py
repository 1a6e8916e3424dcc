"""What all packers share: the driver takes the first node with which the whole gang fits.

Source: ``SparkBinPack`` and ``SingleAZ`` of palantir/k8s-spark-scheduler-lib (``pkg/binpack``). The original tries to
place all executors for every driver node in turn. Whether that succeeds is known beforehand: with capacities ``c``, and
``c'[d]`` the capacity beside the driver, the gang fits with the driver on ``d`` iff ``sum(c) - c[d] + c'[d] >= k``.
"""

from __future__ import annotations

import numpy as np

from muster.packing.capacity import beside_driver, beside_driver_on, in_order, room_for
from muster.packing.efficiency import placed_efficiency
from muster.packing.model import NO_DRIVER, Gang, Int64s, Packing, Place

_NOWHERE = np.empty(0, dtype=np.int64)


def pack_anywhere(gang: Gang, place: Place, *, interleaved: bool = False) -> Packing | None:
    """Place the gang over all rows of its orders."""
    return _pack(gang, _with_room(gang), gang.executor_order, place, interleaved)


def pack_in_best_zone(gang: Gang, place: Place, *, charge_executors: bool) -> Packing | None:
    """Place the gang inside one zone: of those where it fits, the one whose nodes are used best afterwards.

    ``charge_executors`` says whether efficiencies count the executors (the original forgets them under minimal
    fragmentation). The first zone wins ties, and a zone of efficiency 0 never wins. Without a driver, which the
    original does not know, executors always count, and any zone may win.
    """
    charge_executors = charge_executors or gang.driver is None
    visited = gang.driver_order if gang.driver is not None else gang.executor_order
    drivers = _with_room(gang)
    driver_zones, executor_zones = gang.zones.take(drivers), gang.zones.take(gang.executor_order)
    best, best_efficiency = None, 0.0 if gang.driver is not None else -1.0
    for zone in _by_first_appearance(gang.zones.take(visited)):
        executor_rows = gang.executor_order[executor_zones == zone]
        if not len(executor_rows):
            continue
        packing = _pack(gang, drivers[driver_zones == zone], executor_rows, place, interleaved=False)
        if packing is None:
            continue
        efficiency = placed_efficiency(gang, packing, charge_executors=charge_executors)
        if efficiency > best_efficiency:
            best, best_efficiency = packing, efficiency
    return best


def _with_room(gang: Gang) -> Int64s:
    """The rows of the driver order that have room for the driver."""
    if gang.driver is None:
        return _NOWHERE
    return gang.driver_order[room_for(gang, gang.driver).take(gang.driver_order)]


def _pack(gang: Gang, drivers: Int64s, executors: Int64s, place: Place, interleaved: bool) -> Packing | None:
    """``drivers`` are the rows that have room for the driver, ``executors`` those that executors may use."""
    if gang.driver is not None and not len(drivers):
        return None
    if gang.count == 0:
        return Packing(NO_DRIVER if gang.driver is None else int(drivers[0]), _NOWHERE, _NOWHERE)
    capacity = in_order(gang, executors)
    total = int(np.minimum(capacity, gang.count).sum())
    if total < gang.count:
        return None
    driver_row = NO_DRIVER
    if gang.driver is not None:
        chosen = _choose_driver(gang, gang.driver, drivers, executors, capacity, total)
        if chosen is None:
            return None
        driver_row, position, left = chosen
        if position is not None:
            capacity[position] = left
    positions, counts = place(capacity, gang.count)
    return Packing(driver_row, executors.take(positions), counts, interleaved)


def _choose_driver(
    gang: Gang, driver: Int64s, drivers: Int64s, executors: Int64s, capacity: Int64s, total: int
) -> tuple[int, int | None, int] | None:
    """The first driver row with which all executors fit, its position among ``executors``, its capacity beside it.

    ``total`` is the sum of capacities, each counted up to the executors wanted.
    """
    first = int(drivers[0])
    positions = (executors == first).nonzero()[0]
    if not len(positions):
        return first, None, 0
    position = int(positions[0])
    # A capacity the caller knows beforehand may be smaller than the amounts alone allow.
    left = min(beside_driver_on(gang, driver, first), int(capacity[position]))
    if total - min(int(capacity[position]), gang.count) + min(left, gang.count) >= gang.count:
        return first, position, left
    where = np.full(gang.available.shape[1], -1, dtype=np.int64)
    where[executors] = np.arange(len(executors))
    at = where.take(drivers)
    shared = at >= 0
    known = capacity.take(at)
    lefts = np.minimum(beside_driver(gang, driver, drivers), known)
    before, after = np.minimum(known, gang.count), np.minimum(lefts, gang.count)
    fitting = total + np.where(shared, after - before, 0) >= gang.count
    winner = int(fitting.argmax())
    if not fitting[winner]:
        return None
    return int(drivers[winner]), int(at[winner]) if shared[winner] else None, int(lefts[winner])


def _by_first_appearance(zones: Int64s) -> list[int]:
    if not len(zones):
        return []
    first = np.full(int(zones.max()) + 1, -1, dtype=np.int64)
    # With repeated indices the last assignment stands: backwards, that is the first appearance.
    first[zones[::-1]] = np.arange(len(zones) - 1, -1, -1)
    seen = (first >= 0).nonzero()[0]
    codes: list[int] = seen.take(first.take(seen).argsort()).tolist()
    return codes
