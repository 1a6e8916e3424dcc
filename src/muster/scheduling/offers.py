"""What an external scheduler asks before it binds a pod: one node of those it offers, or why none.

Such a scheduler binds nothing without an answer, so its unbound pods count as gated. The gang of a driver is reserved
when its turn comes, as ever: asking tells the outcome, and moves the gang when its driver's node is not on offer.
Executors are placed when they are asked about, never before.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from muster.cluster.nodes import Bools
from muster.scheduling import gangs, lifecycle, occupancy, turns
from muster.scheduling.model import Choice, Outcome, Phase, Pod, Role
from muster.scheduling.plans import pick_row, plan_gang
from muster.scheduling.reasons import BEHIND
from muster.scheduling.records import GANG_PROFILE, Gang, PodRecord
from muster.scheduling.reporting import reserve
from muster.scheduling.state import State

Offered = Collection[str]
"""Names of nodes, in the asker's order."""

UNKNOWN = Choice(Outcome.UNKNOWN, reason="its application is not known")
NO_ROOM = Choice(Outcome.NO_ROOM, reason="none of the offered nodes has room for it now")


def choose(state: State, pod: Pod, offered: Offered) -> Choice:
    """The answer for an unbound driver or executor. Asked again, it is the same as long as its node is on offer."""
    record = state.pods.get((pod.namespace, pod.name))
    if record is None or not record.seen or record.pod.uid != pod.uid:
        lifecycle.pod_seen(state, pod)
        record = state.pods.get((pod.namespace, pod.name))
    gang = state.gangs.get(pod.application)
    if record is None or gang is None or gang.application is None:
        return UNKNOWN
    if record.pod.role is Role.DRIVER:
        return _choose_for_driver(state, gang, record, offered)
    return _choose_for_executor(state, gang, record, offered)


def shelve_unasked(state: State) -> None:
    """Give back what is reserved for drivers that nobody has asked about for a while: something else keeps them."""
    for gang in list(state.unasked.values()):
        if gang.reserved is None or state.at - gang.reserved < state.config.unasked_expiry:
            break  # in order of reservation
        del state.unasked[gang.key]
        if gang.phase is Phase.RESERVED:
            gangs.requeue(state, gang, "nobody asked for its driver's node; it is tried again when somebody does")
            gang.shelved = True


def _choose_for_driver(state: State, gang: Gang, driver: PodRecord, offered: Offered) -> Choice:
    if gang.driver is not driver:
        return Choice(Outcome.UNKNOWN, reason="its application has another driver")
    if driver.pod.node:
        return Choice(Outcome.ALREADY, driver.pod.node)
    state.unasked.pop(gang.key, None)
    if gang.shelved:
        gang.shelved = False
        turns.consider(state, gang)
    if gang.driver_slot in offered:
        return Choice(Outcome.SLOT, gang.driver_slot)
    if gang.driver_slot:
        return _move_gang(state, gang, offered)
    if gang.phase is not Phase.PENDING:
        return UNKNOWN
    if gang.reason == BEHIND:
        return Choice(Outcome.BEHIND, reason=gang.message)
    if bool((state.table.matching(driver.pod.constraints) & ~state.table.usable).any()):
        driver_rows = _may_go_to(state, driver.pod, offered)
        if bool((driver_rows & ~state.table.usable).any()) and gangs.try_start(state, gang, driver_rows):
            state.unasked.pop(gang.key, None)
            return Choice(Outcome.SLOT, gang.driver_slot)
    return Choice(Outcome.NO_ROOM, reason=gang.message)


def _move_gang(state: State, gang: Gang, offered: Offered) -> Choice:
    """Reserve the whole gang anew with its driver on an offered node; if that cannot be, it keeps what it has."""
    application, driver = gang.application, gangs.driver_shape(gang)
    assert application is not None and driver is not None and gang.driver is not None
    table = state.table
    vector = table.vector(application.executor.requests)
    kept_driver, kept = gang.driver_slot, dict(gang.free)
    rows = np.array([table.index[node] for node in kept], dtype=np.int64)
    counts = np.array(list(kept.values()), dtype=np.int64)
    table.charge_many(rows, vector, -counts)
    table.charge(table.index[kept_driver], table.vector(gang.driver_charged), -1)
    plan = plan_gang(state, driver, application.executor, gang.unfilled, _may_go_to(state, gang.driver.pod, offered))
    if plan is None:
        table.charge_many(rows, vector, counts)
        table.charge(table.index[kept_driver], table.vector(gang.driver_charged))
        return NO_ROOM
    occupancy.forget_all_slots(gang)
    occupancy.hold_driver_slot(state, gang, plan.driver, driver.requests)
    table.charge_many(plan.rows, vector, plan.counts)
    occupancy.hold_slots(state, gang, plan.rows.tolist(), plan.counts.tolist())
    gang.reserved_driver = gang.driver_slot
    state.nodes_changed()  # what is free has moved between nodes: everybody is considered anew
    state.tell(gang, f"moved: {kept_driver} was not on offer for its driver, {gang.driver_slot} is")
    reserve(state, gang)
    return Choice(Outcome.SLOT, gang.driver_slot)


def _choose_for_executor(state: State, gang: Gang, record: PodRecord, offered: Offered) -> Choice:
    if record.claim:
        if record.claim in offered:
            return Choice(Outcome.ALREADY, record.claim)
        if record.pod.node:
            return NO_ROOM
        record.promised = ""
        occupancy.settle(state, record)
        occupancy.hold(state, gang, record)
    if not gang.holds:
        return UNKNOWN
    in_gang = record.pod.profile == GANG_PROFILE and bool(gang.unfilled or gang.owed)
    if in_gang and gang.free:
        for node in filter(gang.free.__contains__, offered):
            if _fits_slot(state, gang, record.pod, node):
                return _promise(state, gang, record, node, Outcome.SLOT)
    application = gang.application
    assert application is not None
    maximum = application.maximum
    if not in_gang and maximum is not None and gang.placed.get(record.pod.profile, 0) >= maximum:
        return Choice(Outcome.FULL, reason=f"its application has its maximum of {maximum} executors")
    blocker = state.blockers.get(gang.pool)
    if not in_gang and blocker is not None and blocker.key != gang.key:
        waits = f"{blocker.key} waits for its minimum, which goes before executors above a minimum"
        return Choice(Outcome.NO_ROOM, reason=waits)
    row = pick_row(state, gang, gangs.shape_of(record.pod), _rows(state, offered))
    if row is None:
        return NO_ROOM
    return _promise(state, gang, record, state.table.names[row], Outcome.MOVED if in_gang else Outcome.EXTRA)


def _promise(state: State, gang: Gang, record: PodRecord, node: str, outcome: Outcome) -> Choice:
    record.promised = node
    occupancy.settle(state, record)
    occupancy.unhold(state, gang, record)
    state.tell(gang, f"{record.pod.name} goes to {node} ({outcome})")
    return Choice(outcome, node)


def _fits_slot(state: State, gang: Gang, pod: Pod, node: str) -> bool:
    """Whether an executor fits in the room of an unfilled slot; what it needs beyond the slot must be free there."""
    application = gang.application
    assert application is not None
    predicted = application.executor.requests
    if pod.requests == predicted:
        return True
    table = state.table
    row = table.index[node]
    left = table.free[:, row].copy()
    kept, wanted = table.vector(predicted), table.vector(pod.requests)
    left[: len(kept)] += kept
    return bool((left[: len(wanted)] >= wanted).all())


def _may_go_to(state: State, pod: Pod, offered: Offered) -> Bools:
    """[N] offered nodes that match the pod's selector and affinity. Whether it tolerates them, the asker knows."""
    rows: Bools = state.table.matching(pod.constraints) & _rows(state, offered)
    return rows


def _rows(state: State, offered: Offered) -> Bools:
    index = state.table.index
    mask = np.zeros(len(state.table.names), dtype=np.bool_)
    try:
        rows = np.fromiter(map(index.__getitem__, offered), np.int64, len(offered))
    except KeyError:  # the asker knows a node that has not been told yet, or is gone
        rows = np.array([index[node] for node in offered if node in index], dtype=np.int64)
    mask[rows] = True
    return mask
