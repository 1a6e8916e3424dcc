"""Who could give room back, and whether that would be enough: the scheduler's state as ``queueing.preemption`` asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import msgspec
import numpy as np

from muster.cluster.capacity import capacities
from muster.cluster.resources import Resources
from muster.queueing import entitlement
from muster.queueing.config import Preemption
from muster.queueing.preemption import (
    Candidate,
    Claimant,
    ExecutorLoss,
    Holder,
    Room,
    Standing,
    dominant_share,
    loss_by_age,
)
from muster.scheduling import gangs, quota
from muster.scheduling.model import ApplicationKey, PodShape, Role
from muster.scheduling.plans import plan_gang
from muster.scheduling.records import GANG_PROFILE, NOTHING, Gang, PodRecord
from muster.scheduling.state import State
from muster.spark.names import executor_id_of


class Trial:
    """``queueing.preemption.Trial`` on the real nodes and queues: what is freed is given back to them meanwhile."""

    def __init__(self, state: State, gang: Gang) -> None:
        self._state = state
        self._gang = gang
        self._limited = not gang.holds and state.queues.tree.limited(_queue(gang))

    def free(self, rooms: Sequence[Room]) -> None:
        self._charge(rooms, -1)

    def take_back(self, rooms: Sequence[Room]) -> None:
        self._charge(rooms, 1)

    def fits(self) -> bool:
        """Whether the gang would start now, or would get all that it is owed."""
        state, gang = self._state, self._gang
        application = gang.application
        assert application is not None
        if gang.holds:
            vector = state.table.vector(application.executor.requests)
            return state.table.total_capacity(vector, application.executor.constraints) >= gang.owed
        if self._limited and quota.refusal(state, gang) is not None:
            return False
        lacking = max(0, application.minimum - gang.placed_in_gang)
        return plan_gang(state, gangs.driver_shape(gang), application.executor, lacking) is not None

    def _charge(self, rooms: Sequence[Room], sign: int) -> None:
        table = self._state.table
        for room in rooms:
            row = table.index.get(room.node)
            if row is not None:
                table.charge(row, table.vector(room.amounts), sign * room.count)
        if self._limited:
            self._charge_queues(rooms, sign)

    def _charge_queues(self, rooms: Sequence[Room], sign: int) -> None:
        queues = self._state.queues
        for room in rooms:
            charge = queues.usage.charges.get(room.application)
            if charge is not None:
                used = charge.used + room.amounts.times(sign * room.count)
                queues.charge(room.application, msgspec.structs.replace(charge, used=used))


@contextmanager
def on_trial(state: State, gang: Gang) -> Iterator[Trial]:
    """A trial for a gang that waits. Whoever was promised something on the nodes as they are keeps that."""
    before = state.table.version
    try:
        yield Trial(state, gang)
    finally:
        for future in state.futures.values():
            if future.version == before:
                future.version = state.table.version  # the amounts are the same again


def claimant_of(gang: Gang) -> Claimant:
    """What a gang waits for, all of it together."""
    asked = Resources()
    for shape, count in missing_of(gang):
        asked += shape.requests.times(count)
    application = gang.application
    assert application is not None
    return Claimant(gang.key, application.queue, asked, application.priority)


def missing_of(gang: Gang) -> tuple[tuple[PodShape, int], ...]:
    """Shapes and counts that a gang waits for."""
    application = gang.application
    assert application is not None
    if gang.holds:
        return ((application.executor, gang.owed),)
    driver = gangs.driver_shape(gang)
    executors = ((application.executor, max(0, application.minimum - gang.placed_in_gang)),)
    return executors if driver is None else ((driver, 1), *executors)


def on_their_way(state: State, gang: Gang) -> list[Room]:
    """Room that will be free without anything being done: of pods that end, but not for somebody else who waits."""
    spared: dict[ApplicationKey, int] = {}
    rooms = []
    for record in state.leaving.values():
        if record.leaving and record.leaving != gang.key and record.leaving in state.pressed:
            continue
        lender = state.gangs.get(record.pod.application)
        if record.room and not _goes_to_a_slot(lender, record, spared):
            rooms.append(Room(record.pod.application, record.room, record.charged))
    return rooms


def ending_before(state: State, at: float, but: ApplicationKey) -> list[Room]:
    """Room of applications that are known to end by then, without that of pods that end already.

    Whoever has outlived its estimate is not known to end.
    """
    rooms = []
    for gang in state.gangs.values():
        application = gang.application
        if application is None or application.run_seconds is None or not gang.holds or gang.key == but:
            continue
        begun = gang.driver_bound
        if begun is not None and state.at < begun + application.run_seconds <= at:
            rooms += [
                Room(gang.key, record.room, record.charged)
                for record in gang.pods.values()
                if record.room and record.id not in state.leaving
            ]
            rooms += _slots(gang)
    return rooms


def holders(
    state: State, claimant: Gang, standings: dict[str, Standing], total: Resources, most: int | None
) -> tuple[list[Holder], bool]:
    """Applications that could give something back; all of their pods where the whole application may go.

    Of queues furthest over their fair share first, and those that were lent most; no more when they have ``most`` pods
    together. The second answer is whether these are all.
    """
    leaving: dict[ApplicationKey, list[PodRecord]] = {}
    for record in state.leaving.values():
        leaving.setdefault(record.pod.application, []).append(record)
    lenders = [
        lender
        for gang in state.gangs.values()
        if gang.key != claimant.key and (lender := _lender(gang, leaving.get(gang.key, ()), standings)) is not None
    ]
    everybody = len(lenders)
    if claimant.closes is not None and not _stays_within_share(claimant, standings, total):
        lenders = [lender for lender in lenders if _queue(lender[0]) == _queue(claimant)]
        everybody = len(lenders)
    excess = {name: dominant_share(one.used, total) - one.fair_share for name, one in standings.items()}
    lenders.sort(key=lambda lender: (-excess[_queue(lender[0])], -lender[0].extras, lender[0].key))
    if most is not None:
        so_far = accumulate((len(gang.pods) for gang, _, _ in lenders), initial=0)
        lenders = [lender for lender, before in zip(lenders, so_far, strict=False) if before < most]
    helping = _helping_nodes(state, claimant, lenders)
    found = []
    for gang, spare, whole in lenders:
        pods = tuple(_candidates(state, gang, None if _in_scope(state, claimant, gang) else helping, whole))
        if any(pod.helps for pod in pods):
            assert gang.application is not None
            begun = gang.driver_bound if gang.driver_bound is not None else gang.reserved
            seconds = max(0.0, state.at - begun) if begun is not None else 0.0
            slots = tuple(_slots(gang)) if whole else ()
            found.append(Holder(gang.key, _queue(gang), pods, spare, slots, gang.application.priority, seconds))
    return found, len(lenders) == everybody


def losses_wanted(state: State, lenders: Iterable[Holder]) -> list[ApplicationKey]:
    """Applications whose drivers can tell more than is known of their executors: those that run."""
    return [
        holder.key
        for holder in lenders
        if any(not pod.driver and state.pods[_id_of(pod.key)].pod.running for pod in holder.pods)
    ]


def record_of(state: State, pod: str) -> PodRecord:
    """The pod that a candidate's key names."""
    return state.pods[_id_of(pod)]


def _id_of(key: str) -> tuple[str, str]:
    namespace, _, name = key.partition("/")
    return namespace, name


def _queue(gang: Gang) -> str:
    assert gang.application is not None
    return gang.application.queue


def _placed(record: PodRecord) -> bool:
    return bool(record.room) and record.pod.role is Role.EXECUTOR


def _stays_within_share(claimant: Gang, standings: dict[str, Standing], total: Resources) -> bool:
    """Whether its queue is not over its fair share (its guarantee, that is, at least) once the claimant has started."""
    standing = standings[_queue(claimant)]
    return dominant_share(standing.used + claimant_of(claimant).asked, total) <= standing.fair_share


_Lender = tuple[Gang, tuple[tuple[int, int], ...], bool]
"""An application, what it can spare, and whether it may go as a whole."""


def _lender(gang: Gang, leaving: Sequence[PodRecord], standings: dict[str, Standing]) -> _Lender | None:
    if not gang.holds or gang.application is None:
        return None
    policy = standings[_queue(gang)].preemption
    whole = policy is Preemption.APPLICATIONS and not gang.client
    if policy is Preemption.NEVER or not (whole or gang.extras):
        return None
    if gang.driver in leaving:
        return None
    spare = _spare(gang, [record for record in leaving if _placed(record)])
    return (gang, spare, whole) if spare or whole else None


def _spare(gang: Gang, leaving: Sequence[PodRecord]) -> tuple[tuple[int, int], ...]:
    """Executors above the minimum that do not end already, by resource profile."""
    spare = dict(gang.placed)
    spare[GANG_PROFILE] = spare.get(GANG_PROFILE, 0) - gang.minimum
    for record in leaving:
        spare[record.pod.profile] = spare.get(record.pod.profile, 0) - 1
    return tuple(sorted((profile, count) for profile, count in spare.items() if count > 0))


def _goes_to_a_slot(gang: Gang | None, record: PodRecord, spared: dict[ApplicationKey, int]) -> bool:
    """Whether its room stays with its application, which needs it for its minimum. ``spared`` counts the others."""
    if (
        gang is None
        or not gang.holds
        or not record.in_gang
        or (gang.driver is not None and gang.driver.pod.terminating)
    ):
        return False
    count = spared.get(gang.key, 0)
    if count >= gang.placed_in_gang - gang.minimum:
        return True
    spared[gang.key] = count + 1
    return False


def _slots(gang: Gang) -> Iterator[Room]:
    """Room that is kept for pods yet to come."""
    assert gang.application is not None
    for node, count in gang.free.items():
        yield Room(gang.key, node, gang.application.executor.requests, count)
    if gang.driver_slot:
        yield Room(gang.key, gang.driver_slot, gang.driver_charged)


def _candidates(state: State, gang: Gang, helping: set[str] | None, whole: bool) -> Iterator[Candidate]:
    """Pods of an application that could be called back, without those that end already.

    ``helping``: nodes where that would help; ``None``: it does anywhere.
    """
    told = state.losses.get(gang.key, {})
    grace = state.config.pressure.grace
    for record in gang.pods.values():
        pod = record.pod
        if not record.room or not record.seen or record.id in state.leaving:
            continue
        helps = helping is None or record.room in helping
        if pod.role is Role.EXECUTOR and (helps or whole):
            age = max(0.0, state.at - record.since)
            yield Candidate(
                f"{pod.namespace}/{pod.name}",
                record.room,
                record.charged,
                _loss(told, pod.name, age, record.charged),
                age,
                max(grace, pod.grace),
                pod.profile,
                helps=helps,
            )
        elif record is gang.driver and whole:
            age = max(0.0, state.at - record.since)
            loss = loss_by_age(age, record.charged)
            yield Candidate(
                f"{pod.namespace}/{pod.name}", record.room, record.charged, loss, age, pod.grace, driver=True
            )


def _loss(told: dict[str, ExecutorLoss], pod: str, age: float, requests: Resources) -> ExecutorLoss:
    known = told.get(executor_id_of(pod)) if told else None
    return known if known is not None else loss_by_age(age, requests)


def _helping_nodes(state: State, claimant: Gang, lenders: Sequence[_Lender]) -> set[str]:
    """Nodes where more of the claimant's pods would fit if all that could be lent there were given back."""
    table = state.table
    freed = np.zeros_like(table.free)
    for gang, _, whole in lenders:
        for record in gang.pods.values():
            if record.room and (whole or record is not gang.driver):
                vector = table.vector(record.charged)
                freed[: len(vector), table.index[record.room]] += vector
        for slot in _slots(gang) if whole else ():
            vector = table.vector(slot.amounts) * slot.count
            freed[: len(vector), table.index[slot.node]] += vector
    rows = np.flatnonzero(freed.any(axis=0))
    helping = np.zeros(len(rows), dtype=np.bool_)
    for shape, count in missing_of(claimant):
        if count:
            vector = table.vector(shape.requests)
            before = capacities(table.free[:, rows], vector)
            after = capacities(table.free[:, rows] + freed[:, rows], vector)
            helping |= (after > before) & table.eligible(shape.constraints).take(rows)
    return {table.names[row] for row in rows[helping].tolist()}


def standings(state: State) -> dict[str, Standing]:
    """Where each queue stands; one that is not configured any more has nothing due to it."""
    queues = state.queues
    waiting = {entry.queue for pool in queues.pools() for entry in queues.waiting(pool)}
    found = entitlement.standings(queues.usage, waiting, state.total)
    for gang in state.gangs.values():
        if gang.application is not None and gang.application.queue not in found:
            found[gang.application.queue] = Standing(NOTHING, 0.0)
    return found


def _in_scope(state: State, claimant: Gang, lender: Gang) -> bool:
    """Whether what a lender has counts against the limit that the claimant has hit."""
    application = lender.application
    if claimant.closes is None or application is None:
        return False
    queue, kind, name = claimant.closes
    tree = state.queues.tree
    if application.queue not in tree or queue not in tree.path(application.queue):
        return False
    match kind:
        case "user":
            return application.user == name
        case "group":
            return tree.group_of(application.queue, application.groups) == name
        case _:
            return True
