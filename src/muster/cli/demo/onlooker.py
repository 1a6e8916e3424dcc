"""Watches nodes, pods and gangs through the API, as any user could, and keeps what it saw for ``measure``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from muster.cli.demo.measure import (
    Expected,
    GangObserved,
    Measurement,
    NodeObserved,
    Observation,
    PodObserved,
    measure,
)
from muster.cluster.resources import Resources
from muster.kube import list_watch as lw
from muster.kube import objects as k
from muster.kube.client import Client
from muster.kube.kinds import NODES, PODS, Resource
from muster.spark.names import (
    EXTRA_ANNOTATION,
    GANG_GATE,
    GROUP,
    SPARK_APP_NAME_LABEL,
    SPARK_APP_SELECTOR_LABEL,
    SPARK_ROLE_DRIVER,
    SPARK_ROLE_LABEL,
)

SETTLE_S = 0.4
"""The three watches may be this far apart; the live picture lags by it."""
ZONE_LABEL = "topology.kubernetes.io/zone"


class _Slot(msgspec.Struct, frozen=True):
    node: str
    count: int
    profile: int = 0


class _GangSpec(msgspec.Struct, frozen=True):
    slots: tuple[_Slot, ...] = ()


class _GangStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""


class _Gang(msgspec.Struct, frozen=True):
    """Read without Muster's own types: the onlooker sees what the API serves."""

    metadata: k.ObjectMeta = k.ObjectMeta()
    spec: _GangSpec = _GangSpec()
    status: _GangStatus = _GangStatus()


GANGS_SEEN = Resource(GROUP, "v1alpha1", "gangs", "Gang", _Gang)


class Onlooker:
    """``run`` it beside the demo; ``live`` is up to date until ``SETTLE_S`` seconds ago."""

    def __init__(
        self,
        client: Client,
        expected: Iterable[Expected],
        submitted: Mapping[str, float],
        away: Sequence[tuple[float, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._expected = tuple(expected)
        self._submitted = submitted
        self._away = away
        self._clock = clock
        self._unsettled: list[Observation] = []
        self._settled: list[Observation] = []
        self._pods: dict[str, PodObserved] = {}
        self.live = Measurement(self._expected, submitted, away)
        self.zones: dict[str, str] = {}
        self.ready = asyncio.Event()
        """Set when everything that existed at the beginning has been seen."""
        self._synced: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lw.ListWatch(self._client, NODES).run(self._node))
            tasks.create_task(lw.ListWatch(self._client, PODS).run(self._pod))
            tasks.create_task(lw.ListWatch(self._client, GANGS_SEEN).run(self._gang))

    @property
    def seen(self) -> int:
        """How many changes so far."""
        return len(self._settled) + len(self._unsettled)

    def settle(self) -> Measurement:
        """Fold in what is old enough to be in order; returns ``live``."""
        self._unsettled.sort(key=lambda seen: seen.version)
        until = self._clock() - SETTLE_S
        while self._unsettled and self._unsettled[0].at <= until:
            seen = self._unsettled.pop(0)
            self._settled.append(seen)
            self.live.observe(seen)
        return self.live

    def conclude(self) -> Measurement:
        """Everything again, strictly in the API's order of changes."""
        seen = [*self._settled, *self._unsettled]
        return measure(self._expected, self._submitted, seen, self._clock(), self._away)

    def _node(self, event: lw.WatchedEvent[k.Node]) -> None:
        match event:
            case lw.Added(node) | lw.Modified(node):
                name = node.metadata.name
                self.zones[name] = node.metadata.labels.get(ZONE_LABEL, "")
                self._saw(NodeObserved(_version(node), self._clock(), name, Resources.parse(node.status.allocatable)))
            case lw.Deleted(name=name, object=last):
                self._saw(NodeObserved(self._version_of_end(last), self._clock(), name, None))
            case lw.Synced():
                self._sync("nodes")

    def _pod(self, event: lw.WatchedEvent[k.Pod]) -> None:
        match event:
            case lw.Added(pod) | lw.Modified(pod):
                seen = pod_observed(pod, self._clock())
                self._pods[seen.uid] = seen
                self._saw(seen)
            case lw.Deleted(uid=uid, object=last):
                before = self._pods.pop(uid, None)
                if before is not None:
                    version = self._version_of_end(last)
                    self._saw(msgspec.structs.replace(before, version=version, at=self._clock(), finished=True))
            case lw.Synced():
                self._sync("pods")

    def _gang(self, event: lw.WatchedEvent[_Gang]) -> None:
        match event:
            case lw.Added(gang) | lw.Modified(gang):
                slots = tuple((slot.node, slot.count) for slot in gang.spec.slots if slot.profile == 0)
                status = gang.status
                application = f"{gang.metadata.namespace}/{gang.metadata.name}"
                at = self._clock()
                self._saw(
                    GangObserved(_version(gang), at, application, slots, status.phase, status.reason, status.message)
                )
            case lw.Deleted(namespace=namespace, name=name, object=last):
                self._saw(GangObserved(self._version_of_end(last), self._clock(), f"{namespace}/{name}"))
            case lw.Synced():
                self._sync("gangs")

    def _saw(self, seen: Observation) -> None:
        self._unsettled.append(seen)

    def _sync(self, what: str) -> None:
        self._synced.add(what)
        if len(self._synced) == 3:
            self.ready.set()

    def _version_of_end(self, last: k.Node | k.Pod | _Gang | None) -> int:
        """The last state of a deleted object carries the version of its deletion; one that went unseen is as late as
        anything seen so far."""
        if last is not None:
            return _version(last)
        return max((seen.version for seen in (*self._settled[-1:], *self._unsettled)), default=0)


def pod_observed(pod: k.Pod, at: float) -> PodObserved:
    """A pod as the onlooker counts it: the sum of its containers, or its largest init container where that is more."""
    meta, spec = pod.metadata, pod.spec
    containers = Resources()
    for container in spec.containers or ():
        containers += Resources.parse(container.resources.requests)
    for container in spec.init_containers:
        containers = containers.largest(Resources.parse(container.resources.requests))
    selector = meta.labels.get(SPARK_APP_SELECTOR_LABEL, "")
    return PodObserved(
        version=_version(pod),
        at=at,
        uid=meta.uid,
        application=f"{meta.namespace}/{selector}" if selector else "",
        app_name=meta.labels.get(SPARK_APP_NAME_LABEL, ""),
        driver=meta.labels.get(SPARK_ROLE_LABEL) == SPARK_ROLE_DRIVER,
        node=spec.node_name,
        requests=containers,
        finished=pod.status.phase in ("Succeeded", "Failed"),
        succeeded=pod.status.phase == "Succeeded",
        gated=any(gate.name == GANG_GATE for gate in spec.scheduling_gates),
        extra=meta.annotations.get(EXTRA_ANNOTATION) == "true",
    )


def _version(item: k.Node | k.Pod | _Gang) -> int:
    return int(item.metadata.resource_version or 0)
