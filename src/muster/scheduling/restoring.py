"""After a restart: what the API tells is put together again, and only then does anything new happen."""

from __future__ import annotations

from muster.scheduling import executors, gangs, occupancy, turns
from muster.scheduling.model import Application, GangStatus, Phase, Reservation
from muster.scheduling.records import Gang
from muster.scheduling.state import State


def remember(state: State, gang: Gang, reservation: Reservation, status: GangStatus | None) -> None:
    """A reservation was read back; it counts when everything has been told."""
    gang.restored = reservation
    gang.revision = reservation.revision
    gang.reserved_driver = reservation.driver_node
    gang.reserved = state.at
    if status is not None:
        gang.reported = status
        gang.found = status.found if status.found is not None else gang.found
        gang.reserved = status.reserved if status.reserved is not None else gang.reserved
        gang.driver_bound = status.driver_bound if status.driver_bound is not None else gang.driver_bound
        gang.minimum_reached = status.minimum_reached


def follow(state: State, gang: Gang, application: Application, reservation: Reservation) -> None:
    """Another process was asked and reserved: hold what it wrote, as far as there is room, instead of what was held.

    What is kept here for drivers that nobody has asked about yet makes way first.
    """
    driver = gang.driver
    if driver is None or driver.pod.finished or gang.phase is Phase.FINISHED:
        return
    for other in list(state.unasked.values()):
        if other is not gang and other.phase is Phase.RESERVED:
            gangs.requeue(state, other, "another process reserved first")
    state.unasked.clear()
    occupancy.give_everything(state, gang)
    state.leave_queue(gang)
    gang.shelved, gang.phase = False, Phase.PENDING
    gangs.sized(state, gang, application)
    remember(state, gang, reservation, None)
    _restore(state, gang)
    gang.restored = None
    if not gang.holds:
        turns.join(state, gang)
    state.tell(gang, "its reservation was written by another process")
    state.stirred = True


def settle_all(state: State) -> None:
    """Everything that exists has been told: restored gangs hold their slots again, the others wait or are adopted."""
    restored = sorted((gang for gang in state.gangs.values() if gang.restored is not None), key=_turn)
    for gang in restored:
        _restore(state, gang)
    for gang in restored:
        _finish(state, gang)
    for _, gang in sorted(state.gangs.items()):
        if gang.phase is Phase.PENDING:
            _begin(state, gang)
    state.stirred = True


def _turn(gang: Gang) -> tuple[bool, bool, float, str]:
    """Whose reservations are surely as they were written come first.

    A gang that still waits may have one that is outdated. Once a gang has had its minimum, its slots follow its
    executors, and where they were when the last leader died may not have been written; another gang may have been
    given the room. Of two started gangs that claim it, the younger has it and the older one's slots move.
    """
    waits = gang.driver is not None and gang.driver.pod.gated
    return waits, gang.minimum_reached is not None, -(gang.reserved or 0.0), gang.key


def _restore(state: State, gang: Gang) -> None:
    """Hold the slots of the reservation again, as far as the nodes still have them and executors do not fill them."""
    reservation = gang.restored
    assert reservation is not None
    driver = gang.driver
    if gang.phase is Phase.FINISHED:
        return
    if not gang.client and (driver is None or driver.pod.finished):
        gang.restored = None
        gangs.end(state, gang, "its driver ended while nobody watched")
        return
    if driver is not None and driver.pod.gated and not reservation.driver_node:
        return  # written back when its slots were lost: it waits
    gang.phase = Phase.RUNNING if driver is None or driver.pod.node else Phase.RESERVED
    if driver is not None and not driver.pod.node:
        _restore_driver_slot(state, gang, reservation.driver_node)
    gang.durable = {}
    for slot in reservation.slots:
        gang.durable[slot.node] = gang.durable.get(slot.node, 0) + slot.count
    for node, count in sorted(_unfilled(state, gang, gang.durable).items()):
        _restore_slots(state, gang, node, count)
    gang.drifted = True
    occupancy.adopt_placed(state, gang)


def _restore_driver_slot(state: State, gang: Gang, node: str) -> None:
    shape = gangs.driver_shape(gang)
    row = state.table.index.get(node)
    if row is None or shape is None:
        return
    vector = state.table.vector(shape.requests)
    if bool((state.table.free[:, row] >= vector).all()):
        occupancy.hold_driver_slot(state, gang, row, shape.requests)


def _unfilled(state: State, gang: Gang, durable: dict[str, int]) -> dict[str, int]:
    """The reservation's slots that no executor fills: its own node's first, then any."""
    left = dict(durable)
    for record in gang.pods.values():
        if record.in_gang and left.get(record.room):
            left[record.room] -= 1
    unfilled = {node: count for node, count in left.items() if count}
    surplus = sum(unfilled.values()) - max(0, gang.minimum - gang.placed_in_gang)
    if surplus <= 0:
        return unfilled
    for node in sorted(unfilled, key=lambda name: (_may_use(state, gang, name), name)):
        dropped = min(unfilled[node], max(0, surplus))
        unfilled[node] -= dropped
        surplus -= dropped
    return {node: count for node, count in unfilled.items() if count}


def _may_use(state: State, gang: Gang, node: str) -> bool:
    assert gang.application is not None
    return occupancy.usable(state, node, gang.application.executor.constraints)


def _restore_slots(state: State, gang: Gang, node: str, count: int) -> None:
    assert gang.application is not None
    executor = gang.application.executor
    row = state.table.index.get(node)
    if row is None:
        return
    vector = state.table.vector(executor.requests)
    fits = min(count, int(state.table.capacity(vector, executor.constraints)[row]))
    if fits:
        state.table.charge(row, vector, fits)
        occupancy.hold_slots(state, gang, (row,), (fits,))


def _finish(state: State, gang: Gang) -> None:
    """Missing slots are placed anew. A driver still gated is released if it has all, else its gang waits again."""
    gang.restored = None
    if not gang.holds:
        return
    gangs.repay(state, gang)
    driver = gang.driver
    if driver is not None and driver.pod.gated:
        if gang.driver_slot and not gang.owed:
            gangs.release(state, gang)
        else:
            gangs.requeue(state, gang, "slots of its reservation are no longer there")


def _begin(state: State, gang: Gang) -> None:
    if gang.application is None:
        if gang.driver is None:
            for record in list(gang.pods.values())[:1]:
                executors.find_gang(state, record.pod)
            turns.join_clients(state)
        return
    turns.join(state, gang)
