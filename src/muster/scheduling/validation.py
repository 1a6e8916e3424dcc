"""The invariants of docs/architecture.md, checked from scratch against everything the scheduler remembers."""

from __future__ import annotations

from collections import Counter

import numpy as np

from muster.scheduling.model import Phase, PodShape, Role
from muster.scheduling.records import GANG_PROFILE, Gang
from muster.scheduling.state import State


class InvariantError(AssertionError):
    """An invariant does not hold: a defect of the scheduler, never of its input."""


def validate(state: State) -> None:
    _amounts_are_what_is_charged(state)
    if state.synced:
        _nothing_is_overcommitted(state)
    for key, gang in state.gangs.items():
        _check(key == gang.key, f"{gang.key} is filed under {key}")
        _gang_is_consistent(state, gang)
    _indexes_are_consistent(state)
    _leaving_pods_exist(state)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantError(message)


def _amounts_are_what_is_charged(state: State) -> None:
    """Free amounts are allocatable minus pods, unfilled slots and drivers' slots: nothing leaks, nothing is lost."""
    table = state.table
    expected = table.allocatable.copy()
    for record in state.pods.values():
        if record.room:
            expected[:, table.index[record.room]] -= table.vector(record.charged)
    for gang in state.gangs.values():
        if gang.driver_slot:
            expected[:, table.index[gang.driver_slot]] -= table.vector(gang.driver_charged)
        for node, count in gang.free.items():
            assert gang.application is not None
            expected[:, table.index[node]] -= table.vector(gang.application.executor.requests) * count
    wrong = [table.names[row] for row in np.flatnonzero((expected != table.free).any(axis=0))]
    _check(not wrong, f"free amounts of {', '.join(wrong[:5])} are not what is charged there")


def _nothing_is_overcommitted(state: State) -> None:
    """1: where more is charged than there is, pods alone did it (others may be bound there); no slot is kept on top."""
    table = state.table
    for row in np.flatnonzero((table.free < 0).any(axis=0)):
        node = table.names[row]
        slots = [gang.key for gang in state.slots_on(node) if gang.free.get(node)]
        _check(not slots, f"node {node} is overcommitted while slots of {', '.join(slots)} are kept on it")


def _gang_is_consistent(state: State, gang: Gang) -> None:
    key = gang.key
    placed: dict[int, int] = {}
    running = 0
    for record in gang.pods.values():
        _check(state.pods.get(record.id) is record, f"{key}: pod {record.id} is remembered twice")
        if record.pod.role is Role.EXECUTOR:
            if record.room:
                placed[record.pod.profile] = placed.get(record.pod.profile, 0) + 1
            running += record.bound
            _check(not (record.waits and record.room), f"{key}: held executor {record.id} has room")
            waits = record.waits and gang.phase is not Phase.FINISHED
            _check((record.id in gang.held) == waits, f"{key}: {record.id} is held, or not, by mistake")
    kinds = Counter(
        (held.pod.profile, PodShape(held.pod.requests, held.pod.constraints)) for held in gang.held.values()
    )
    _check(kinds == gang.held_kinds, f"{key}: counts {gang.held_kinds} held executors, has {kinds}")
    _check(placed == gang.placed, f"{key}: counts {gang.placed} placed executors, has {placed}")
    _check(running == gang.running, f"{key}: counts {gang.running} running executors, has {running}")
    _check(sum(gang.free.values()) == gang.unfilled, f"{key}: counts {gang.unfilled} unfilled slots, has {gang.free}")
    _check(all(count > 0 for count in gang.free.values()), f"{key}: a node with no slot is listed")
    if not state.synced:
        return
    if gang.holds:
        lacking = max(0, gang.minimum - placed.get(GANG_PROFILE, 0))
        _check(
            gang.unfilled + gang.owed == lacking and gang.owed >= 0,
            f"{key}: lacks {lacking} executors, has {gang.unfilled} unfilled and {gang.owed} owed slots",
        )
    else:
        _check(not (gang.unfilled or gang.owed or gang.driver_slot), f"{key}: holds slots while {gang.phase}")
    if gang.phase is Phase.RESERVED and gang.driver is not None and gang.driver.pod.gated and not gang.owed:
        _check(bool(gang.driver_slot), f"{key}: reserved without a slot for its driver")
    _check((key in state.owing) == bool(gang.owed), f"{key}: owed {gang.owed} slots, listed otherwise")
    _check((key in state.holding) == bool(gang.held), f"{key}: {len(gang.held)} held executors, listed otherwise")


def _leaving_pods_exist(state: State) -> None:
    for key, record in state.leaving.items():
        _check(state.pods.get(key) is record, f"{key} ends, but is not there")
        _check(bool(record.leaving) or record.pod.terminating, f"{key} is said to end, and does not")
    for record in state.pods.values():
        ends = bool(record.leaving) or record.pod.terminating
        _check(not ends or not record.seen or record.id in state.leaving, f"{record.id} ends unnoticed")


def _indexes_are_consistent(state: State) -> None:
    for node, records in state.claims.items():
        _check(bool(records), f"nobody claims {node}")
        _check(all(record.claim == node for record in records.values()), f"a claim on {node} is filed wrongly")
    for record in state.pods.values():
        _check(
            not record.claim or record.id in state.claims[record.claim], f"{record.id} claims {record.claim} unfiled"
        )
        _check(record.room in ("", record.claim), f"{record.id} has room on {record.room}, claims {record.claim}")
    for pool in state.queues.pools():
        for waiting in state.queues.waiting(pool):
            gang = state.gangs.get(waiting.key)
            ok = gang is not None and gang.phase is Phase.PENDING and gang.pool == pool
            _check(ok, f"{waiting.key} is in the queue of pool {pool!r} by mistake")
