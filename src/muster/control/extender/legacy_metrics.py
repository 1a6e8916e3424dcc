"""The archived scheduler's metrics under their own names, for Prometheus to scrape.

One rule makes a name: the prefix ``foundry.spark.scheduler.``, then every character that Prometheus does not allow
becomes ``_``; tags the same. Counters end in ``_total``, as Prometheus has it. Values keep their units: durations are
nanoseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString

PREFIX = "foundry.spark.scheduler."
UNSPECIFIED = "unspecified"

_MAX_TAG = 200
_TAG_CHARACTER = re.compile(r"[^a-z0-9_\-./:]")
_NAME_CHARACTER = re.compile(r"[^a-zA-Z0-9_]")


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class LegacyMetric(msgspec.Struct, frozen=True):
    """One metric; ``name`` is without the prefix."""

    name: str
    kind: Kind
    tags: tuple[str, ...] = ()
    help: str = ""
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """As it is scraped; a histogram's has ``_bucket``, ``_sum`` and ``_count`` after it."""
        return prometheus_name(PREFIX + self.name) + ("_total" if self.kind is Kind.COUNTER else "")


def prometheus_name(name: str) -> str:
    return _NAME_CHARACTER.sub("_", name)


def clean_tag(value: str) -> str:
    """A tag's value as the archived scheduler wrote it: lower case, strange characters replaced, never empty."""
    if not value or len(value) > _MAX_TAG:
        return UNSPECIFIED
    return _TAG_CHARACTER.sub("_", value.lower())


def _seconds(*bounds: float) -> tuple[float, ...]:
    return tuple(bound * 1e9 for bound in bounds)


_QUICK = _seconds(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
_SLOW = _seconds(0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600)
_FEW = (1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024)
_MANY = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)

_CALL = ("sparkrole", "outcome", "instance-group")
_GROUP = ("instance-group",)
_REQUEST = ("objecttype", "requesttype")
_LIFECYCLE = ("instance-group", "sparkrole", "lifecycle")
_PACKING = (f"{PREFIX}packingfunction", "instance-group", f"{PREFIX}packing_resource")
_USAGE = ("nodename", "instance-group")


def _counter(name: str, tags: tuple[str, ...], text: str) -> LegacyMetric:
    return LegacyMetric(name, Kind.COUNTER, tags, text)


def _gauge(name: str, tags: tuple[str, ...], text: str) -> LegacyMetric:
    return LegacyMetric(name, Kind.GAUGE, tags, text)


def _histogram(name: str, tags: tuple[str, ...], text: str, buckets: tuple[float, ...]) -> LegacyMetric:
    return LegacyMetric(name, Kind.HISTOGRAM, tags, text, buckets)


METRICS = {
    metric.name: metric
    for metric in (
        _counter("requests", _CALL, "Filter calls"),
        _histogram("schedule.time", _CALL, "Duration of a filter call", _QUICK),
        _histogram("wait.time", _CALL, "Age of the pod at a filter call", _SLOW),
        _histogram("retry.time", (*_CALL, "retry"), "Time since the pod's last attempt", _SLOW),
        _histogram("reconciliation.time", (), "Duration of a reconciliation", _QUICK),
        _gauge("packingefficiency", _PACKING, "Share of the nodes' resources in use after a gang was placed"),
        _counter(
            "scheduling.initialdriverexecutorcollocation",
            ("instance-group", "collocation-type"),
            "Gangs by how many executors share the driver's node",
        ),
        _histogram("scheduling.initialexecutorspernode", _GROUP, "Executors per node of a new gang that has any", _FEW),
        _histogram("scheduling.initialnodecount", _GROUP, "Nodes of the executors of a new gang", _FEW),
        _histogram("az.cross.traffic", _GROUP, "Pairs of an application's pods in different zones", _MANY),
        _gauge("az.cross.traffic.mean", _GROUP, "Mean of az.cross.traffic"),
        _histogram("total.traffic", _GROUP, "Pairs of an application's pods", _MANY),
        _gauge("total.traffic.mean", _GROUP, "Mean of total.traffic"),
        _histogram("application.zones.count", _GROUP, "Zones of a new gang", _FEW),
        _counter(
            "singleazdynamicallocationpackfailure.count",
            ("zone",),
            "Executors that did not fit the zone of their application",
        ),
        _histogram("reservations.timetofirstbind", (), "Reservation created to slot taken", _SLOW),
        _gauge("reservations.timetofirstbind.median", (), "Median of reservations.timetofirstbind"),
        _gauge("reservations.timetofirstbind.mean", (), "Mean of reservations.timetofirstbind"),
        _gauge("reservations.unbound.cpu", (), "Reserved for pods that have not come: cores"),
        _gauge("reservations.unbound.memory", (), "Reserved for pods that have not come: bytes"),
        _gauge("reservations.unbound.nvidiagpu", (), "Reserved for pods that have not come: GPUs"),
        _gauge("resource.usage.cpu", _USAGE, "Reserved on a node: cores"),
        _gauge("resource.usage.memory", _USAGE, "Reserved on a node: bytes"),
        _gauge("resource.usage.nvidia.com/gpu", _USAGE, "Reserved on a node: GPUs"),
        _gauge("pod.lifecycle.count", _LIFECYCLE, "Pods in a stage of their start"),
        _gauge("pod.lifecycle.max", _LIFECYCLE, "Longest time in the stage"),
        _gauge("pod.lifecycle.p95", _LIFECYCLE, "95th percentile of the time in the stage"),
        _gauge("pod.lifecycle.p50", _LIFECYCLE, "Median of the time in the stage"),
        _gauge("softreservation.count", (), "Applications with soft reservations"),
        _gauge("softreservation.executorcount", (), "Executors with soft reservations"),
        _gauge("softreservation.executorswithnoreservations", (), "Executors without any reservation"),
        _histogram("softreservation.compaction.time", (), "Duration of a compaction", _QUICK),
        _gauge("cache.objects.count", ("cachedobject", "source"), "Objects known, and known to the API server"),
        _gauge("cache.inflight.count", ("cachedobject", "queueindex"), "Objects with a write under way"),
        _counter("async.request.count", _REQUEST, "Writes sent"),
        _counter("async.request.retries.count", _REQUEST, "Writes that had to be tried again"),
        _counter("async.request.dropped.count", (*_REQUEST, "dropreason"), "Writes set aside"),
        _histogram("informer.delay", (), "Age of a pod when it was first seen", _QUICK),
        _histogram("scheduling.waste", ("wastetype",), "Time that pods waited, by what they waited for", _SLOW),
        _histogram("scheduling.wasteperinstancegroup", ("wastetype", "instance-group"), "The same", _SLOW),
    )
}
"""By name without the prefix."""


class SeriesText:
    """A gauge whose series are kept as text: to write out 15,000 of them anew takes a tenth of a second."""

    def __init__(self, metric: LegacyMetric) -> None:
        name = metric.prometheus_name
        self._head = f"# HELP {name} {metric.help}\n# TYPE {name} gauge\n"
        labels = sorted((prometheus_name(tag), position) for position, tag in enumerate(metric.tags))
        told = ",".join(f'{label}="{{{position}}}"' for label, position in labels)
        self._format = f"{name}{{{{{told}}}}} ".format
        self._lines: dict[tuple[str, ...], str] = {}

    def set(self, value: float, tags: tuple[str, ...]) -> None:
        """``tags``: cleaned, so nothing in them needs an escape."""
        number = floatToGoString(value)  # type: ignore[no-untyped-call]
        self._lines[tags] = f"{self._format(*tags)}{number}\n"

    def drop(self, tags: tuple[str, ...]) -> None:
        self._lines.pop(tags, None)

    def render(self) -> str:
        return self._head + "".join(self._lines.values())


class LegacyMetrics:
    """All of them in ``registry``, save those that ``render`` tells. Tags' values come in the order of ``METRICS`` and
    are cleaned here.

    Raises ``KeyError`` for a metric that does not exist and ``ValueError`` for a wrong number of tags.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._collectors: dict[str, Any] = {}
        self._texts: dict[str, SeriesText] = {}
        for name, metric in METRICS.items():
            if "nodename" in metric.tags:
                self._texts[name] = SeriesText(metric)
            else:
                self._collectors[name] = _collector(metric, registry)

    def count(self, name: str, *tags: str) -> None:
        self._series(name, tags).inc()

    def observe(self, name: str, value: float, *tags: str) -> None:
        self._series(name, tags).observe(value)

    def set(self, name: str, value: float, *tags: str) -> None:
        if name in self._texts:
            self._texts[name].set(value, tuple(map(clean_tag, tags)))
        else:
            self._series(name, tags).set(value)

    def drop(self, name: str, *tags: str) -> None:
        """A series of a node that is not told of any more."""
        self._texts[name].drop(tuple(map(clean_tag, tags)))

    def render(self) -> bytes:
        """What is told of single nodes, to be put behind the registry's text."""
        return "".join(text.render() for text in self._texts.values()).encode()

    def replace(self, name: str, values: Iterable[tuple[tuple[str, ...], float]]) -> None:
        """Make these the only series of a gauge: what is not told of any more disappears."""
        self._collectors[name].clear()
        for tags, value in values:
            self.set(name, value, *tags)

    def _series(self, name: str, tags: tuple[str, ...]) -> Any:
        collector = self._collectors[name]
        if not tags and not METRICS[name].tags:
            return collector
        return collector.labels(*map(clean_tag, tags))


def _collector(metric: LegacyMetric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name = prometheus_name(PREFIX + metric.name)
    labels = [prometheus_name(tag) for tag in metric.tags]
    match metric.kind:
        case Kind.COUNTER:
            return Counter(name, metric.help, labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(name, metric.help, labels, registry=registry)
        case Kind.HISTOGRAM:
            return Histogram(name, metric.help, labels, registry=registry, buckets=metric.buckets)
