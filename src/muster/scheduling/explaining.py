"""Why an application is where it is: for the data engineer who waits, and for the operator whom they ask."""

from __future__ import annotations

import msgspec

from muster.cluster.breakdown import Breakdown, breakdown
from muster.scheduling import gangs
from muster.scheduling.model import ApplicationKey, GangStatus, Phase, PodShape
from muster.scheduling.reasons import BEHIND, EXCEEDS, LEFT
from muster.scheduling.records import Gang
from muster.scheduling.reporting import status_of
from muster.scheduling.state import State


class Ahead(msgspec.Struct, frozen=True):
    """Somebody who comes first in the same queue."""

    key: ApplicationKey
    age: float
    """Seconds since its driver was created."""
    blocks: bool
    """It must start first; else it may be passed."""
    reason: str


class Explanation(msgspec.Struct, frozen=True):
    application: ApplicationKey
    sentence: str
    """The answer in one sentence."""
    status: GangStatus
    pool: str
    position: int | None
    """1 for the head of its pool's queue; ``None`` when it is not in it."""
    ahead: tuple[Ahead, ...]
    minimum: int
    maximum: int | None
    placed: int
    """Executors that have room, of all profiles."""
    unfilled: int
    """Slots reserved for executors still to come."""
    owed: int
    """Slots of its minimum that were lost and have no room now."""
    executors_fit_now: int
    """Of its minimum, counted without the driver."""
    driver_nodes: Breakdown | None
    """Nodes by what keeps the driver away from them."""
    executor_nodes: Breakdown | None
    """Nodes by what keeps an executor away from them."""


def explain(state: State, key: ApplicationKey, at: float) -> Explanation | None:
    """Everything that is known of why ``key`` waits, or does not; ``None`` when it is unknown. Changes nothing."""
    gang = state.gangs.get(key)
    if gang is None:
        ended = state.ended.get(key)
        return None if ended is None else _ended(key, ended.status)
    application = gang.application
    driver = gangs.driver_shape(gang)
    position, first = state.queues.position(key, state.total)
    ahead = tuple(_ahead(state, state.gangs[other], at) for other in first)
    fit = _fit_now(state, application.executor, gang.minimum) if application is not None else 0
    return Explanation(
        application=key,
        sentence=_sentence(gang, ahead, fit),
        status=status_of(gang),
        pool=gang.pool,
        position=position or None,
        ahead=ahead,
        minimum=gang.minimum,
        maximum=application.maximum if application is not None else None,
        placed=sum(gang.placed.values()),
        unfilled=gang.unfilled,
        owed=gang.owed,
        executors_fit_now=fit,
        driver_nodes=_nodes(state, driver) if driver is not None else None,
        executor_nodes=_nodes(state, application.executor) if application is not None else None,
    )


def _ahead(state: State, gang: Gang, at: float) -> Ahead:
    waiting = gang.waiting
    able = gangs.is_ready(gang) and gang.reason != EXCEEDS
    blocks = able and state.policy.enforced(gang.pool, waiting.created, at)
    return Ahead(gang.key, max(0.0, at - waiting.created), blocks, gang.reason)


def _nodes(state: State, shape: PodShape) -> Breakdown:
    return breakdown(state.table, shape.constraints, state.table.vector(shape.requests))


def _fit_now(state: State, shape: PodShape, wanted: int) -> int:
    return min(wanted, state.table.total_capacity(state.table.vector(shape.requests), shape.constraints))


def _sentence(gang: Gang, ahead: tuple[Ahead, ...], fit: int) -> str:
    match gang.phase:
        case Phase.INVALID:
            return f"Its driver runs without a gang, because its sizes could not be had: {gang.message}."
        case Phase.FINISHED:
            return "It has ended; everything it held is free."
        case Phase.RESERVED | Phase.RUNNING:
            return _started(gang)
    if gang.application is None:
        return "Its driver is held until its sizes are known: neither annotations nor its ConfigMap have told them yet."
    if gang.driver is None and not gang.client:
        return "Its sizes are known, but its driver pod has not been seen yet."
    if gang.reason in (EXCEEDS, LEFT):
        return f"It {gang.message}." if gang.reason == EXCEEDS else f"It is not queued: {gang.message}."
    blocking = [other.key for other in ahead if other.blocks]
    if gang.reason == BEHIND and blocking:
        others = f" and {len(blocking) - 1} more" if len(blocking) > 1 else ""
        return f"It waits its turn: {blocking[0]}{others} came first in its node pool and must start first."
    if gang.reason == BEHIND:
        return "It waits its turn: a running application of its node pool gets back slots it lost first."
    who = f"{gang.minimum} executors" if gang.client else f"its driver and {gang.minimum} executors"
    if fit < gang.minimum:
        return f"It waits for capacity: it needs {who} at once, and {fit} of the executors would fit now."
    return f"It waits for capacity: it needs {who} at once, and they do not all fit together now."


def _started(gang: Gang) -> str:
    placed = sum(gang.placed.values())
    begun = "Its driver and minimum are reserved" if gang.phase is Phase.RESERVED else "It runs"
    parts = [f"{begun}: {placed} executor(s) placed, {gang.unfilled} of {gang.minimum} reserved slot(s) unfilled"]
    if gang.owed:
        parts.append(f"{gang.owed} lost slot(s) have no room now and come before the queue")
    if gang.held:
        parts.append(f"{len(gang.held)} executor(s) above that are held until there is room")
    return "; ".join(parts) + "."


def _ended(key: ApplicationKey, status: GangStatus) -> Explanation:
    return Explanation(
        application=key,
        sentence="It has ended; everything it held is free.",
        status=status,
        pool="",
        position=None,
        ahead=(),
        minimum=0,
        maximum=None,
        placed=0,
        unfilled=0,
        owed=0,
        executors_fit_now=0,
        driver_nodes=None,
        executor_nodes=None,
    )
