"""What is measured of calls, new reservations and waiting pods, under the archived scheduler's names."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, median

import msgspec

from muster.cluster.nodes import NodeTable
from muster.cluster.resources import CPU, GPU, MEMORY
from muster.control.extender import pods
from muster.control.extender.filter import Answer
from muster.control.extender.legacy_metrics import LegacyMetrics
from muster.control.extender.outcomes import Outcome
from muster.control.extender.placement_metrics import UNKNOWN_ZONE, initial_placement, zone_traffic
from muster.control.extender.reservations import DRIVER_SLOT, ResourceReservation
from muster.control.extender.waste import Wait, waste
from muster.control.facts import created_at
from muster.kube.objects import Condition, Pod
from muster.kube.timestamps import parse_time
from muster.spark import names

NANOSECONDS = 1e9
_KEPT = 1000
"""Latest samples that means and medians are of."""


class Observations:
    """``packer``: its name, the tag of the packing efficiency. ``label``: the node label of instance groups."""

    def __init__(self, metrics: LegacyMetrics, packer: str, label: str) -> None:
        self._metrics = metrics
        self._packer = packer
        self._label = label
        self._traffic: dict[str, tuple[int, float, float]] = {}
        """Per instance group: gangs so far, mean pairs in different zones, mean pairs."""
        self._first_binds: deque[float] = deque(maxlen=_KEPT)
        self._waits: dict[tuple[str, str], Wait] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._metrics.observe(name, (time.perf_counter() - begun) * NANOSECONDS)

    def answered(self, pod: Pod, answer: Answer, seconds: float, now: float) -> None:
        """One filter call."""
        role = pod.metadata.labels.get(names.SPARK_ROLE_LABEL, "")
        tags = (role, answer.outcome or "", answer.instance_group)
        created = created_at(pod)
        tried = _last_attempt(pod)
        self._metrics.count("requests", *tags)
        self._metrics.observe("schedule.time", seconds * NANOSECONDS, *tags)
        self._metrics.observe("wait.time", max(0.0, now - created) * NANOSECONDS, *tags)
        since = now - (created if tried is None else tried)
        self._metrics.observe("retry.time", max(0.0, since) * NANOSECONDS, *tags, "false" if tried is None else "true")
        if not answer.node and answer.outcome is not None:
            self._note(pod, failed=now, outcome=answer.outcome)
        if answer.zone:
            self._metrics.count("singleazdynamicallocationpackfailure.count", answer.zone)

    def reserved(self, reservation: ResourceReservation, group: str, table: NodeTable) -> None:
        """A gang was placed."""
        slots = reservation.spec.reservations
        executors = Counter(slot.node for name, slot in slots.items() if name != DRIVER_SLOT)
        placement = initial_placement(slots[DRIVER_SLOT].node, executors)
        metrics = self._metrics
        metrics.count("scheduling.initialdriverexecutorcollocation", group, placement.collocation)
        if placement.executor_nodes:
            metrics.observe("scheduling.initialexecutorspernode", placement.executors_per_node, group)
            metrics.observe("scheduling.initialnodecount", placement.executor_nodes, group)
        zones = Counter(_zone(table, slot.node) for slot in slots.values())
        metrics.observe("application.zones.count", len(zones), group)
        traffic = zone_traffic(zones.values())
        metrics.observe("az.cross.traffic", traffic.cross_zone, group)
        metrics.observe("total.traffic", traffic.total, group)
        count, cross, total = self._traffic.get(group, (0, 0.0, 0.0))
        cross += (traffic.cross_zone - cross) / (count + 1)
        total += (traffic.total - total) / (count + 1)
        self._traffic[group] = (count + 1, cross, total)
        metrics.set("az.cross.traffic.mean", cross, group)
        metrics.set("total.traffic.mean", total, group)
        self._packing_efficiency(group, table)

    def _packing_efficiency(self, group: str, table: NodeTable) -> None:
        """Shares in use of all nodes together; ``max`` is the larger of cpu's and memory's."""
        present = table.present
        shares = {}
        for name, resource in (("cpu", CPU), ("memory", MEMORY), ("gpu", GPU)):
            row = table.dimension(resource)
            whole = int(table.schedulable[row, present].sum())
            used = whole - int(table.free[row, present].sum())
            shares[name] = used / whole if whole > 0 else 1.0
        shares["max"] = max(shares["cpu"], shares["memory"])
        for name, share in shares.items():
            self._metrics.set("packingefficiency", share, self._packer, group, name)

    def first_bound(self, reservation: ResourceReservation, now: float) -> None:
        """An executor took a slot that none had before."""
        created = reservation.metadata.creation_timestamp
        if not created:
            return
        seconds = max(0.0, now - parse_time(created))
        self._first_binds.append(seconds * NANOSECONDS)
        self._metrics.observe("reservations.timetofirstbind", self._first_binds[-1])

    def refresh(self) -> None:
        """Means and medians: too much to do for each call."""
        if self._first_binds:
            self._metrics.set("reservations.timetofirstbind.mean", fmean(self._first_binds))
            self._metrics.set("reservations.timetofirstbind.median", median(self._first_binds))

    # What pods wait for

    def demanded(self, namespace: str, pod_name: str, now: float) -> None:
        wait = self._waits.get((namespace, pod_name))
        if wait is not None:
            self._waits[(namespace, pod_name)] = msgspec.structs.replace(wait, demanded=now, fulfilled=None)

    def fulfilled(self, namespace: str, pod_name: str, now: float) -> None:
        wait = self._waits.get((namespace, pod_name))
        if wait is not None and wait.fulfilled is None:
            self._waits[(namespace, pod_name)] = msgspec.structs.replace(wait, fulfilled=now)

    def seen(self, pod: Pod, now: float) -> None:
        """A pod of ours: it waits, or has waited."""
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        if not pod.spec.node_name:
            if pod_id not in self._waits:
                self._waits[pod_id] = Wait(created_at(pod))
                self._metrics.observe("informer.delay", max(0.0, now - created_at(pod)) * NANOSECONDS)
            return
        wait = self._waits.pop(pod_id, None)
        if wait is None:
            return
        group = pods.instance_group(pod.spec, self._label) or ""
        for kind, seconds in waste(wait, now):
            self._metrics.observe("scheduling.waste", seconds * NANOSECONDS, kind)
            self._metrics.observe("scheduling.wasteperinstancegroup", seconds * NANOSECONDS, kind, group)

    def gone(self, namespace: str, name: str) -> None:
        self._waits.pop((namespace, name), None)

    def _note(self, pod: Pod, *, failed: float, outcome: Outcome) -> None:
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        wait = self._waits.get(pod_id)
        if wait is not None:
            self._waits[pod_id] = msgspec.structs.replace(wait, failed=failed, outcome=outcome)


def _zone(table: NodeTable, node: str) -> str:
    row = table.index.get(node)
    found = table.nodes[row] if row is not None else None
    return found.zone if found is not None else UNKNOWN_ZONE


def _last_attempt(pod: Pod) -> float | None:
    """When kube-scheduler last said that the pod is not scheduled; ``None`` when it has not yet."""
    found: Condition | None = next((each for each in pod.status.conditions if each.type == "PodScheduled"), None)
    return parse_time(found.last_transition_time) if found is not None and found.last_transition_time else None
