"""The future reservation of the application that waits at the head, and who may pass it meanwhile.

EASY backfilling (Lifka 1995; Mu'alem and Feitelson, IEEE TPDS 2001): from the expected ends of what runs follows the
earliest time at which the head fits. Others may start before it if they will have ended by then, or if they take
nothing of what it will take. Only expected ends that are known count; where they do not tell when the head fits, others
may only pass on nodes that the head can not use at all.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from muster.cluster.capacity import capacities
from muster.cluster.nodes import Bools, Int64s
from muster.scheduling import gangs
from muster.scheduling.model import ApplicationKey, Pod, PodShape
from muster.scheduling.plans import Plan, plan_within
from muster.scheduling.records import Footprint, Gang
from muster.scheduling.state import Future, State

_PLENTY = np.iinfo(np.int64).max


def plan_future(state: State, gang: Gang) -> Future:
    """When and where the head will fit, if everybody who runs ends as expected.

    Something that has outrun its expectation is taken to end at once: then nobody is let pass on the strength of it.
    """
    timed = _plan_in_time(state, gang)
    if timed is not None:
        return timed
    application = gang.application
    assert application is not None
    wanted = state.table.eligible(application.executor.constraints) if application.minimum else None
    driver = gangs.driver_shape(gang)
    if driver is not None:
        hosts = state.table.eligible(driver.constraints)
        wanted = hosts if wanted is None else wanted | hosts
    assert wanted is not None
    spare = np.where(wanted, np.int64(0), np.int64(_PLENTY))
    spare = np.broadcast_to(spare, (len(state.table.dimensions), len(spare)))
    return Future(gang.key, None, spare, state.table.version, state.nodes_version)


def planned_anew(state: State, future: Future) -> Future:
    """The same promise with what it leaves to others now. It never comes earlier: some have started because of it."""
    planned = plan_future(state, state.gangs[future.key])
    if planned.at is not None and future.at is not None and still_holds(state, future):
        planned.at = max(planned.at, future.at)
    return planned


def _plan_in_time(state: State, gang: Gang) -> Future | None:
    application = gang.application
    assert application is not None
    ends = _expected_ends(state, gang.key)
    if not ends:
        return None
    driver = gangs.driver_shape(gang)
    wanted = state.table.vector(application.executor.requests)
    eligible = state.table.eligible(application.executor.constraints)
    later = _Later(state, [footprint for _, footprint in ends])

    def may_fit(ended: int) -> bool:
        room = np.minimum(capacities(later.free(ended), wanted), application.minimum) * eligible
        return int(room.sum()) >= application.minimum

    low, high = 1, len(ends)
    if not may_fit(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if may_fit(middle) else (middle + 1, high)
    step = 1
    while True:
        free = later.free(low)
        plan = plan_within(state, driver, application.executor, application.minimum, free)
        if plan is not None:
            spare = _without(state, free, plan, driver, application.executor)
            return Future(gang.key, ends[low - 1][0], spare, state.table.version, state.nodes_version)
        if low == len(ends):
            return None
        low, step = min(low + step, len(ends)), 2 * step


def still_holds(state: State, future: Future) -> bool:
    """Whether the time that was promised still stands: it has not passed, and the nodes are the same."""
    return future.at is not None and future.at > state.at and future.nodes_version == state.nodes_version


def is_fresh(state: State, future: Future) -> bool:
    """Whether what the head leaves to others is known as of now."""
    if future.at is None:
        return future.nodes_version == state.nodes_version
    return future.version == state.table.version


def ends_before(state: State, gang: Gang, future: Future) -> bool:
    """Whether an application that starts now is expected to have ended when the head's room is needed."""
    application = gang.application
    assert application is not None
    seconds = application.run_seconds
    return seconds is not None and future.at is not None and state.at + seconds <= future.at


def room_beside(state: State, future: Future) -> Int64s:
    """[R, N] what is free now and will not be needed by the head. ``future`` is of this very moment."""
    free, spare = state.table.free, future.spare
    return np.minimum(free, spare) if len(spare) == len(free) else np.minimum(free, _padded(spare, len(free)))


def rows_beside(state: State, gang: Gang, pod: Pod) -> Bools | None:
    """[N] nodes on which an executor above the minimum takes nothing of what the head will need; ``None``: unknown."""
    future = state.futures.get(gang.pool)
    if future is None or not is_fresh(state, future):
        return None
    if future.at is not None and state.room_is_coming(gang.pool):
        return None
    room, wanted = room_beside(state, future), state.table.vector(pod.requests)
    enough = room[: len(wanted)] >= wanted[:, None]
    rows: Bools = np.logical_and.reduce(enough, axis=0)
    return rows


def took(state: State, gang: Gang, future: Future) -> None:
    """An application that may outlive the head's wait has started beside it."""
    if future.at is None:
        return  # on nodes that the head can not use
    rows, amounts = footprint_of(state, gang)
    future.spare = _padded(future.spare, len(amounts))
    future.spare[:, rows] -= amounts
    future.version = state.table.version


def footprint_of(state: State, gang: Gang) -> Footprint:
    """What a gang holds: distinct rows [K] and amounts [R, K]; kept until it changes."""
    if gang.footprint is not None and gang.footprint_at == state.nodes_version:
        return gang.footprint
    table = state.table
    index, size = table.index, len(table.dimensions)
    held: dict[int, Int64s] = {}

    def add(node: str, vector: Int64s, count: int = 1) -> None:
        row = index.get(node)
        if row is None:
            return
        amounts = held.get(row)
        if amounts is None:
            amounts = held[row] = np.zeros(size, dtype=np.int64)
        amounts[: len(vector)] += vector * count

    for record in gang.pods.values():
        if record.room:
            add(record.room, table.vector(record.charged))
    if gang.driver_slot:
        add(gang.driver_slot, table.vector(gang.driver_charged))
    if gang.free and gang.application is not None:
        vector = table.vector(gang.application.executor.requests)
        for node, count in gang.free.items():
            add(node, vector, count)
    rows = np.fromiter(held, dtype=np.int64, count=len(held))
    amounts = np.stack(list(held.values()), axis=1) if held else np.zeros((size, 0), dtype=np.int64)
    gang.footprint, gang.footprint_at = (rows, amounts), state.nodes_version
    return gang.footprint


def _expected_ends(state: State, waiting: ApplicationKey) -> list[tuple[float, Footprint]]:
    """Of everything that holds room and whose run time is known, the expected end and what it will free, in order."""
    at, gangs_of = state.at, state.gangs
    return [(max(at, end), footprint_of(state, gangs_of[key])) for end, key in state.ends if key != waiting]


class _Later:
    """What is free after the first so many have ended."""

    def __init__(self, state: State, footprints: list[Footprint]) -> None:
        size = len(state.table.dimensions)
        self._free = state.table.free
        self._rows = np.concatenate([rows for rows, _ in footprints])
        self._amounts = np.concatenate([_padded(amounts, size) for _, amounts in footprints], axis=1)
        self._ends = [0, *accumulate(len(rows) for rows, _ in footprints)]

    def free(self, ended: int) -> Int64s:
        upto = self._ends[ended]
        free = self._free.copy()
        np.add.at(free.T, self._rows[:upto], self._amounts[:, :upto].T)
        return free


def _padded(amounts: Int64s, size: int) -> Int64s:
    missing = size - len(amounts)
    return amounts if not missing else np.concatenate([amounts, np.zeros((missing, amounts.shape[1]), dtype=np.int64)])


def _without(state: State, free: Int64s, plan: Plan, driver: PodShape | None, executor: PodShape) -> Int64s:
    """``free`` less what the plan takes."""
    if driver is not None:
        vector = state.table.vector(driver.requests)
        free[: len(vector), plan.driver] -= vector
    vector = state.table.vector(executor.requests)
    free[: len(vector), plan.rows] -= vector[:, None] * plan.counts
    return free
