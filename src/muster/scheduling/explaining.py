"""Why an application is where it is: for the data engineer who waits, and for the operator whom they ask.

A value, the same for all who show it: ``muster why``, the read API and, cut to its first sentence (``sentences``), the
condition of the ``Gang`` and the events of the driver.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum

import msgspec

from muster.cluster.breakdown import Breakdown, breakdown
from muster.queueing.config import Policy, written
from muster.queueing.tree import ROOT
from muster.queueing.usage import Refusal
from muster.scheduling import gangs, quota
from muster.scheduling.model import Application, ApplicationKey, GangStatus, Phase, PodShape
from muster.scheduling.reasons import BEHIND, EXCEEDS, EXCEEDS_QUEUE, NOT_ALLOWED, OVER_QUOTA, UNKNOWN_QUEUE, WAITING
from muster.scheduling.records import Gang
from muster.scheduling.sentences import ENDED, as_sentence, sentence_of
from muster.scheduling.state import State
from muster.scheduling.what_if import Proposal, proposals

MOST_AHEAD = 20
"""Of those ahead, so many are told of one by one."""


class WaitsFor(StrEnum):
    CAPACITY = "Capacity"
    """Room on nodes, or somebody who waits for that and goes first."""
    QUOTA = "Quota"
    """A limit of its queue, or somebody who waits for that and goes first."""
    CONFIGURATION = "Configuration"
    """Its queue does not exist, or not for it."""


class Ahead(msgspec.Struct, frozen=True, rename="camel"):
    """Somebody who would be tried first."""

    key: ApplicationKey
    name: str
    queue: str
    age: float
    """Seconds since its driver was created."""
    blocks: bool
    """It must start first; else it may be passed."""
    why: str
    """Why it goes first."""
    reason: str
    """Why it waits itself."""


class Quota(msgspec.Struct, frozen=True, rename="camel"):
    """The limit that keeps it waiting; amounts as Kubernetes writes them, plain numbers of applications."""

    kind: str
    queue: str
    resource: str
    """"" where applications are counted."""
    limit: str
    used: str
    asked: str
    user: str
    group: str
    message: str


class FutureStart(msgspec.Struct, frozen=True, rename="camel"):
    """The future reservation in its node pool: its own, or that of the one that it waits for."""

    application: ApplicationKey
    at: float | None
    """It will start no later, if running applications end as expected; Unix seconds. ``None``: nobody can tell."""
    ends: int
    """Of how many applications the expected end counts for that."""


class CalledBack(msgspec.Struct, frozen=True, rename="camel"):
    """Room that comes free for it."""

    pods: int
    applications: tuple[ApplicationKey, ...]


class Eta(msgspec.Struct, frozen=True, rename="camel"):
    """When it starts, from how long like applications took; Unix seconds, ``None``: not known."""

    early: float | None
    expected: float | None
    late: float | None
    estimated: int
    """Of how many applications, that run or wait ahead, a run time is known."""
    unknown: int
    """Of how many it is not."""
    error: float | None
    """By how much such run times were wrong, as a share: the median of the median errors. ``None``: not known."""


class Explanation(msgspec.Struct, frozen=True, rename="camel"):
    application: ApplicationKey
    name: str
    at: float
    """As of, Unix seconds."""
    sentence: str
    """The answer in one sentence."""
    state: Phase
    reason: str
    waits_for: WaitsFor | None
    queue: tuple[str, ...]
    """From the top down to its own."""
    pool: str
    position: int | None
    """1 for the head of its pool's queue; ``None`` when it is not in it."""
    ahead: tuple[Ahead, ...]
    """The first ``MOST_AHEAD`` in the order in which they would be tried if none started."""
    ahead_more: int
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
    quota: Quota | None = None
    future: FutureStart | None = None
    called_back: CalledBack | None = None
    eta: Eta | None = None
    proposals: tuple[Proposal, ...] = ()
    """Each of these changes alone would start it now."""


def explain(state: State, key: ApplicationKey, at: float, eta: Eta | None = None) -> Explanation | None:
    """Everything that is known of why ``key`` waits, or does not; ``None`` when it is unknown. Changes nothing."""
    gang = state.gangs.get(key)
    if gang is None:
        ended = state.ended.get(key)
        return None if ended is None else _ended(key, ended.status, at)
    application = gang.application
    waits = gang.phase is Phase.PENDING and application is not None
    driver = gangs.driver_shape(gang)
    position, first = state.queues.position(key, state.total)
    nodes = _nodes(state, application.executor) if application is not None else None
    limit = _quota(state, gang) if position else None
    late = limit is not None and gang.reason not in (OVER_QUOTA, EXCEEDS_QUEUE)
    return Explanation(
        application=key,
        name=application.name if application is not None else "",
        at=at,
        sentence=as_sentence(limit.message) if late and limit is not None else sentence_of(gang),
        state=gang.phase,
        reason=OVER_QUOTA if late else gang.reason,
        waits_for=_waits_for(state, gang, limit) if waits else None,
        queue=_path(state, application),
        pool=gang.pool,
        position=position or None,
        ahead=tuple([_ahead(state, gang, state.gangs[other], at) for other in first[:MOST_AHEAD]]),
        ahead_more=max(0, len(first) - MOST_AHEAD),
        minimum=gang.minimum,
        maximum=application.maximum if application is not None else None,
        placed=sum(gang.placed.values()),
        unfilled=gang.unfilled,
        owed=gang.owed,
        executors_fit_now=_fit_now(state, application.executor, gang.minimum) if application is not None else 0,
        driver_nodes=_nodes(state, driver) if driver is not None else None,
        executor_nodes=nodes,
        quota=limit,
        future=_future(state, gang) if position else None,
        called_back=_called_back(state, key),
        eta=eta if position else None,
        proposals=proposals(state, gang, nodes),
    )


def _path(state: State, application: Application | None) -> tuple[str, ...]:
    if application is None:
        return ()
    tree = state.queues.tree
    return tuple(tree.path(application.queue)) if application.queue in tree else (application.queue,)


def _waits_for(state: State, gang: Gang, limit: Quota | None) -> WaitsFor | None:
    if gang.reason in (UNKNOWN_QUEUE, NOT_ALLOWED):
        return WaitsFor.CONFIGURATION
    if limit is not None or (gang.reason == BEHIND and quota.closed_by(state, gang) is not None):
        return WaitsFor.QUOTA
    return WaitsFor.CAPACITY if gang.reason in (WAITING, EXCEEDS, BEHIND) else None


def _ahead(state: State, gang: Gang, other: Gang, at: float) -> Ahead:
    waiting, application = other.waiting, other.application
    able = gangs.is_ready(other) and other.reason != EXCEEDS
    holder = quota.closed_by(state, gang)
    if holder is not None:
        blocks = holder[1] == other.key
    else:
        blocker = state.blockers.get(other.pool)
        blocks = able and blocker is not None and blocker.key == other.key
    return Ahead(
        other.key,
        application.name if application is not None else "",
        application.queue if application is not None else "",
        max(0.0, at - waiting.created),
        blocks,
        _why_first(state, other.application, gang.application),
        other.reason,
    )


def _why_first(state: State, first: Application | None, second: Application | None) -> str:
    """Why the order of the queues puts one before the other, as far as a few words can say it."""
    assert first is not None and second is not None
    future = state.futures.get(first.pool)
    if future is not None and future.at is not None and future.key == first.key:
        return "it was promised a time"
    tree = state.queues.tree
    ours, theirs = tree.path(second.queue), tree.path(first.queue)
    depth = next((depth for depth, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), None)
    if depth is None:
        policy = tree.config(first.queue).policy
        if policy is Policy.FAIR and first.user != second.user:
            return f"its user {first.user or 'unknown'} holds less there"
    else:
        mine, other = ours[depth], theirs[depth]
        policy = tree.config(tree.config(other).parent or ROOT).policy
        if _below_guarantee(state, other):
            return f"queue {other} has less than is guaranteed to it"
        if policy is Policy.FAIR:
            return f"queue {other} has no more of its share than {mine}"
    if policy is Policy.PRIORITY and first.priority != second.priority:
        return f"its priority is {first.priority}"
    return "it is older"


def _below_guarantee(state: State, queue: str) -> bool:
    used = state.queues.usage.accounts[queue].used
    return any(used.get(name, 0) < amount for name, amount in state.queues.tree.config(queue).guaranteed.amounts)


def _quota(state: State, gang: Gang) -> Quota | None:
    """The limit that its turn would meet now. Its status may not say so yet, if its turn did not come since."""
    if not gangs.is_ready(gang) or quota.configured(state, gang) or quota.closed_by(state, gang):
        return None
    refusal = quota.refusal(state, gang)
    return None if refusal is None else _quota_of(refusal)


def _quota_of(refusal: Refusal) -> Quota:
    limit, used, asked = (written(refusal.resource, one) for one in (refusal.limit, refusal.used, refusal.asked))
    return Quota(
        refusal.kind.value,
        refusal.queue,
        refusal.resource,
        limit,
        used,
        asked,
        refusal.user,
        refusal.group,
        refusal.message(),
    )


def _future(state: State, gang: Gang) -> FutureStart | None:
    future = state.futures.get(gang.pool)
    if future is None:
        return None
    ends = 0
    if future.at is not None:
        ends = bisect_right(state.ends, future.at, key=lambda end: end[0])
    return FutureStart(future.key, future.at, ends)


def _called_back(state: State, key: ApplicationKey) -> CalledBack | None:
    pods = [record.pod.application for record in state.leaving.values() if record.leaving == key]
    return CalledBack(len(pods), tuple(sorted(set(pods)))) if pods else None


def _nodes(state: State, shape: PodShape) -> Breakdown:
    return breakdown(state.table, shape.constraints, state.table.vector(shape.requests))


def _fit_now(state: State, shape: PodShape, wanted: int) -> int:
    return min(wanted, state.table.total_capacity(state.table.vector(shape.requests), shape.constraints))


def _ended(key: ApplicationKey, status: GangStatus, at: float) -> Explanation:
    return Explanation(
        application=key,
        name="",
        at=at,
        sentence=ENDED,
        state=status.phase,
        reason=status.reason,
        waits_for=None,
        queue=(),
        pool="",
        position=None,
        ahead=(),
        ahead_more=0,
        minimum=0,
        maximum=None,
        placed=0,
        unfilled=0,
        owed=0,
        executors_fit_now=0,
        driver_nodes=None,
        executor_nodes=None,
    )
