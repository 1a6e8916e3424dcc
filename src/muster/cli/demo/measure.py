"""What an onlooker of the cluster can prove: a pure fold over what the API told, in the order of its changes.

In: ``Observation`` values (nodes, pods, gangs) with their resourceVersion, and when each application was submitted.
Out: times per application, partial gangs, overcommitted nodes. Nothing here asks Muster; what a ``Gang`` reserves is
believed only as far as the nodes named really have that room.

A gang is **partial** when, of an application with a minimum of n executors,

- *room*: at the change that bound its driver, executors already bound plus reserved slots with real room behind them
  (allocatable − bound pods − slots of other applications that are starting) were fewer than n;
- *stuck*: after that, one of its executors stayed without a node for more than ``STUCK_S`` seconds while it had fewer
  than n, and another application's driver was bound meanwhile;
- *never*: its driver ended, and of the n executors it had asked for at once it never had all.

While Muster is *away* (its process has ended and is not back), Spark runs by ordinary scheduling, and nobody promises
whole gangs. An application counts as **unguarded** instead of partial when its driver was created then, and so was
never held, or when it was starting then.

A node is **overcommitted** when, after any change, the requests of its pods exceed its allocatable in any resource, or
their number its pod limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from muster.cluster.resources import Resources

STUCK_S = 10.0
"""Placing an executor takes milliseconds; ten seconds leave room for a busy laptop."""
AWAY_EARLIER_S = 1.0
"""A process is gone a moment before that is noticed."""


class NodeObserved(msgspec.Struct, frozen=True):
    version: int
    """resourceVersion: the order of changes across all kinds (KEP-5504)."""
    at: float
    """Seconds on the onlooker's clock, when the change was seen."""
    name: str
    allocatable: Resources | None
    """``None``: the node is gone."""


class PodObserved(msgspec.Struct, frozen=True):
    version: int
    at: float
    uid: str
    application: str
    """``<namespace>/<spark-app-selector>``; "" for a pod that is not Spark's."""
    app_name: str = ""
    """Label ``spark-app-name``."""
    driver: bool = False
    node: str = ""
    requests: Resources = Resources()
    finished: bool = False
    """Succeeded, failed or gone: holds nothing."""
    succeeded: bool = False
    extra: bool = False
    """Bound above the minimum: fills no slot of the gang."""
    gated: bool = False
    """Held by Muster's scheduling gate."""


class GangObserved(msgspec.Struct, frozen=True):
    version: int
    at: float
    application: str
    slots: tuple[tuple[str, int], ...] = ()
    """(node, executors) of the default resource profile."""
    phase: str = ""
    reason: str = ""
    message: str = ""


Observation = NodeObserved | PodObserved | GangObserved


class Expected(msgspec.Struct, frozen=True):
    """What the demo asked for: the truth that Muster has to find out by itself."""

    name: str
    minimum: int
    executor: Resources
    real: bool = False


class Outcome(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TOO_LARGE = "exceeds cluster"


class Progress(msgspec.Struct):
    """One application as seen so far; times on the onlooker's clock."""

    expected: Expected
    key: str = ""
    submitted: float | None = None
    driver_bound: float | None = None
    minimum_reached: float | None = None
    ended: float | None = None
    outcome: Outcome = Outcome.WAITING
    running: int = 0
    """Executors bound and not finished."""
    pending: int = 0
    """Executors without a node."""
    gated: bool = False
    """Its driver was held at some time."""
    partial: str = ""
    """Why the gang was not whole; "" when it was."""
    reason: str = ""
    message: str = ""
    asked: int = 0
    """Most executors, with or without a node, at once."""
    short_since: float | None = None
    drivers_before: int = 0


class Measurement:
    """The fold. Feed it with ``observe`` in order of ``version``; read its public fields at any time."""

    def __init__(
        self,
        expected: Iterable[Expected],
        submitted: Mapping[str, float],
        away: Sequence[tuple[float, float]] = (),
    ) -> None:
        self.applications: dict[str, Progress] = {one.name: Progress(one) for one in expected}
        """By application name."""
        self.allocatable: dict[str, dict[str, int]] = {}
        self.used: dict[str, Counter[str]] = {}
        """By node; ``pods`` counts the pods."""
        self.overcommitted: dict[str, str] = {}
        """By node: what was exceeded first."""
        self.pods_seen = 0
        self._submitted = submitted
        self._away = away
        self._by_key: dict[str, Progress] = {}
        self._pods: dict[str, PodObserved] = {}
        self._slots: dict[str, tuple[tuple[str, int], ...]] = {}
        self._filled: dict[str, Counter[str]] = {}
        self._drivers_bound = 0

    def observe(self, seen: Observation) -> None:
        match seen:
            case NodeObserved():
                self._node(seen)
            case PodObserved():
                self._pod(seen)
            case GangObserved():
                self._gang(seen)

    @property
    def partial(self) -> list[Progress]:
        return [one for one in self.applications.values() if one.partial and not self._is_unguarded(one)]

    @property
    def unguarded(self) -> list[Progress]:
        """Not whole, because Muster was away."""
        return [one for one in self.applications.values() if one.partial and self._is_unguarded(one)]

    def _is_unguarded(self, one: Progress) -> bool:
        begun, ended = (one.submitted, one.driver_bound) if not one.gated else (one.driver_bound, one.ended)
        return any(
            left - AWAY_EARLIER_S <= (math.inf if ended is None else ended) and (begun or 0.0) <= back
            for left, back in self._away
        )

    def close(self, at: float) -> None:
        """The end of the watching: what is stuck now has been stuck until now."""
        for progress in self.applications.values():
            self._minimum(progress, at)

    def _node(self, seen: NodeObserved) -> None:
        if seen.allocatable is None:
            self.allocatable.pop(seen.name, None)
            return
        self.allocatable[seen.name] = dict(seen.allocatable.amounts)
        self.used.setdefault(seen.name, Counter())
        self._check(seen.name)

    def _gang(self, seen: GangObserved) -> None:
        self._slots[seen.application] = seen.slots
        progress = self._by_key.get(seen.application)
        if progress is not None:
            progress.reason, progress.message = seen.reason, seen.message
            if seen.reason == "ExceedsCluster" and progress.outcome is Outcome.WAITING:
                progress.outcome = Outcome.TOO_LARGE
            elif seen.reason != "ExceedsCluster" and progress.outcome is Outcome.TOO_LARGE:
                progress.outcome = Outcome.WAITING

    def _pod(self, seen: PodObserved) -> None:
        before = self._pods.get(seen.uid)
        if before is None:
            self.pods_seen += bool(seen.application)
            before = PodObserved(0, seen.at, seen.uid, seen.application)
        elif before.finished:
            return
        self._pods[seen.uid] = seen
        if seen.driver and seen.app_name in self.applications:
            self._adopt(seen)
        progress = self._by_key.get(seen.application)
        if seen.driver and seen.gated and progress is not None:
            progress.gated = True
        if not seen.driver and progress is not None:
            self._count(progress, before, -1)
            self._count(progress, seen, +1)
            progress.asked = max(progress.asked, progress.running + progress.pending)
        self._charge(before, -1)
        self._charge(seen, +1)
        if progress is None:
            return
        if seen.driver:
            self._driver(progress, before, seen)
        self._minimum(progress, seen.at)

    def _adopt(self, driver: PodObserved) -> None:
        """A later driver of the same name (a second try) replaces an earlier one that has ended."""
        progress = self.applications[driver.app_name]
        if progress.key == driver.application:
            return
        progress.key = driver.application
        progress.submitted = self._submitted.get(driver.app_name, driver.at)
        self._by_key[driver.application] = progress

    def _count(self, progress: Progress, pod: PodObserved, sign: int) -> None:
        if pod.finished or pod.version == 0:
            return
        if pod.node:
            progress.running += sign
        else:
            progress.pending += sign

    def _charge(self, pod: PodObserved, sign: int) -> None:
        if not pod.node or pod.finished:
            return
        used = self.used.setdefault(pod.node, Counter())
        for name, amount in pod.requests.amounts:
            used[name] += sign * amount
        used["pods"] += sign
        if not pod.driver and not pod.extra and pod.application:
            self._filled.setdefault(pod.application, Counter())[pod.node] += sign
        if sign > 0:
            self._check(pod.node)

    def _check(self, node: str) -> None:
        allocatable = self.allocatable.get(node)
        if allocatable is None or node in self.overcommitted:
            return
        for name, amount in self.used[node].items():
            if amount > allocatable.get(name, 0):
                self.overcommitted[node] = f"{name}: {amount} of {allocatable.get(name, 0)}"
                return

    def _driver(self, progress: Progress, before: PodObserved, seen: PodObserved) -> None:
        if seen.node and not before.node and progress.driver_bound is None:
            progress.driver_bound = seen.at
            progress.outcome = Outcome.RUNNING
            self._drivers_bound += 1
            room = progress.running + self._backed_slots(progress)
            if room < progress.expected.minimum:
                progress.partial = f"room for {room} of {progress.expected.minimum} when its driver was bound"
        if seen.finished:
            progress.ended = seen.at
            progress.outcome = Outcome.SUCCEEDED if seen.succeeded else Outcome.FAILED
            short = progress.driver_bound is not None and progress.minimum_reached is None
            if short and progress.asked >= progress.expected.minimum and not progress.partial:
                progress.partial = f"ended without ever having {progress.expected.minimum} executors"

    def _backed_slots(self, progress: Progress) -> int:
        """Unfilled slots of the application that its nodes have room for, beside bound pods and other starting gangs.

        Of an application that has had its minimum, no slots are counted: when executors leave, its slots move to the
        nodes of those that stay or leave last, and its ``Gang`` says so only later.
        """
        executor = dict(progress.expected.executor.amounts)
        backed = 0
        for node, unfilled in self._unfilled(progress.key).items():
            free = Counter(self.allocatable.get(node, {}))
            free.subtract(self.used.get(node, {}))
            for other in self._by_key.values():
                if other is not progress and _is_starting(other):
                    held = self._unfilled(other.key).get(node, 0)
                    for name, amount in (*other.expected.executor.amounts, ("pods", 1)):
                        free[name] -= held * amount
            fits = min(free[name] // amount for name, amount in (*executor.items(), ("pods", 1)))
            backed += max(0, min(unfilled, fits))
        return backed

    def _unfilled(self, application: str) -> dict[str, int]:
        filled = self._filled.get(application, Counter())
        return {node: count - filled[node] for node, count in self._slots.get(application, ()) if count > filled[node]}

    def _minimum(self, progress: Progress, at: float) -> None:
        if progress.driver_bound is None or progress.minimum_reached is not None:
            return
        if progress.short_since is not None and at - progress.short_since > STUCK_S and not progress.partial:
            others, seconds = self._drivers_bound - progress.drivers_before, at - progress.short_since
            if others > 0:
                progress.partial = (
                    f"{progress.running} of {progress.expected.minimum} executors for {seconds:.0f} s, "
                    f"while {others} other drivers were bound"
                )
        if progress.running >= progress.expected.minimum and progress.ended is None:
            progress.minimum_reached = at
            progress.short_since = None
        elif progress.pending and progress.short_since is None:
            progress.short_since, progress.drivers_before = at, self._drivers_bound
        elif not progress.pending:
            progress.short_since = None


def _is_starting(progress: Progress) -> bool:
    return progress.driver_bound is not None and progress.minimum_reached is None and progress.ended is None


def measure(
    expected: Iterable[Expected],
    submitted: Mapping[str, float],
    observations: Iterable[Observation],
    until: float,
    away: Sequence[tuple[float, float]] = (),
) -> Measurement:
    """The fold over everything seen ``until`` then, sorted by the API's own order of changes.

    ``away``: when Muster's process was gone, from and to.
    """
    result = Measurement(expected, submitted, away)
    for seen in sorted(observations, key=lambda one: one.version):
        result.observe(seen)
    result.close(until)
    return result
