"""Gauges that are made anew every half minute: reservations, nodes, stores, and the stages of pods.

What goes through everything there is gives way again and again, so that calls are answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from muster.cluster.nodes import NodeTable
from muster.control.extender.known import KnownPods
from muster.control.extender.legacy_metrics import LegacyMetrics
from muster.control.extender.observations import NANOSECONDS
from muster.control.extender.pod_lifecycle import Start, is_starting, stage_times, start_of
from muster.control.extender.reservations import ResourceReservation
from muster.control.extender.usage import SLICE, Usage
from muster.kube.objects import Pod

INTERVAL = 30.0
"""Seconds."""

_USAGE = (("resource.usage.cpu", 1000), ("resource.usage.memory", 1), ("resource.usage.nvidia.com/gpu", 1))
_UNBOUND = ("reservations.unbound.cpu", "reservations.unbound.memory", "reservations.unbound.nvidiagpu")


class StartingPods:
    """Spark pods that are on their way to be ready, or were a minute ago."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._starts: dict[tuple[str, str], Start] = {}

    def see(self, pod: Pod, now: float) -> None:
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        start = start_of(pod, self._label)
        if is_starting(start, now) and pod.status.phase not in ("Succeeded", "Failed"):
            self._starts[pod_id] = start
        else:
            self._starts.pop(pod_id, None)

    def forget(self, namespace: str, name: str) -> None:
        self._starts.pop((namespace, name), None)

    def refresh(self, metrics: LegacyMetrics, now: float) -> list[Start]:
        """Returns all of them, after those are left out that have been ready for a while."""
        self._starts = {pod_id: start for pod_id, start in self._starts.items() if is_starting(start, now)}
        times = stage_times(self._starts.values(), now)
        tags = {key: (key.instance_group, key.role, key.stage.value) for key in times}
        metrics.replace("pod.lifecycle.count", ((tags[key], found.count) for key, found in times.items()))
        for name, attribute in (("max", "maximum"), ("p95", "p95"), ("p50", "p50")):
            values = ((tags[key], getattr(found, attribute) * NANOSECONDS) for key, found in times.items())
            metrics.replace(f"pod.lifecycle.{name}", values)
        return list(self._starts.values())


class NodeUsage:
    """``resource.usage.*`` of every node that has slots and an instance group, and what is reserved for pods that have
    not come. ``label``: the node label of instance groups.
    """

    def __init__(self, metrics: LegacyMetrics, label: str) -> None:
        self._metrics = metrics
        self._label = label
        self._usage = Usage()
        self._groups: dict[str, str] = {}
        """Of the nodes that are told of."""

    def refresh(self, reservations: Iterable[ResourceReservation], table: NodeTable) -> Iterator[None]:
        """Gives way after each slice."""
        usage = self._usage
        yield from usage.count(reservations)
        for name, (_, unit), amount in zip(_UNBOUND, _USAGE, usage.unbound, strict=True):
            self._metrics.set(name, amount / unit)
        for number, node in enumerate({**self._groups, **usage.nodes}):
            group = _label(table, node, self._label) if node in usage.nodes else ""
            known = self._groups.get(node, "")
            if group != known or node in usage.changed:
                self._tell(node, known, group)
            if number % SLICE == SLICE - 1:
                yield
        usage.changed.clear()

    def _tell(self, node: str, known: str, group: str) -> None:
        amounts = self._usage.nodes.get(node, (0, 0, 0))
        for (name, unit), amount in zip(_USAGE, amounts, strict=True):
            if known and known != group:
                self._metrics.drop(name, node, known)
            if group:
                self._metrics.set(name, amount / unit, node, group)
        if group:
            self._groups[node] = group
        else:
            self._groups.pop(node, None)


def refresh_soft(metrics: LegacyMetrics, known: KnownPods) -> Iterator[None]:
    """Executors above the minimum: up to the maximum they count as reserved, beyond it not. Gives way."""
    applications = executors = beyond = 0
    for number, application in enumerate(list(known.applications.values())):
        if number % SLICE == SLICE - 1:
            yield
        sized = application.sized
        if sized is None or sized.maximum is None or application.driver is None:
            continue
        room, soft = sized.maximum - sized.minimum, len(application.soft)
        applications += room > 0
        executors += min(room, soft)
        beyond += max(0, soft - room)
    metrics.set("softreservation.count", applications)
    metrics.set("softreservation.executorcount", executors)
    metrics.set("softreservation.executorswithnoreservations", beyond)


def refresh_store(metrics: LegacyMetrics, name: str, wanted: int, stored: int, pending: Mapping[int, int]) -> None:
    """``name``: the tag ``cachedobject``. ``pending``: by queue."""
    metrics.set("cache.objects.count", wanted, name, "cache")
    metrics.set("cache.objects.count", stored, name, "lister")
    for queue in range(5):
        metrics.set("cache.inflight.count", pending.get(queue, 0), name, str(queue))


def _label(table: NodeTable, node: str, label: str) -> str:
    row = table.index.get(node)
    found = table.nodes[row] if row is not None else None
    return found.labels.get(label, "") if found is not None else ""
