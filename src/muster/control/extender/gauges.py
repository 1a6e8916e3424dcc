"""Gauges that are made anew every half minute: reservations, nodes, stores, and the stages of pods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from muster.cluster.nodes import NodeTable
from muster.cluster.quantity import QuantityError
from muster.cluster.resources import CPU, GPU, MEMORY, Resources
from muster.control.extender.known import KnownPods
from muster.control.extender.legacy_metrics import LegacyMetrics
from muster.control.extender.observations import NANOSECONDS
from muster.control.extender.pod_lifecycle import DECAY, stage_times, stages
from muster.control.extender.reservations import ResourceReservation
from muster.kube.objects import Pod

INTERVAL = 30.0
"""Seconds."""


class StartingPods:
    """Spark pods that are on their way to be ready, or were a minute ago."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._pods: dict[tuple[str, str], Pod] = {}

    def see(self, pod: Pod, now: float) -> None:
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        if _is_starting(pod, now):
            self._pods[pod_id] = pod
        else:
            self._pods.pop(pod_id, None)

    def forget(self, namespace: str, name: str) -> None:
        self._pods.pop((namespace, name), None)

    def refresh(self, metrics: LegacyMetrics, now: float) -> list[Pod]:
        """Returns all of them, after those are left out that have been ready for a while."""
        self._pods = {pod_id: pod for pod_id, pod in self._pods.items() if _is_starting(pod, now)}
        times = stage_times(self._pods.values(), now, self._label)
        tags = {key: (key.instance_group, key.role, key.stage.value) for key in times}
        metrics.replace("pod.lifecycle.count", ((tags[key], found.count) for key, found in times.items()))
        for name, attribute in (("max", "maximum"), ("p95", "p95"), ("p50", "p50")):
            values = ((tags[key], getattr(found, attribute) * NANOSECONDS) for key, found in times.items())
            metrics.replace(f"pod.lifecycle.{name}", values)
        return list(self._pods.values())


def refresh_reservations(
    metrics: LegacyMetrics, reservations: Iterable[ResourceReservation], table: NodeTable, label: str
) -> None:
    """``resource.usage.*`` of every node that has slots, and what is reserved for pods that have not come."""
    used: dict[str, Resources] = defaultdict(Resources)
    unbound = Resources()
    for reservation in reservations:
        for _, slot, pod in reservation.slots():
            try:
                requests = slot.requests
            except QuantityError:  # edited by hand
                continue
            used[slot.node] += requests
            if not pod:
                unbound += requests
    groups = {node: _label(table, node, label) for node in used}
    for resource, usage, free in (
        (CPU, "resource.usage.cpu", "reservations.unbound.cpu"),
        (MEMORY, "resource.usage.memory", "reservations.unbound.memory"),
        (GPU, "resource.usage.nvidia.com/gpu", "reservations.unbound.nvidiagpu"),
    ):
        unit = 1000 if resource == CPU else 1
        metrics.set(free, unbound.get(resource) / unit)
        metrics.replace(
            usage, (((node, groups[node]), used[node].get(resource) / unit) for node in used if groups[node])
        )


def refresh_soft(metrics: LegacyMetrics, known: KnownPods) -> None:
    """Executors above the minimum: up to the maximum they count as reserved, beyond it not."""
    applications = executors = beyond = 0
    for application in known.applications.values():
        sized = application.sized
        if sized is None or sized.maximum is None or application.driver is None:
            continue
        room = sized.maximum - sized.minimum
        applications += room > 0
        executors += min(room, len(application.soft))
        beyond += max(0, len(application.soft) - room)
    metrics.set("softreservation.count", applications)
    metrics.set("softreservation.executorcount", executors)
    metrics.set("softreservation.executorswithnoreservations", beyond)


def refresh_store(metrics: LegacyMetrics, name: str, wanted: int, stored: int, pending: Mapping[int, int]) -> None:
    """``name``: the tag ``cachedobject``. ``pending``: by queue."""
    metrics.set("cache.objects.count", wanted, name, "cache")
    metrics.set("cache.objects.count", stored, name, "lister")
    for queue in range(5):
        metrics.set("cache.inflight.count", pending.get(queue, 0), name, str(queue))


def _is_starting(pod: Pod, now: float) -> bool:
    *_, (_, _, ended) = stages(pod)
    return (ended is None or now - ended <= DECAY) and pod.status.phase not in ("Succeeded", "Failed")


def _label(table: NodeTable, node: str, label: str) -> str:
    row = table.index.get(node)
    found = table.nodes[row] if row is not None else None
    return found.labels.get(label, "") if found is not None else ""
