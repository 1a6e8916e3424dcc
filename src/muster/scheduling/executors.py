"""Where one executor goes: a slot of its gang, an extra place, or behind the gate with a reason."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator

import msgspec

from muster.cluster.constraints import pool_of
from muster.cluster.nodes import Bools
from muster.queueing.config import DEFAULT
from muster.queueing.preemption import dominant_share
from muster.scheduling import backfill, gangs, occupancy, quota
from muster.scheduling.decisions import Place
from muster.scheduling.model import Application, ApplicationKey, Mode, Phase, Placement, Pod, PodShape, Role
from muster.scheduling.plans import pick_row
from muster.scheduling.records import GANG_PROFILE, NOTHING, Gang, PodRecord
from muster.scheduling.state import State


class Room(msgspec.Struct, frozen=True):
    """A node for one executor, or why there is none."""

    node: str = ""
    extra: bool = False
    refusal: str = ""


SYNCING = Placement(Mode.HOLD, reason="the state of the cluster is still being read")
DRIVER_UNKNOWN = Placement(Mode.HOLD, reason="the driver of its application has not been seen yet")


def answer(state: State, pod: Pod) -> Placement:
    """The answer to an executor at its admission; remembered until the pod is seen or the placement expires."""
    record = state.pods.get((pod.namespace, pod.name))
    if record is None:
        gang = state.gangs.get(pod.application)
        if gang is not None and gang.free and state.bind_enabled and not pod.pin_reasons and _as_predicted(gang, pod):
            return _take_slot(state, gang, pod)
    else:
        if not record.seen and record.answer is not None:
            expires_later(state, record)
            return record.answer
        if record.seen and record.claim and (not pod.uid or pod.uid == record.pod.uid):
            return _placement(state, record.pod, Room(record.claim, record.pod.extra))
    gang = find_gang(state, pod)
    if gang is None:
        return DRIVER_UNKNOWN
    room = find_room(state, gang, pod)
    if not room.node:
        return Placement(Mode.HOLD, reason=room.refusal)
    if record is None:
        record = state.pods[pod.namespace, pod.name] = gang.pods[pod.namespace, pod.name] = PodRecord(pod)
        state.no_longer_empty(gang)
    record.answer = _placement(state, pod, room)
    record.promised = room.node
    occupancy.settle(state, record)
    quota.settle_if_limited(state, gang)
    if record.seen:
        occupancy.unhold(state, gang, record)
    else:
        expires_later(state, record)
    return record.answer


def _take_slot(state: State, gang: Gang, pod: Pod) -> Placement:
    """The common case, and the one that must be quick: an executor as predicted is born bound to an unfilled slot."""
    node = next(iter(gang.free))
    record = PodRecord(pod)
    record.answer = answer = Placement(Mode.BIND, node)
    record.expires = state.at + state.config.placement_expiry
    state.promises.append((record.expires, record))
    state.pods[record.id] = gang.pods[record.id] = record
    if gang.empty_since is not None:
        state.no_longer_empty(gang)
    occupancy.fill_slot(state, gang, record, node)
    gang.executor_seen = True
    return answer


def _as_predicted(gang: Gang, pod: Pod) -> bool:
    """An executor of the gang's profile whose requests and constraints are what its slots are made for."""
    application = gang.application
    if application is None or pod.profile != GANG_PROFILE:
        return False
    predicted = application.executor
    return pod.requests == predicted.requests and pod.constraints == predicted.constraints


def expires_later(state: State, record: PodRecord) -> None:
    record.expires = state.at + state.config.placement_expiry
    state.promises.append((record.expires, record))


def expire(state: State) -> None:
    """Take back placements whose pods have not appeared in time."""
    while state.promises and state.promises[0][0] <= state.at:
        _, record = state.promises.popleft()
        if not record.seen and not record.gone and record.expires <= state.at:
            gang = state.gangs.get(record.pod.application)
            if gang is not None:
                state.tell(gang, f"{record.pod.name} never appeared on {record.promised}: its place is free again")
            occupancy.forget(state, record)


def find_gang(state: State, pod: Pod) -> Gang | None:
    """The executor's application; in client mode, when its driver is no pod of ours, it is made up on the spot.

    ``None``: its driver is (or may be) a pod that has not been seen yet, or has ended.
    """
    gang = state.gangs.get(pod.application)
    if gang is not None and (
        gang.application is not None or gang.driver is not None or gang.phase is not Phase.PENDING
    ):
        return gang
    ended = state.ended.get(pod.application)
    if ended is not None and not ended.client:
        return None
    if pod.owner:
        owner = state.pods.get((pod.namespace, pod.owner))
        if owner is None or owner.pod.role is Role.DRIVER:
            return None
    gang = state.gang(pod.application)
    gangs.sized(state, gang, client_application(pod, state.config.pool_label, state.at))
    begin_client(state, gang)
    return gang


def begin_client(state: State, gang: Gang) -> None:
    """Client mode: without a gang it runs at once, with one its executors wait until all have slots."""
    if gang.minimum:
        state.joining[gang.key] = gang
    else:
        gang.phase = Phase.RUNNING
        gang.durable = {}
        state.tell(gang, "client mode: executors are placed as they come")
        if gang.held:
            state.opened[gang.key] = gang


def client_application(pod: Pod, pool_label: str, at: float) -> Application:
    """What is known of an application in client mode from one of its executors."""
    count = pod.gang_count or 0
    return Application(
        key=pod.application,
        name=pod.application.partition("/")[2],
        created=pod.created or at,
        driver=None,
        executor=PodShape(pod.requests, pod.constraints),
        minimum=count,
        maximum=None,
        pool=pool_of(pod.constraints, pool_label),
        queue=pod.queue or DEFAULT,
    )


def find_room(state: State, gang: Gang, pod: Pod) -> Room:
    """A node for this executor now, or why there is none. Only a wrong prediction is corrected here."""
    if gang.phase is Phase.FINISHED:
        return Room(refusal="its application has ended")
    if gang.application is None and gang.phase is not Phase.INVALID:
        return Room(refusal="the sizes of its application are not known yet")
    if gang.phase is Phase.PENDING:
        return Room(refusal="its gang waits until all of its minimum has room")
    if gang.holds and pod.profile == GANG_PROFILE:
        room = _slot(state, gang, pod)
        if room is not None:
            return room
    return _extra(state, gang, pod)


def release_held(state: State, some: Iterable[Gang]) -> None:
    """Release held executors in fair order, as far as there is room."""
    if state.config.asked:
        return
    for gang, record in _fair_order(state, some):
        room = find_room(state, gang, record.pod)
        if not room.node:
            continue
        record.promised = room.node
        occupancy.settle(state, record)
        quota.settle(state, gang)
        occupancy.unhold(state, gang, record)
        state.decisions.append(Place(gang.key, record.ref, room.node, room.extra))
        state.tell(gang, f"{record.pod.name} released to {room.node}{' as an extra' if room.extra else ''}")


def _fair_order(state: State, some: Iterable[Gang]) -> Iterator[tuple[Gang, PodRecord]]:
    """Held executors: of the queue, and in it the application, with least above its minimum first; then the oldest.

    After one that cannot be placed, its application and profile are done.
    """
    lines = {
        gang.key: sorted((one for one in gang.held.values() if one.waits), key=PodRecord.turn, reverse=True)
        for gang in some
    }
    lent = _Lent(state, lines)
    heads = [(lent.of(key, line[-1]), line[-1].turn(), key) for key, line in lines.items() if line]
    heapq.heapify(heads)
    while heads:
        before, turn, key = heapq.heappop(heads)
        line = lines[key]
        now = lent.of(key, line[-1])
        if now > before:  # others of its queue have got room meanwhile
            heapq.heappush(heads, (now, turn, key))
            continue
        record = line.pop()
        gang = state.gangs[key]
        yield gang, record
        if record.promised:
            lent.changed(gang)
        else:
            line = lines[key] = [one for one in line if one.pod.profile != record.pod.profile]
        if line:
            heapq.heappush(heads, (lent.of(key, line[-1]), line[-1].turn(), key))


class _Lent:
    """How much queues and applications have above their minimums, as dominant shares: what they should wait for."""

    def __init__(self, state: State, keys: Collection[ApplicationKey]) -> None:
        self._state = state
        self._total = state.total if len(keys) > 1 else NOTHING
        self._several = len({_queue_of(state.gangs[key]) for key in keys}) > 1
        self._queues: dict[str, float] = {}

    def of(self, key: ApplicationKey, record: PodRecord) -> tuple[float, float]:
        """Of its queue over the weight, and its own; below 0 while an application lacks part of its minimum."""
        gang = self._state.gangs[key]
        if gang.unfilled or gang.owed:
            return (-1.0, 0.0)
        queue = self._of_queue(_queue_of(gang)) if self._several else 0.0
        return (queue, dominant_share(record.pod.requests.times(gang.extras), self._total))

    def changed(self, gang: Gang) -> None:
        self._queues.pop(_queue_of(gang), None)

    def _of_queue(self, queue: str) -> float:
        share = self._queues.get(queue)
        if share is None:
            usage = self._state.queues.usage
            if queue in usage.tree:
                config = usage.tree.config(queue)
                above = usage.accounts[queue].resources() - config.guaranteed
                share = max(0.0, dominant_share(above, self._total)) / config.weight
            else:
                share = 1.0  # nothing is due to a queue that is not configured
            self._queues[queue] = share
        return share


def _queue_of(gang: Gang) -> str:
    return gang.application.queue if gang.application is not None else ""


def _slot(state: State, gang: Gang, pod: Pod) -> Room | None:
    """An unfilled slot of its gang; ``None`` when there is none it could use."""
    application = gang.application
    assert application is not None
    predicted = application.executor
    if _as_predicted(gang, pod):
        gang.executor_seen = True
        return Room(next(iter(gang.free))) if gang.free else None
    if not gang.executor_seen and (gang.free or gang.owed):
        gang.executor_seen = True
        if pod.requests != predicted.requests or not any(
            occupancy.usable(state, node, pod.constraints) for node in gang.free
        ):
            gangs.correct_size(state, gang, PodShape(pod.requests, pod.constraints), PodRecord(pod).ref)
            return Room(next(iter(gang.free))) if gang.free else None
    table = state.table
    vector, kept = table.vector(pod.requests), table.vector(predicted.requests)
    for node in gang.free:
        row = table.index[node]
        fits = pod.requests == predicted.requests or bool((table.free[:, row] + kept >= vector).all())
        if fits and occupancy.usable(state, node, pod.constraints):
            return Room(node)
    return None


def _extra(state: State, gang: Gang, pod: Pod) -> Room:
    """A place outside the gang's slots; no extra if it pays an owed slot off, or stands in for one it cannot use."""
    in_gang = gang.holds and pod.profile == GANG_PROFILE and bool(gang.unfilled or gang.owed)
    application = gang.application
    if application is not None and application.maximum is not None and not in_gang:
        placed = gang.placed.get(pod.profile, 0)
        if placed >= application.maximum:
            return Room(refusal=f"its application has its maximum of {application.maximum} executors")
    among: Bools | None = None
    if not in_gang:
        blocker = state.blockers.get(gang.pool)
        if blocker is not None and blocker.key != gang.key:
            among = backfill.rows_beside(state, gang, pod)
            if among is None or not among.any():
                return Room(refusal=f"{blocker.key} waits for its minimum, which goes before executors above a minimum")
        over = quota.extra_refusal(state, gang, pod)
        if over:
            gang.over_quota = True
            return Room(refusal=over)
        gang.over_quota = False
    row = pick_row(state, gang, gangs.shape_of(pod), among)
    if row is None:
        return Room(refusal="no node that it may use has room for it now")
    return Room(state.table.names[row], extra=not in_gang)


def _placement(state: State, pod: Pod, room: Room) -> Placement:
    row = state.table.index.get(room.node)
    usable = row is not None and bool(state.table.usable[row])
    if usable and state.bind_enabled and not pod.pin_reasons:
        return Placement(Mode.BIND, room.node, room.extra)
    reasons = list(pod.pin_reasons)
    if not state.bind_enabled:
        reasons.append("binding at admission is switched off")
    if not usable:
        reasons.append(f"node {room.node} is not Ready or is cordoned")
    return Placement(Mode.PIN, room.node, room.extra, "; ".join(reasons))
