"""Where something would go now: a gang, slots that are owed, one executor more. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from muster.cluster.capacity import capacities
from muster.cluster.nodes import Bools, Int64s, NodeTable
from muster.packing.model import Gang as Question
from muster.packing.tightly_pack import fill_in_order
from muster.scheduling.filling import MOST_EXECUTORS, fill_fullest, with_room
from muster.scheduling.model import PodShape
from muster.scheduling.records import Gang
from muster.scheduling.state import State
from muster.scheduling.zones import ZoneMask, fullest_first

_NOTHING = np.empty(0, dtype=np.int64)


class Plan(msgspec.Struct, frozen=True, eq=False):
    """``counts[i]`` executors on the distinct ``rows[i]``."""

    driver: int
    """Row of the driver; negative when there is none to place."""
    rows: Int64s
    counts: Int64s


def plan_gang(
    state: State, driver: PodShape | None, executor: PodShape, count: int, driver_rows: Bools | None = None
) -> Plan | None:
    """Places for the driver and ``count`` executors together, or ``None`` when they do not all fit.

    ``driver_rows`` [N]: where the driver may go, instead of all nodes that it may use.
    """
    table = state.table
    wanted = table.vector(executor.requests)
    total = table.total_capacity(wanted, executor.constraints) if count else 0
    if total < count:
        return None
    if driver_rows is not None:
        return _pack(state, driver, executor, count, driver_rows)
    if not count and driver is not None and not table.total_capacity(table.vector(driver.requests), driver.constraints):
        return None
    capacity = table.capacity(wanted, executor.constraints)
    quick = _fill_fullest(state, driver, executor, capacity, total, count)
    return quick if quick is not None else _pack(state, driver, executor, count, None)


def plan_within(
    state: State, driver: PodShape | None, executor: PodShape, count: int, available: Int64s
) -> Plan | None:
    """As ``plan_gang``, with ``available`` [R, N] instead of what is free now."""
    wanted = state.table.vector(executor.requests)
    capacity = capacities(available, wanted) * state.table.eligible(executor.constraints)
    if count and int(np.minimum(capacity, count).sum()) < count:
        return None
    return _pack(state, driver, executor, count, None, (available, capacity))


def _pack(
    state: State,
    driver: PodShape | None,
    executor: PodShape,
    count: int,
    driver_rows: Bools | None,
    room: tuple[Int64s, Int64s] | None = None,
) -> Plan | None:
    """The packer's answer. ``room``: amounts [R, N] and executors that fit in them [N], instead of what is free now."""
    table, config = state.table, state.config
    wanted = table.vector(executor.requests)
    executor_order = table.order(table.eligible(executor.constraints), config.executor_priority)
    driver_order = _NOTHING
    if driver is not None:
        if driver_rows is not None:
            driver_order = table.order(driver_rows, config.driver_priority)
        elif driver.constraints == executor.constraints and config.driver_priority == config.executor_priority:
            driver_order = executor_order
        else:
            driver_order = table.order(table.eligible(driver.constraints), config.driver_priority)
    available, capacity = room if room is not None else (table.free, table.capacity(wanted, executor.constraints))
    question = Question(
        available=available,
        schedulable=table.schedulable,
        driver=table.vector(driver.requests) if driver is not None else None,
        executor=wanted,
        count=count,
        driver_order=driver_order,
        executor_order=executor_order,
        zones=table.zones,
        capacity=capacity,
    )
    packing = state.packer.pack(question)
    return None if packing is None else Plan(packing.driver_row, packing.rows, packing.counts)


def _fill_fullest(
    state: State, driver: PodShape | None, executor: PodShape, capacity: Int64s, total: int, count: int
) -> Plan | None:
    """The packer's own answer without sorting all nodes, where that can be had."""
    table, config = state.table, state.config
    if state.packer.name != "tightly-pack" or not 0 < count <= MOST_EXECUTORS:
        return None
    if config.executor_priority is not None or config.driver_priority is not None:
        return None
    memory, cpu = table.free[1], table.free[0]
    executor_zones = fullest_first(state.zones.of(executor.constraints, state.nodes_version), memory, cpu)
    driver_zones = executor_zones
    if driver is not None and driver.constraints != executor.constraints:
        driver_zones = fullest_first(state.zones.of(driver.constraints, state.nodes_version), memory, cpu)
    placed = fill_fullest(
        table,
        table.vector(driver.requests) if driver is not None else None,
        driver_zones,
        table.vector(executor.requests),
        executor_zones,
        capacity,
        total,
        count,
    )
    if placed is None:
        return None
    row, rows, counts = placed
    return Plan(row, np.array(rows, dtype=np.int64), np.array(counts, dtype=np.int64))


def fits_one_zone(state: State, driver: PodShape | None, executor: PodShape, count: int) -> bool:
    """Whether a packer that keeps gangs within one zone could place this one if all nodes were empty."""
    table = state.table
    question = Question(
        available=table.allocatable,
        schedulable=table.allocatable,
        driver=table.vector(driver.requests) if driver is not None else None,
        executor=table.vector(executor.requests),
        count=count,
        driver_order=table.eligible(driver.constraints).nonzero()[0] if driver is not None else _NOTHING,
        executor_order=table.eligible(executor.constraints).nonzero()[0],
        zones=table.zones,
    )
    return state.packer.pack(question) is not None


def plan_slots(state: State, executor: PodShape, count: int) -> Plan:
    """Places for as many of ``count`` slots as fit."""
    vector = state.table.vector(executor.requests)
    count = min(count, state.table.total_capacity(vector, executor.constraints))
    plan = plan_gang(state, None, executor, count) if count else None
    if plan is None and count:
        # No single zone has room for all of them: a gang that runs already is better off with slots elsewhere.
        plan = _anywhere(state, executor, count)
    return plan if plan is not None else Plan(-1, _NOTHING, _NOTHING)


def pick_row(state: State, gang: Gang, shape: PodShape, among: Bools | None = None) -> int | None:
    """The row for one executor outside its gang's slots, of those ``among`` [N] if given; or ``None``."""
    table, priority = state.table, state.config.executor_priority
    vector = table.vector(shape.requests)
    if priority is None and not state.packer.minimal_fragmentation:
        open_rows = with_room(table, vector)
        if among is not None:
            open_rows = open_rows & among
        return first_row(table, open_rows, state.zones.of(shape.constraints, state.nodes_version))
    if table.total_capacity(vector, shape.constraints) == 0:
        return None
    capacity, eligible = table.capacity(vector, shape.constraints), table.eligible(shape.constraints)
    if among is not None:
        eligible = eligible & among
    used = np.zeros(len(table.names), dtype=np.bool_)
    if state.packer.minimal_fragmentation:
        rows = {table.index[record.room] for record in gang.pods.values() if record.room and record is not gang.driver}
        used[list(rows)] = True
    return state.packer.one_more(capacity, table.order(eligible, priority), used)


def first_row(table: NodeTable, open_rows: Bools, zones: Sequence[ZoneMask]) -> int | None:
    """The first of ``open_rows`` [N] in the order of ``NodeTable.order``, without sorting all of them.

    ``zones`` are those with a node that the pod may use, and only these nodes count.
    """
    rows = _NOTHING
    for zone in fullest_first(zones, table.free[1], table.free[0]):
        rows = (open_rows & zone.eligible).nonzero()[0]
        if len(rows):
            break
    for amounts in (table.free[1], table.free[0]):
        if len(rows) > 1:
            left = amounts.take(rows)
            rows = rows[left == left.min()]
    return min(rows.tolist(), key=table.names.__getitem__, default=None)


def _anywhere(state: State, executor: PodShape, count: int) -> Plan:
    table = state.table
    order = table.order(table.eligible(executor.constraints), state.config.executor_priority)
    capacity = table.capacity(table.vector(executor.requests), executor.constraints).take(order)
    positions, counts = fill_in_order(capacity, count)
    return Plan(-1, order.take(positions), counts)
