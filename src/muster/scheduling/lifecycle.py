"""What each event means for nodes, pods and applications, before anybody's turn is considered."""

from __future__ import annotations

from muster.cluster.nodes import Node
from muster.queueing.config import QueueConfig
from muster.queueing.tree import QueueTree
from muster.scheduling import announcing, executors, gangs, occupancy, pressure, quota, restoring, turns
from muster.scheduling.decisions import Place
from muster.scheduling.model import Application, ApplicationKey, GangStatus, Phase, Pod, PodRef, Reservation, Role
from muster.scheduling.records import Gang, PodRecord
from muster.scheduling.state import State


def node_seen(state: State, node: Node) -> None:
    """A node came or changed."""
    row = state.table.index.get(node.name)
    if row is not None and state.table.nodes[row] == node:
        return
    state.table.upsert(node)
    state.nodes_changed()
    if row is None:
        for record in list(state.claims.get(node.name, {}).values()):
            occupancy.settle(state, record)
    else:
        turns.vacate(state, node.name)


def node_gone(state: State, name: str) -> None:
    """A node vanished with everything on it: slots of its pods, unfilled slots and promises are lost."""
    if name not in state.table.index:
        return
    state.table.remove(name)
    state.nodes_changed()
    for record in list(state.claims.get(name, {}).values()):
        if not record.seen:
            occupancy.forget(state, record)
        elif record.promised and not record.pod.node:
            record.promised = ""
            occupancy.settle(state, record)
            gang = state.gangs.get(record.pod.application)
            if gang is not None and record.waits:
                occupancy.hold(state, gang, record)
        else:
            occupancy.settle(state, record)
    turns.vacate(state, name)


def pod_seen(state: State, pod: Pod) -> None:
    """A pod came or changed."""
    record = state.pods.get((pod.namespace, pod.name))
    if record is not None and record.seen and record.pod.uid != pod.uid:
        pod_gone(state, record.ref)  # another pod of that name: the end of the first one was missed
        record = None
    spark = bool(pod.application) and pod.role is not Role.OTHER
    if (pod.finished and pod.role is not Role.DRIVER) or not (spark or pod.node):
        if record is not None:
            occupancy.forget(state, record)
        return
    if record is None:
        record = PodRecord(pod)
        state.pods[record.id] = record
    first, record.seen, record.pod = not record.seen, True, pod
    if pod.terminating:
        state.leaving[record.id] = record
    if not spark:
        occupancy.settle(state, record)
        return
    gang = state.gang(pod.application)
    if gang.pods.get(record.id) is not record:
        gang.pods[record.id] = record
        occupancy.note_executor(gang, record)
    if gang.empty_since is not None:
        state.no_longer_empty(gang)
    if pod.role is Role.DRIVER:
        _driver_seen(state, gang, record, first)
    else:
        _executor_seen(state, gang, record, first)


def pod_gone(state: State, ref: PodRef) -> None:
    """A pod no longer exists."""
    record = state.pods.get((ref.namespace, ref.name))
    if record is None or not record.seen or (ref.uid and record.pod.uid and ref.uid != record.pod.uid):
        return
    occupancy.forget(state, record)
    gang = state.gangs.get(record.pod.application)
    if gang is not None and record is gang.driver and gang.phase is not Phase.FINISHED:
        gangs.end(state, gang, "its driver is gone")


def application_found(state: State, application: Application) -> None:
    """Sizes are known: of a new application, or the same again."""
    gang = state.gang(application.key)
    if gang.phase is Phase.FINISHED:
        driver, named = gang.driver, application.driver_pod
        if driver is None or named is None or driver.pod.uid == named.uid:
            return
        gang = _again(state, gang)
    if gang.application == application:
        return
    if gang.holds and not (gang.client and application.driver is not None):
        return
    if gang.holds:  # taken for client mode, because its executors were seen before its driver
        occupancy.give_everything(state, gang)
    state.leave_queue(gang)
    gang.phase = Phase.PENDING
    gangs.sized(state, gang, application)
    if state.synced:
        turns.join(state, gang)


def application_invalid(state: State, key: ApplicationKey, driver: PodRef, reason: str, message: str) -> None:
    """Sizes cannot be had: its driver is left to ordinary scheduling, and nobody waits for it."""
    gang = state.gang(key)
    if gang.phase is Phase.FINISHED or gang.phase is Phase.INVALID or gang.holds:
        return
    state.leave_queue(gang)
    gang.phase, gang.reason, gang.message = Phase.INVALID, reason, message
    state.publish(gang, driver, reason, message, warning=True)
    gangs.release_without_gang(state, gang, driver, reason)
    if gang.held:
        state.opened[key] = gang


def reservation_restored(
    state: State, application: Application, reservation: Reservation, status: GangStatus | None
) -> None:
    """A reservation was read back; or, where several processes are asked in turn, another one wrote it later."""
    gang = state.gang(application.key)
    if state.synced:
        if state.config.asked:
            restoring.follow(state, gang, application, reservation)
        return
    gangs.sized(state, gang, application)
    restoring.remember(state, gang, reservation, status)


def queues_changed(state: State, queues: tuple[QueueConfig, ...]) -> None:
    """The queues are configured anew. Who waits is considered anew; who runs keeps what it has.

    Raises:
        QueueConfigError: they contradict each other; nothing has changed then.
    """
    state.queues_changed(QueueTree(queues))
    for key in state.queues.homeless():
        gang = state.gangs.get(key)
        standing = quota.standing(state, gang) if gang is not None and gangs.is_ready(gang) else None
        if gang is not None and standing is not None:
            turns.explain(state, gang, *standing)


def time_passed(state: State) -> None:
    """Ageing in the queues, and the end of applications that have had no pod for a while."""
    turns.age(state)
    for gang in list(state.holding.values()):
        if state.synced and gang.application is None and gang.driver is None:
            executors.find_gang(state, next(iter(gang.held.values())).pod)  # its owner may have been seen meanwhile
    turns.join_clients(state)
    grace = state.config.placement_expiry
    for gang in list(state.empty.values()):
        if state.synced and gang.empty_since is not None and state.at - gang.empty_since >= grace:
            if gang.phase is not Phase.FINISHED:
                gangs.end(state, gang, "it has no pods any more" if gang.client else "its driver never appeared")
            state.dirty[gang.key] = gang
    pressure.relieve(state)
    announcing.announce(state)


def _again(state: State, old: Gang) -> Gang:
    """An application id is used again after its end: a new life, with the pods that are left of the old one."""
    gang = Gang(old.key, state.at, state.config.story_length)
    gang.story.extend(old.story)
    gang.pods, gang.placed, gang.running = old.pods, old.placed, old.running
    gang.empty_since = None
    state.gangs[old.key] = gang
    for collection in (state.empty, state.holding, state.opened, state.dirty):
        collection.pop(old.key, None)
    for record in gang.pods.values():
        if record.waits and record.pod.role is Role.EXECUTOR:
            occupancy.hold(state, gang, record)
    if not gang.pods:
        gang.empty_since = state.at
        state.empty[gang.key] = gang
    return gang


def _driver_seen(state: State, gang: Gang, record: PodRecord, first: bool) -> None:
    pod = record.pod
    if gang.driver is not record and gang.phase is Phase.FINISHED and not pod.finished:
        gang = _again(state, gang)
    gang.kind = None
    if gang.driver is None:
        gang.driver = record
    elif gang.driver is not record:
        occupancy.settle(state, record)
        if first and pod.gated:
            message = f"application {gang.key} has a driver already ({gang.driver.pod.name}); this one gets no gang"
            state.publish(gang, record.ref, "DuplicateDriver", message, warning=True)
            gangs.release_without_gang(state, gang, record.ref, "DuplicateDriver")
        return
    occupancy.settle(state, record)
    if pod.finished:
        if gang.phase is not Phase.FINISHED:
            gangs.end(state, gang, "its driver finished")
        return
    if pod.node and gang.driver_bound is None:
        gang.driver_bound = state.at
        state.dirty[gang.key] = gang
    if pod.node and gang.phase is Phase.RESERVED:
        gang.phase = Phase.RUNNING
        state.tell(gang, f"driver bound to {pod.node}")
    elif state.synced and gang.phase is Phase.PENDING and gang.application is not None:
        turns.join(state, gang)


def _executor_seen(state: State, gang: Gang, record: PodRecord, first: bool) -> None:
    pod = record.pod
    if record.promised:
        if pod.node or not pod.gated:
            record.promised = ""
        elif first:
            # Asked twice, the first answer (hold) was the one that counted: carry the second one out.
            state.decisions.append(
                Place(gang.key, record.ref, record.promised, bool(record.answer and record.answer.extra))
            )
    occupancy.settle(state, record)
    if not record.waits or gang.phase is Phase.FINISHED:
        occupancy.unhold(state, gang, record)
    else:
        if record.id not in gang.held:
            state.opened[gang.key] = gang
        occupancy.hold(state, gang, record)
    if state.synced and gang.application is None and gang.driver is None:
        executors.find_gang(state, pod)
        turns.join_clients(state)
