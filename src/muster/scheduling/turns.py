"""Whose turn it is when there may be room: slots that are owed, then the queues in order, then held executors."""

from __future__ import annotations

from collections.abc import Iterable

from muster.queueing.fifo import Waiting
from muster.scheduling import executors, gangs, occupancy
from muster.scheduling.plans import fits_one_zone
from muster.scheduling.records import Gang
from muster.scheduling.state import State

WAITING = "WaitingForCapacity"
BEHIND = "BehindEarlier"
EXCEEDS = "ExceedsCluster"
LEFT = "LeftToScheduler"


def take_turns(state: State) -> None:
    """Act on what the event stirred up, until nothing is."""
    while True:
        while state.overdrawn:
            node = state.overdrawn.popitem()[0]
            vacate(state, node)
        if state.stirred:
            state.stirred = False
            state.opened.clear()
            for gang in _in_order(state.owing.values()):
                gangs.repay(state, gang)
            for pool in _pools(state):
                _take_turns_in(state, pool)
            executors.release_held(state, _in_order(state.holding.values()))
        elif state.opened:
            opened = _in_order(state.opened.values())
            state.opened.clear()
            executors.release_held(state, opened)
        else:
            return


def vacate(state: State, node: str) -> None:
    """Slots that a node can no longer keep are owed, and drivers not yet released from there wait again."""
    occupancy.vacate(state, node)
    for gang in state.slots_on(node):
        if gang.driver_slot == node:
            gangs.keep_driver(state, gang)


def consider(state: State, gang: Gang) -> None:
    """An application joins the queue: start it now, or say why it waits."""
    waiting = gang.waiting
    state.queues.add(gang.pool, waiting)
    state.dirty[gang.key] = gang
    if not state.synced:
        return
    blocker = state.blockers.get(gang.pool)
    if blocker is not None and blocker < waiting:
        _refuse(state, gang, _excess(state, gang), blocked=True)
        return
    if gangs.try_start(state, gang):
        return
    excess = _excess(state, gang)
    _refuse(state, gang, excess, blocked=False)
    if not excess and state.policy.enforced(gang.pool, waiting.created, state.at):
        state.blockers[gang.pool] = waiting
        if blocker is not None:
            state.stirred = True


def join(state: State, gang: Gang) -> None:
    """The sizes of an application and where its driver stands are known: wait, start, or be adopted."""
    driver = gang.driver
    if gang.client:
        executors.begin_client(state, gang)
        join_clients(state)
    elif driver is None:
        return
    elif driver.pod.finished:
        gangs.end(state, gang, "its driver finished")
    elif driver.pod.node:
        state.leave_queue(gang)
        gangs.adopt(state, gang)
    elif driver.pod.gated:
        consider(state, gang)
    else:
        state.leave_queue(gang)
        gang.reason, gang.message = LEFT, "its driver was not held; ordinary scheduling places it"


def join_clients(state: State) -> None:
    """Gangs of client mode join the queue."""
    while state.joining:
        consider(state, state.joining.pop(next(iter(state.joining))))


def age(state: State) -> None:
    """Time has passed: a waiting gang may have reached the age from which on it blocks younger ones."""
    for pool in state.queues.pools():
        if pool not in state.blockers:
            _take_turns_in(state, pool)


def _pools(state: State) -> list[str]:
    return sorted({*state.queues.pools(), *state.blockers, *(gang.pool for gang in state.owing.values())})


def _take_turns_in(state: State, pool: str) -> None:
    before = state.blockers.get(pool)
    blocker = _owing_blocker(state, pool)
    nodes_changed = state.nodes_version != state.queued_at.get(pool)
    for waiting in state.queues.waiting(pool):
        gang = state.gangs[waiting.key]
        if not gangs.is_ready(gang):
            continue
        if blocker is not None:
            if blocker == before and not nodes_changed:
                break  # everybody further back has been told already
            _refuse(state, gang, _excess(state, gang), blocked=True)
            continue
        if gangs.try_start(state, gang):
            continue
        excess = _excess(state, gang)
        _refuse(state, gang, excess, blocked=False)
        if not excess and state.policy.enforced(pool, waiting.created, state.at):
            blocker = waiting
    state.queued_at[pool] = state.nodes_version
    if blocker is None:
        state.blockers.pop(pool, None)
        if not state.queues.waiting(pool):
            state.queued_at.pop(pool, None)
    else:
        state.blockers[pool] = blocker


def _owing_blocker(state: State, pool: str) -> Waiting | None:
    """The oldest running gang of the pool that still lacks slots of its minimum and could get them here."""
    candidates = [gang for gang in state.owing.values() if gang.pool == pool and gang.application is not None]
    for gang in _in_order(candidates):
        application = gang.application
        assert application is not None
        possible = not state.ceilings.excess(None, application.executor, gang.owed, state.nodes_version)
        if possible and state.policy.enforced(pool, application.created, state.at):
            return gang.waiting
    return None


def _excess(state: State, gang: Gang) -> str:
    """Which of the gang's numbers is too big for the empty cluster; "" when none is."""
    if gang.excess_at != state.nodes_version:
        application = gang.application
        assert application is not None
        driver, executor, minimum = gangs.driver_shape(gang), application.executor, application.minimum
        gang.excess = state.ceilings.excess(driver, executor, minimum, state.nodes_version)
        if not gang.excess and state.packer.single_zone and not fits_one_zone(state, driver, executor, minimum):
            gang.excess = (
                f"no single zone holds a minimum of {minimum} executors together with the driver, even when empty"
            )
        gang.excess_at = state.nodes_version
    return gang.excess


def _refuse(state: State, gang: Gang, excess: str, *, blocked: bool) -> None:
    """Note why an application waits, if that is news."""
    if excess:
        reason, message = EXCEEDS, f"can never start on this cluster: {excess}"
    elif blocked:
        reason, message = BEHIND, "an earlier application of its node pool waits for capacity, and goes first"
    else:
        reason = WAITING
        message = f"its driver and {gang.minimum} executor(s) do not fit together on the free capacity now"
        if gang.client:
            message = f"its {gang.minimum} executors do not fit together on the free capacity now"
    if (gang.reason, gang.message) != (reason, message):
        gang.reason, gang.message = reason, message
        state.tell(gang, f"{reason}: {message}")


def _in_order(some: Iterable[Gang]) -> list[Gang]:
    return sorted(some, key=lambda gang: gang.waiting)
