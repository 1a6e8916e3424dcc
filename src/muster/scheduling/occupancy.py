"""Who holds which room: the only code that charges the node table.

Three things hold room: pods (bound, pinned or promised to a node), unfilled slots of gangs, and slots of drivers that
are not bound yet. A pod that takes a slot takes over its room, and gives it back to the slot when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from muster.cluster.constraints import PodConstraints
from muster.cluster.resources import Resources
from muster.scheduling.model import PodShape, Role
from muster.scheduling.records import GANG_PROFILE, Gang, HeldKind, PodRecord
from muster.scheduling.state import State


def settle(state: State, record: PodRecord) -> None:
    """Bring what a pod is charged to, and what its gang counts, in line with what is known of it."""
    claim = _claim(record)
    if claim != record.claim:
        _move_claim(state, record, claim)
    gang = _gang_of(state, record)
    room = claim if claim in state.table.index else ""
    if gang is not None and (room != record.room or record.charged != record.pod.requests):
        gang.footprint = None
    if room != record.room:
        if record.room:
            _leave(state, gang, record)
        if room:
            _enter(state, gang, record, room)
    elif room and record.charged != record.pod.requests:
        _resize(state, record)
    bound = bool(room and record.pod.node)
    if bound is not record.bound:
        _count(state, gang, record, bound)


def fill_slot(state: State, gang: Gang, record: PodRecord, node: str) -> None:
    """Promise a new executor of the slots' own size an unfilled slot: what ``settle`` would do, in fewer steps."""
    record.promised = record.claim = record.room = node
    record.since = state.at
    record.charged = record.pod.requests
    state.claims.setdefault(node, {})[record.id] = record
    note_executor(gang, record)
    placed = gang.placed
    placed[GANG_PROFILE] = placed.get(GANG_PROFILE, 0) + 1
    _forget_slots(state, gang, node, 1)


def hold_slots(state: State, gang: Gang, rows: Iterable[int], counts: Iterable[int]) -> None:
    """Note unfilled slots that have been charged already."""
    names, free = state.table.names, gang.free
    added = {names[row]: count for row, count in zip(rows, counts, strict=True)}
    gang.unfilled += sum(added.values())
    gang.footprint = None
    _note_nodes(gang, added)
    if free:
        added = {**free, **{node: free.get(node, 0) + count for node, count in added.items()}}
    gang.free = added


def give_slots(state: State, gang: Gang, node: str, count: int) -> None:
    """Give unfilled slots back."""
    assert gang.application is not None
    _forget_slots(state, gang, node, count)
    _give(state, node, gang.application.executor.requests, count)


def owe(state: State, gang: Gang, count: int) -> None:
    """The gang is owed ``count`` more slots (or fewer, when negative)."""
    if not count:
        return
    gang.owed += count
    gang.drifted = True
    if gang.owed:
        state.owing[gang.key] = gang
        if count > 0:
            state.stirred = True
            gang.failed_at = -1
    else:
        state.owing.pop(gang.key, None)
    state.dirty[gang.key] = gang


def hold_driver_slot(state: State, gang: Gang, row: int, requests: Resources) -> None:
    """Charge room for a driver that is not bound yet."""
    gang.driver_slot, gang.driver_charged = state.table.names[row], requests
    gang.footprint = None
    state.table.charge(row, state.table.vector(requests))


def give_driver_slot(state: State, gang: Gang) -> None:
    node = gang.driver_slot
    if node:
        gang.driver_slot = ""
        gang.footprint = None
        _give(state, node, gang.driver_charged, 1)


def give_everything(state: State, gang: Gang) -> None:
    """All slots of a gang, the driver's too; its pods keep what they hold."""
    give_driver_slot(state, gang)
    if gang.free:
        assert gang.application is not None
        table = state.table
        vector = table.vector(gang.application.executor.requests)
        rows = np.array([table.index[node] for node in gang.free if node in table.index], dtype=np.int64)
        counts = np.array([count for node, count in gang.free.items() if node in table.index], dtype=np.int64)
        table.charge_many(rows, vector, -counts)
        state.free_room(vector, gang.unfilled)
        forget_all_slots(gang)
        state.dirty[gang.key] = gang
    gang.owed = 0
    state.owing.pop(gang.key, None)


def forget_all_slots(gang: Gang) -> None:
    """It has no unfilled slots any more; what they held is given back by the caller."""
    _note_nodes(gang, gang.free)
    gang.free = {}
    gang.unfilled = 0
    gang.footprint = None


def adopt_placed(state: State, gang: Gang) -> None:
    """A gang begins to hold slots: its placed executors fill them, the rest is owed."""
    owe(state, gang, max(0, gang.minimum - gang.placed_in_gang) - gang.owed - gang.unfilled)


def note_executor(gang: Gang, record: PodRecord) -> None:
    """Something changed in the room that an executor has."""
    if gang.journal is not None:
        gang.journal.executors[record.id] = None
        if gang.journal.is_full:
            gang.journal = None


def usable(state: State, node: str, constraints: PodConstraints) -> bool:
    """Whether a pod with these constraints may be put on a node now."""
    row = state.table.index.get(node)
    return row is not None and bool(state.table.eligible(constraints)[row])


def is_overdrawn(state: State, node: str) -> bool:
    row = state.table.index.get(node)
    return row is not None and min(state.table.free[:, row].tolist()) < 0  # few values: quicker than NumPy's minimum


def vacate(state: State, node: str) -> None:
    """Turn slots that can no longer be kept on a node into owed ones: it is gone, unusable or overdrawn."""
    for gang in state.slots_on(node):
        count = gang.free.get(node, 0)
        if not count:
            continue
        assert gang.application is not None
        if not usable(state, node, gang.application.executor.constraints):
            _owe_slots(state, gang, node, count, "the node is gone or may not be used any more")
        while gang.free.get(node) and is_overdrawn(state, node):
            _owe_slots(state, gang, node, 1, "other pods took its room")


def forget(state: State, record: PodRecord) -> None:
    """A pod is gone, or a promised one will not come."""
    record.gone = True
    settle(state, record)
    state.pods.pop(record.id, None)
    state.leaving.pop(record.id, None)
    gang = _gang_of(state, record)
    if gang is None:
        return
    gang.pods.pop(record.id, None)
    unhold(state, gang, record)
    if not gang.pods:
        gang.empty_since = state.at
        state.empty[gang.key] = gang
    state.dirty[gang.key] = gang


def hold(state: State, gang: Gang, record: PodRecord) -> None:
    """An executor waits behind its gate, or what it needs has changed meanwhile."""
    kind = (record.pod.profile, PodShape(record.pod.requests, record.pod.constraints))
    if record.held_as == kind:
        return
    _count_held(gang, record, kind)
    gang.held[record.id] = record
    state.holding[gang.key] = gang
    state.dirty[gang.key] = gang


def unhold(state: State, gang: Gang, record: PodRecord) -> None:
    if gang.held.pop(record.id, None) is not None:
        _count_held(gang, record, None)
        if not gang.held:
            state.holding.pop(gang.key, None)
        state.dirty[gang.key] = gang


def _note_nodes(gang: Gang, nodes: Iterable[str]) -> None:
    if gang.journal is not None:
        gang.journal.nodes.update(dict.fromkeys(nodes))
        if gang.journal.is_full:
            gang.journal = None


def _count_held(gang: Gang, record: PodRecord, kind: HeldKind | None) -> None:
    counts, before = gang.held_kinds, record.held_as
    record.held_as = kind
    if before is not None:
        counts[before] -= 1
        if not counts[before]:
            del counts[before]
    if kind is not None:
        counts[kind] = counts.get(kind, 0) + 1


def _claim(record: PodRecord) -> str:
    """The node a pod is on, or is going to."""
    pod = record.pod
    if pod.finished or record.gone:
        return ""
    if pod.node:
        return pod.node
    if record.promised:
        return record.promised
    return pod.assigned if pod.role is Role.EXECUTOR and not pod.gated else ""


def _move_claim(state: State, record: PodRecord, claim: str) -> None:
    if record.claim:
        others = state.claims[record.claim]
        del others[record.id]
        if not others:
            del state.claims[record.claim]
    if claim:
        state.claims.setdefault(claim, {})[record.id] = record
    record.claim = claim


def _gang_of(state: State, record: PodRecord) -> Gang | None:
    pod = record.pod
    return state.gangs.get(pod.application) if pod.application and pod.role is not Role.OTHER else None


def _enter(state: State, gang: Gang | None, record: PodRecord, node: str) -> None:
    """A pod gets room on a node: its slot's, if it has one."""
    record.room, record.charged = node, record.pod.requests
    record.since = state.at if state.synced else record.pod.created
    if gang is None:
        record.outside = True
    elif record is gang.driver:
        if gang.driver_slot == node and gang.driver_charged == record.charged:
            gang.driver_slot = ""
            return
        give_driver_slot(state, gang)
    elif record.pod.role is Role.EXECUTOR:
        note_executor(gang, record)
        state.dirty[gang.key] = gang
        profile = record.pod.profile
        gang.placed[profile] = gang.placed.get(profile, 0) + 1
        if profile == GANG_PROFILE and gang.holds and _take_slot(state, gang, record, node):
            return
    _charge(state, record)
    if not record.promised and is_overdrawn(state, node):
        state.overdrawn[node] = None


def _take_slot(state: State, gang: Gang, record: PodRecord, node: str) -> bool:
    """An executor fills one slot, if any is unfilled or owed; True when it took over that slot's room as it was.

    A slot elsewhere moves to the executor's node, so that no room is kept for an executor that already runs.
    """
    if not gang.unfilled and not gang.owed:
        gang.drifted = True
        return False
    if node in gang.free:
        assert gang.application is not None
        if gang.application.executor.requests == record.charged:
            _forget_slots(state, gang, node, 1)
            return True
        give_slots(state, gang, node, 1)
    elif gang.owed:
        owe(state, gang, -1)
    else:
        give_slots(state, gang, next(iter(gang.free)), 1)
        gang.drifted = True
    return False


def _leave(state: State, gang: Gang | None, record: PodRecord) -> None:
    """A pod gives its room back: to its slot, if the gang needs that one to have its minimum."""
    node, record.room = record.room, ""
    if gang is not None:
        note_executor(gang, record)
    if gang is not None and record.pod.role is Role.EXECUTOR and not record.outside:
        state.dirty[gang.key] = gang
        profile = record.pod.profile
        gang.placed[profile] -= 1
        if not gang.placed[profile]:
            del gang.placed[profile]
        if profile == GANG_PROFILE and gang.holds and gang.placed_in_gang < gang.minimum:
            assert gang.application is not None
            executor = gang.application.executor
            if executor.requests == record.charged and usable(state, node, executor.constraints):
                hold_slots(state, gang, (state.table.index[node],), (1,))
                state.opened[gang.key] = gang
                return
            owe(state, gang, 1)
    row = state.table.index.get(node)
    if row is not None:
        _charge(state, record, row, -1)
        state.free_room(state.table.vector(record.charged))
    record.outside = False


def _resize(state: State, record: PodRecord) -> None:
    """The requests of a pod that holds room changed (in-place resize, KEP-1287)."""
    row = state.table.index[record.room]
    _charge(state, record, row, -1)
    state.free_room(state.table.vector(record.charged))
    record.charged = record.pod.requests
    _charge(state, record, row, 1)
    if is_overdrawn(state, record.room):
        state.overdrawn[record.room] = None


def _count(state: State, gang: Gang | None, record: PodRecord, bound: bool) -> None:
    record.bound = bound
    if gang is not None and record.pod.role is Role.EXECUTOR:
        gang.running += 1 if bound else -1
        state.dirty[gang.key] = gang


def _charge(state: State, record: PodRecord, row: int | None = None, count: int = 1) -> None:
    table = state.table
    vector = table.vector(record.charged)
    at = table.index[record.room] if row is None else row
    if record.outside:
        table.charge_overhead(at, vector, count)
    else:
        table.charge(at, vector, count)


def _give(state: State, node: str, requests: Resources, count: int) -> None:
    row = state.table.index.get(node)
    if row is not None:
        vector = state.table.vector(requests)
        state.table.charge(row, vector, -count)
        state.free_room(vector, count)


def _owe_slots(state: State, gang: Gang, node: str, count: int, why: str) -> None:
    give_slots(state, gang, node, count)
    owe(state, gang, count)
    state.tell(gang, f"{count} slot(s) on {node} lost: {why}")


def _forget_slots(state: State, gang: Gang, node: str, count: int) -> None:
    _note_nodes(gang, (node,))
    gang.unfilled -= count
    gang.footprint = None
    gang.free[node] -= count
    if not gang.free[node]:
        del gang.free[node]
    state.dirty[gang.key] = gang
