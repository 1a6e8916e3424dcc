"""What the controller sees and decides, kept for the history: one account per application, a row when it ends.

Everything here is on the hot path of the event loop: a change costs a few look-ups and sums, the row is written
elsewhere. Only the replica that leads records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

import msgspec

from muster.cluster.nodes import NodeTable
from muster.cluster.resources import CPU, MEMORY, Resources
from muster.history.accounts import Account, PodShare
from muster.history.archive import Archive
from muster.history.estimates import Estimate, Shape
from muster.history.records import FinishedApplication, Outcome, Requests
from muster.history.stranded import stranded
from muster.history.waiting import UNKNOWN, Holder, RunTime, Waiter, wait_eta
from muster.kube import objects as k
from muster.kube.timestamps import parse_time
from muster.scheduling.decisions import Condition, Decision, Evict, Reserve
from muster.scheduling.explaining import Eta
from muster.scheduling.model import (
    Application,
    ApplicationKey,
    GangStatus,
    Phase,
    Pod,
    PodRef,
    PodShape,
    Reservation,
    Role,
)
from muster.scheduling.outlook import Holding, Outlook
from muster.scheduling.story import StoryEntry

SAMPLE_S = 60.0
"""Seconds between samples of stranded capacity."""
_LARGEST = 2**63 - 1
"""What the store takes as an integer; no machine has as much."""
_OUTCOMES = {"Succeeded": Outcome.SUCCEEDED, "Failed": Outcome.FAILED}


class _Told(msgspec.Struct, frozen=True, gc=False):
    """What the account needs of a pod and the scheduler does not; no object of Kubernetes is kept."""

    ready: bool = False
    """Its containers run and are ready."""
    disrupted: bool = False
    outcome: Outcome | None = None
    since: float | None = None
    """On its node since then: of pods that were there before the term."""
    finished_at: float | None = None
    """When its last container ended: of drivers that ended before the term."""


_READY = _Told(ready=True)
_NOT_READY = _Told()


class _Life:
    """One application while it lives."""

    __slots__ = ("account", "application", "driver", "finished_at", "observed_since", "outcome", "pods")

    def __init__(self, at: float) -> None:
        self.account = Account(at)
        self.application: Application | None = None
        self.pods: dict[str, PodShare] = {}
        """By name; those that finished are out."""
        self.driver = ""
        """Name of the driver pod."""
        self.outcome: Outcome | None = None
        self.finished_at: float | None = None
        """When the driver's containers ended, as its kubelet says (whole seconds); only where nobody led who saw it."""
        self.observed_since: float | None = None


class Recording:
    """For one term of leadership."""

    def __init__(
        self,
        archive: Archive,
        table: NodeTable,
        story: Callable[[ApplicationKey], tuple[StoryEntry, ...]],
        pool_label: str,
    ) -> None:
        self._archive = archive
        self._table = table
        self._story = story
        self._pool_label = pool_label
        self._lives: dict[ApplicationKey, _Life] = {}
        self._unsettled: dict[tuple[str, str], tuple[Pod, _Told]] | None = {}
        """Pods told before the first state was complete, when their nodes may not be known yet; then ``None``."""
        self._estimates: dict[ApplicationKey, Estimate] = {}
        """Of applications that have not ended."""
        self._sampled = 0.0

    def __len__(self) -> int:
        """Applications that are followed."""
        return len(self._lives)

    def pod_seen(self, at: float, pod: k.Pod, seen: Pod) -> None:
        """To be told before the scheduler: how a driver ended must be known when its application ends."""
        if seen.role is Role.OTHER:
            return
        if self._unsettled is not None:
            self._unsettled[seen.namespace, seen.name] = (seen, _told_before(pod, seen))
        else:
            self._pod_seen(at, seen, _told(pod, seen))

    def pod_gone(self, at: float, ref: PodRef, application: ApplicationKey | None) -> None:
        """``application``: "" for a pod that is not Spark's; ``None`` when its last state was missed."""
        if self._unsettled is not None:
            self._unsettled.pop((ref.namespace, ref.name), None)
            return
        if application is None:
            application = self._application_of(ref)
        life = self._lives.get(application)
        if life is None:
            return
        share = life.pods.pop(ref.name, None)
        if share is not None and share.bound:
            life.account.left(at, share)
        if not life.pods and life.application is None:
            del self._lives[application]

    def _application_of(self, ref: PodRef) -> ApplicationKey:
        """A walk over all applications: deletions are missed rarely."""
        prefix = f"{ref.namespace}/"
        return next((key for key, life in self._lives.items() if ref.name in life.pods and key.startswith(prefix)), "")

    def found(self, at: float, application: Application) -> None:
        """Its sizes are known."""
        life = self._life(at, application.key)
        life.application = application
        driver = application.driver.requests if application.driver is not None else Resources()
        life.account.sized(at, driver, application.executor.requests)

    def restored(self, at: float, application: Application, reservation: Reservation) -> None:
        """An earlier leader had reserved its slots."""
        self.found(at, application)
        self._reserved(at, application.key, reservation)
        self._lives[application.key].observed_since = at

    def settle(self, at: float) -> None:
        """The first state is complete: what is on nodes now was there before, and is counted from then on."""
        unsettled, self._unsettled = self._unsettled, None
        for seen, told in (unsettled or {}).values():
            self._pod_seen(at, seen, told)
            life = self._lives.get(seen.application)
            if life is not None and seen.node:
                life.observed_since = at

    def decided(self, at: float, decision: Decision) -> None:
        match decision:
            case Reserve(application=application, reservation=reservation):
                self.found(at, application)
                self._reserved(at, application.key, reservation)
            case Evict(key=key, pod=pod):
                life = self._lives.get(key)
                if life is not None and (share := life.pods.get(pod.name)) is not None:
                    share.evicted = True
            case Condition(key=key, status=status) if status.phase is Phase.FINISHED:
                self._ended(at, key, status)

    def estimate(self, application: Application) -> Estimate | None:
        """What earlier runs of the same job say."""
        namespace = application.key.partition("/")[0]
        requests = _requests(application.executor)
        shape = Shape(requests.cpu, requests.memory, application.minimum)
        return self._archive.estimator.run_seconds(namespace, application.name, shape)

    def estimated(self, application: Application) -> Application:
        """With the run time that is expected, unless somebody said so already or nobody knows."""
        if application.run_seconds is not None:
            return application
        estimate = self.estimate(application)
        if estimate is not None:
            self._estimates[application.key] = estimate
        return application if estimate is None else msgspec.structs.replace(application, run_seconds=estimate.seconds)

    def eta(self, at: float, outlook: Outlook) -> Eta:
        """When the one that the outlook is for starts, from how long runs like those of the others took."""
        everybody = (*outlook.running, *outlook.ahead)
        known = sum(one.run_seconds is not None for one in everybody)
        errors = [self._estimates[one.application].error for one in everybody if one.application in self._estimates]
        answer = wait_eta(
            at,
            outlook.free,
            [Holder(one.since, one.room, self._run_time(one)) for one in outlook.running],
            [Waiter(one.room, self._run_time(one)) for one in outlook.ahead],
            outlook.room,
        )
        error = median(errors) if errors else None
        return Eta(answer.early, answer.expected, answer.late, known, len(everybody) - known, error)

    def _run_time(self, one: Holding) -> RunTime:
        estimate = self._estimates.get(one.application)
        if estimate is not None:
            return RunTime(estimate.low, estimate.median, estimate.seconds)
        return UNKNOWN if one.run_seconds is None else RunTime(one.run_seconds, one.run_seconds, one.run_seconds)

    def tick(self, at: float) -> None:
        """Sample stranded capacity when that is due."""
        if at - self._sampled >= SAMPLE_S:
            self._sampled = at
            for sample in stranded(self._table, self._pool_label, at):
                self._archive.sample(sample)

    def _life(self, at: float, key: ApplicationKey) -> _Life:
        life = self._lives.get(key)
        if life is None:
            life = self._lives[key] = _Life(at)
        return life

    def _pod_seen(self, at: float, seen: Pod, told: _Told) -> None:
        life = self._lives.get(seen.application)
        if life is None:
            if seen.finished:
                return  # its application has its row
            life = self._life(at, seen.application)
        driver = seen.role is Role.DRIVER
        if driver:
            life.driver = seen.name
        share = life.pods.get(seen.name)
        if seen.finished:
            if driver:
                life.outcome, life.finished_at = told.outcome, told.finished_at
            if share is not None:
                share.evicted = share.evicted or told.disrupted
                del life.pods[seen.name]
                if share.bound:
                    life.account.left(at, share)
            return
        if share is None:
            share = life.pods[seen.name] = PodShare(
                seen.requests, executor=not driver, in_gang=not driver and seen.profile == 0
            )
        if not seen.node:
            return
        if not share.bound:
            life.account.bound(at, share, self._zone_of(seen.node), ready=told.ready, since=told.since)
        elif share.ready is not told.ready:
            life.account.ready(at, share, told.ready)
        if told.disrupted:
            share.evicted = True

    def _reserved(self, at: float, key: ApplicationKey, reservation: Reservation) -> None:
        life = self._life(at, key)
        driver = life.pods.get(life.driver)
        waits = bool(reservation.driver_node) and not (driver is not None and driver.bound)
        life.account.reserved(at, sum(slot.count for slot in reservation.slots), driver=waits)

    def _ended(self, at: float, key: ApplicationKey, status: GangStatus) -> None:
        """Its row goes to the archive. One whose sizes nobody knew had no gang: nothing is kept of it."""
        self._estimates.pop(key, None)
        life = self._lives.pop(key, None)
        if life is None or life.application is None:
            return
        application, account = life.application, life.account
        use = account.use(at)
        client = application.driver is None
        ended = status.ended if status.ended is not None else at
        if life.finished_at is not None:
            ended = min(ended, life.finished_at)
        namespace, _, identifier = key.partition("/")
        cross_zone, pairs = account.most_cross_zone
        self._archive.record(
            FinishedApplication(
                namespace=namespace,
                name=application.name,
                application_id=identifier,
                queue=application.queue,
                user=application.user,
                pool=application.pool,
                outcome=life.outcome or (Outcome.ENDED if client else Outcome.DELETED),
                created=application.created,
                ended=ended,
                minimum=application.minimum,
                maximum=application.maximum,
                executors=account.most_executors,
                driver=_requests(application.driver) if application.driver is not None else None,
                executor=_requests(application.executor),
                found=status.found,
                reserved=status.reserved,
                driver_bound=status.driver_bound,
                minimum_reached=status.minimum_reached,
                estimated_seconds=application.run_seconds,
                observed_since=life.observed_since,
                cross_zone_pairs=cross_zone,
                pairs=pairs,
                use=use,
                timeline=self._story(key),
            )
        )

    def _zone_of(self, node: str) -> str:
        row = self._table.index.get(node)
        known = self._table.nodes[row] if row is not None else None
        return known.zone if known is not None else ""


def _requests(shape: PodShape) -> Requests:
    requests = shape.requests
    return Requests(min(requests.get(CPU), _LARGEST), min(requests.get(MEMORY), _LARGEST))


def _told(pod: k.Pod, seen: Pod) -> _Told:
    if not seen.finished and not seen.terminating:  # nearly always, and quicker so
        return _READY if seen.running and _is_ready(pod.status.container_statuses) else _NOT_READY
    return _Told(
        ready=seen.running and _is_ready(pod.status.container_statuses),
        disrupted=_is_disrupted(pod),
        outcome=_OUTCOMES.get(pod.status.phase),
    )


def _told_before(pod: k.Pod, seen: Pod) -> _Told:
    """Of a pod that was there when the term began."""
    ended = _ended_at(pod) if seen.finished else None
    return msgspec.structs.replace(_told(pod, seen), since=_bound_since(pod, seen), finished_at=ended)


def _is_ready(statuses: Iterable[k.ContainerStatus]) -> bool:
    """Whether all containers are ready; those that nothing is told of count as ready."""
    return not [status for status in statuses if not status.ready]  # for every state of every pod: quicker than all()


def _is_disrupted(pod: k.Pod) -> bool:
    """Evicted, preempted or deleted by a taint (KEP-3329: condition ``DisruptionTarget``)."""
    return any(c.type == "DisruptionTarget" and c.status == "True" for c in pod.status.conditions)


def _bound_since(pod: k.Pod, seen: Pod) -> float:
    """When the pod came to its node, as its conditions say; pods that are born bound have been there all their life."""
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.status == "True" and condition.last_transition_time:
            return max(seen.created, parse_time(condition.last_transition_time))
    return seen.created


def _ended_at(pod: k.Pod) -> float | None:
    """When the last of its containers ended; ``None`` when that is not told."""
    times = [
        status.state.terminated.finished_at
        for status in pod.status.container_statuses
        if status.state.terminated is not None and status.state.terminated.finished_at
    ]
    return max(map(parse_time, times), default=None)
