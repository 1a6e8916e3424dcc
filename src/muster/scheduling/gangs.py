"""The life of a gang: started whole, adopted, repaid what it is owed, sent back to the queue, ended."""

from __future__ import annotations

import msgspec

from muster.cluster.nodes import Bools, Int64s
from muster.scheduling import occupancy
from muster.scheduling.decisions import ReleaseDriver
from muster.scheduling.model import Application, Phase, Pod, PodRef, PodShape
from muster.scheduling.plans import Plan, plan_gang, plan_slots
from muster.scheduling.quota import entry_of
from muster.scheduling.records import Gang, Shortfall
from muster.scheduling.reporting import reserve, status_of
from muster.scheduling.state import Ended, State


def is_ready(gang: Gang) -> bool:
    """Waits, is sized, and its driver (if it is ours) is behind the gate."""
    if gang.application is None or gang.phase is not Phase.PENDING or gang.shelved:
        return False
    return gang.client or (gang.driver is not None and gang.driver.pod.gated and not gang.driver.pod.terminating)


def driver_shape(gang: Gang) -> PodShape | None:
    """What the driver asks for: the pod itself says, and kube-scheduler will go by that; ``None`` in client mode."""
    if gang.client or gang.driver is None:
        return None
    return shape_of(gang.driver.pod)


def shape_of(pod: Pod) -> PodShape:
    return PodShape(pod.requests, pod.constraints)


def try_start(state: State, gang: Gang, driver_rows: Bools | None = None) -> bool:
    """Reserve driver and minimum together and release the driver, if all of it fits now.

    ``driver_rows`` [N]: where the driver may go, instead of all nodes that it may use.
    """
    plan = find_plan(state, gang, driver_rows)
    if plan is None:
        return False
    start(state, gang, plan)
    state.stirred = True
    return True


def find_plan(state: State, gang: Gang, driver_rows: Bools | None = None) -> Plan | None:
    """Where the driver and what the gang lacks of its minimum fit together now; ``None`` when they do not."""
    if gang.failed_at == state.freed and driver_rows is None:
        return None
    application = gang.application
    assert application is not None
    vector = state.table.vector(application.executor.requests)
    if _still_short(state, gang, vector):
        gang.failed_at = state.freed
        return None
    driver = driver_shape(gang)
    lacking = max(0, application.minimum - gang.placed_in_gang)
    plan = plan_gang(state, driver, application.executor, lacking, driver_rows)
    if plan is None:
        gang.failed_at = state.freed
        missing = lacking - state.table.total_capacity(vector, application.executor.constraints)
        freed = (tuple(state.freed_amounts), state.freed_times)
        gang.shortfall = Shortfall(state.nodes_version, missing, *freed) if missing > 0 else None
    return plan


def start(state: State, gang: Gang, plan: Plan) -> None:
    """Reserve what was planned, and release the driver."""
    application = gang.application
    assert application is not None
    vector = state.table.vector(application.executor.requests)
    driver = driver_shape(gang)
    if driver is not None:
        occupancy.hold_driver_slot(state, gang, plan.driver, driver.requests)
    state.table.charge_many(plan.rows, vector, plan.counts)
    gang.phase = Phase.RUNNING if gang.client else Phase.RESERVED
    occupancy.hold_slots(state, gang, plan.rows.tolist(), plan.counts.tolist())
    gang.reserved_driver = gang.driver_slot
    gang.reserved = state.at
    state.leave_queue(gang, in_turn=True)
    explain_state(gang, "", "")
    state.tell(gang, f"reserved {int(plan.counts.sum())} slot(s) on {len(plan.rows)} node(s)")
    reserve(state, gang)
    release(state, gang)
    if gang.held:
        state.opened[gang.key] = gang


def _still_short(state: State, gang: Gang, vector: Int64s) -> bool:
    """Whether what was freed since the last attempt cannot possibly have made up for what was missing then.

    Giving ``f`` back on one node lets at most ``f / v + 1`` more executors of size ``v`` fit there, for the resource
    that limits them; summed over the resources and over everything given back, that is an upper bound.
    """
    short = gang.shortfall
    if short is None or short.nodes_version != state.nodes_version:
        return False
    gained: float = state.freed_times - short.freed_times
    wanted = vector.tolist()
    before = (*short.freed_amounts, *([0] * (len(state.freed_amounts) - len(short.freed_amounts))))
    for then, now, each in zip(before, state.freed_amounts, wanted, strict=False):
        if now != then:
            if not each:
                return False  # a node overdrawn in something it does not even ask for may be usable again
            gained += (now - then) / each
    return gained < short.executors


def release(state: State, gang: Gang) -> None:
    """Take the gate off the driver; it and its minimum hold slots at this moment."""
    driver = gang.driver
    if driver is None or not driver.pod.gated:
        return
    if state.config.asked:
        state.unasked[gang.key] = gang
        return
    assert gang.driver_slot and not gang.owed
    state.decisions.append(
        ReleaseDriver(gang.key, driver.ref, gang.driver_slot, "driver and minimum executors reserved")
    )
    state.tell(gang, f"driver released to {gang.driver_slot}")


def release_without_gang(state: State, gang: Gang, pod: PodRef, reason: str) -> None:
    """Leave a driver to ordinary scheduling."""
    state.decisions.append(ReleaseDriver(gang.key, pod, "", reason))
    state.tell(gang, f"driver left to ordinary scheduling: {reason}")


def adopt(state: State, gang: Gang) -> None:
    """The driver runs already: its executors fill slots, the rest of the minimum is owed until there is room."""
    state.leave_queue(gang)
    gang.phase = Phase.RUNNING
    gang.reserved = state.at
    gang.durable = None
    explain_state(gang, "", "")
    occupancy.adopt_placed(state, gang)
    state.tell(gang, f"adopted with {gang.placed_in_gang} executor(s) in place")


def repay(state: State, gang: Gang) -> None:
    """Place as many of the owed slots as fit now."""
    if gang.failed_at == state.freed or not gang.owed:
        return
    application = gang.application
    assert application is not None
    plan = plan_slots(state, application.executor, gang.owed)
    placed = int(plan.counts.sum())
    if placed:
        state.table.charge_many(plan.rows, state.table.vector(application.executor.requests), plan.counts)
        occupancy.hold_slots(state, gang, plan.rows.tolist(), plan.counts.tolist())
        occupancy.owe(state, gang, -placed)
        state.tell(gang, f"{placed} owed slot(s) placed on {len(plan.rows)} node(s)")
        if gang.held:
            state.opened[gang.key] = gang
    if gang.owed:
        gang.failed_at = state.freed


def keep_driver(state: State, gang: Gang) -> None:
    """The driver's slot may have become impossible: move it while the driver is gated, else say so."""
    node, driver = gang.driver_slot, gang.driver
    if not node or driver is None:
        return
    shape = driver_shape(gang)
    assert shape is not None
    if driver.pod.gated and (
        not occupancy.usable(state, node, shape.constraints) or occupancy.is_overdrawn(state, node)
    ):
        requeue(state, gang, f"the driver's slot on {node} was lost before it was released")
    elif not driver.pod.gated and node not in state.table.index:
        message = f"node {node} is gone before the driver started there; the driver cannot be moved any more"
        state.publish(gang, driver.ref, "DriverNodeGone", message, warning=True)
        occupancy.give_driver_slot(state, gang)


def requeue(state: State, gang: Gang, why: str) -> None:
    """Give everything back and wait again, at the old place in the queue: the driver was not started."""
    occupancy.give_everything(state, gang)
    gang.phase = Phase.PENDING
    gang.reserved_driver = ""
    gang.reserved = None
    gang.failed_at = -1
    state.tell(gang, f"waits again: {why}")
    reserve(state, gang)
    state.queues.add(entry_of(gang))
    state.told_at.pop(gang.pool, None)
    state.stirred = True


def end(state: State, gang: Gang, why: str) -> None:
    """Everything it held is free at once; executors that still run keep their room as ordinary pods."""
    state.leave_queue(gang)
    gang.phase = Phase.FINISHED
    occupancy.give_everything(state, gang)
    for record in list(gang.pods.values()):
        if not record.seen:
            occupancy.forget(state, record)
    for record in list(gang.held.values()):
        occupancy.unhold(state, gang, record)
    gang.ended = state.at
    explain_state(gang, "", "")
    state.tell(gang, why)


def drop_if_over(state: State, gang: Gang) -> None:
    """Forget an application that ended and has no pods; its story and last status are kept for a while."""
    if gang.pods or state.gangs.get(gang.key) is not gang:
        return
    if gang.phase is Phase.FINISHED:
        state.ended[gang.key] = Ended(gang, status_of(gang))
        state.ended.move_to_end(gang.key)
        while len(state.ended) > state.config.ended_kept:
            state.ended.popitem(last=False)
    elif gang.phase is not Phase.PENDING or gang.application is not None:
        return
    del state.gangs[gang.key]
    state.empty.pop(gang.key, None)


def correct_size(state: State, gang: Gang, real: PodShape, pod: PodRef) -> None:
    """The first executor is not of the predicted shape: slots are charged with the real one, moved or owed."""
    application = gang.application
    assert application is not None
    unfilled = gang.unfilled
    nodes = list(gang.free.items())
    for node, count in nodes:
        occupancy.give_slots(state, gang, node, count)
    told = describe_difference(application.executor, real)
    gang.application = application = msgspec.structs.replace(application, executor=real)
    gang.durable = None
    gang.failed_at = -1
    capacity = state.table.capacity(state.table.vector(real.requests), real.constraints)
    kept = 0
    vector = state.table.vector(real.requests)
    for node, count in nodes:
        row = state.table.index[node]
        fits = min(count, int(capacity[row]))
        if fits:
            state.table.charge(row, vector, fits)
            occupancy.hold_slots(state, gang, (row,), (fits,))
            kept += fits
    occupancy.owe(state, gang, unfilled - kept)
    repay(state, gang)
    message = f"{pod.name} is not what was predicted: {told}; {gang.unfilled} slot(s) corrected, {gang.owed} owed"
    target = application.driver_pod or pod
    state.publish(gang, target, "ExecutorSizeCorrected", message, warning=gang.owed > 0)


def describe_difference(predicted: PodShape, real: PodShape) -> str:
    """Which amounts differ, for people."""
    before, after = predicted.requests.quantities(), real.requests.quantities()
    parts = [
        f"{name} {after.get(name, '0')} instead of {before.get(name, '0')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if predicted.constraints != real.constraints:
        parts.append("other node selector, affinity or tolerations")
    return ", ".join(parts)


def explain_state(gang: Gang, reason: str, message: str) -> None:
    gang.reason, gang.message = reason, message


def sized(state: State, gang: Gang, application: Application) -> None:
    """Take over the sizes of an application."""
    gang.application = application
    gang.found = state.at
    gang.failed_at = gang.excess_at = gang.ruled_at = -1
    gang.asked = gang.kind = None
    gang.shortfall = None
    state.dirty[gang.key] = gang
