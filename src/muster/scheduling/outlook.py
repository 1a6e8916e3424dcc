"""What an expected start is worked out from: who holds room, who goes first; in executors of the one that asks.

Coarse: an amount of room counts wherever it is. Where the scheduler itself knows a time, it promises that one.
"""

from __future__ import annotations

import msgspec

from muster.cluster.resources import Resources
from muster.scheduling.model import Application, ApplicationKey
from muster.scheduling.records import Gang
from muster.scheduling.state import State


class Holding(msgspec.Struct, frozen=True):
    application: ApplicationKey
    since: float
    """When it got its room, seconds; of those that wait, when they were found."""
    room: int
    """That it holds, or waits for."""
    run_seconds: float | None


class Outlook(msgspec.Struct, frozen=True):
    free: int
    room: int
    """That is waited for."""
    running: tuple[Holding, ...]
    ahead: tuple[Holding, ...]


def outlook(state: State, key: ApplicationKey) -> Outlook | None:
    """``None`` for an application that does not wait in a queue for room."""
    gang = state.gangs.get(key)
    position, first = state.queues.position(key, state.total)
    if gang is None or gang.application is None or not position or not gang.minimum:
        return None
    executor = gang.application.executor
    one = executor.requests
    running = [
        _holding(other, one, sum(other.placed.values()) + other.unfilled)
        for other in state.gangs.values()
        if other.holds and other.application is not None and other.pool == gang.pool
    ]
    ahead = [_holding(state.gangs[other], one, state.gangs[other].minimum) for other in first]
    free = state.table.total_capacity(state.table.vector(one), executor.constraints)
    return Outlook(free, gang.minimum, tuple(running), tuple(ahead))


def _holding(gang: Gang, one: Resources, executors: int) -> Holding:
    application = _application(gang)
    each = application.executor.requests
    parts = [each.get(name) / amount for name, amount in one.amounts if amount]
    since = gang.reserved if gang.reserved is not None else gang.found
    return Holding(gang.key, since, int(executors * min(parts, default=0.0)), application.run_seconds)


def _application(gang: Gang) -> Application:
    assert gang.application is not None
    return gang.application
