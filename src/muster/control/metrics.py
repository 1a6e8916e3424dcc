"""Prometheus metrics of the service: bounded label sets, and no series per node, pod or application."""

from __future__ import annotations

import gc
import time
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_CALLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SLOW = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All of them in one registry of their own, so that two services can live in one test process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        ProcessCollector(registry=r)
        self.admission_seconds = Histogram(
            "muster_admission_seconds", "Time to answer an admission review", ["role"], buckets=_FAST, registry=r
        )
        self.admissions = Counter(
            "muster_admissions_total", "Admission reviews by answer", ["role", "answer"], registry=r
        )
        self.bad_reviews = Counter(
            "muster_bad_reviews_total", "Posts to the webhook that were no admission review of a pod", registry=r
        )
        self.event_seconds = Histogram(
            "muster_scheduler_event_seconds",
            "Time the scheduler took for one event",
            ["event"],
            buckets=_FAST,
            registry=r,
        )
        self.decisions = Counter("muster_decisions_total", "Decisions of the scheduler", ["decision"], registry=r)
        self.gangs = Gauge("muster_gangs", "Applications by phase", ["phase"], registry=r)
        self.held = Gauge("muster_held_executors", "Executors that wait behind the scheduling gate", registry=r)
        self.oldest_waiting_seconds = Gauge(
            "muster_oldest_waiting_gang_seconds", "Age of the driver that has waited longest; 0: none waits", registry=r
        )
        self.gang_wait_seconds = Histogram(
            "muster_gang_wait_seconds", "Driver pod created to gang reserved", buckets=_SLOW, registry=r
        )
        self.minimum_seconds = Histogram(
            "muster_minimum_reached_seconds",
            "Driver pod created to all minimum executors bound",
            buckets=_SLOW,
            registry=r,
        )
        self.api_requests = Counter(
            "muster_api_requests_total", "Requests to the API server", ["verb", "resource", "code"], registry=r
        )
        self.api_seconds = Histogram(
            "muster_api_request_seconds",
            "Until the API server's answer was complete",
            ["verb"],
            buckets=_CALLS,
            registry=r,
        )
        self.evictions = Counter(
            "muster_evictions_total", "Pods called back for an application that waited", ["reason"], registry=r
        )
        self.evicted_core_seconds = Counter(
            "muster_evicted_core_seconds_total", "Work lost with called back pods, at most", ["reason"], registry=r
        )
        self.outbox_pending = Gauge("muster_outbox_applications", "Applications with writes under way", registry=r)
        self.outbox_retries = Counter("muster_outbox_retries_total", "Writes that had to be tried again", registry=r)
        self.history_written = Counter(
            "muster_history_written_total", "Finished applications and samples written to the history", registry=r
        )
        self.history_dropped = Counter(
            "muster_history_dropped_total", "Entries of the history that were lost: it could not be written", registry=r
        )
        self.queues_config_ok = Gauge(
            "muster_queues_config_ok",
            "1 while queues.yaml and all Queue objects are in force as they are written",
            registry=r,
        )
        self.queues_config_ok.set(1)
        self.leader = Gauge("muster_leader", "1 while this replica decides", registry=r)
        self.synced = Gauge("muster_synced", "1 while the cluster's state is known", registry=r)
        self.webhook_registered = Gauge(
            "muster_webhook_registered",
            "1 while the MutatingWebhookConfiguration is there and trusts this replica's certificate",
            registry=r,
        )
        self.certificate_expiry = Gauge(
            "muster_certificate_expiry_timestamp_seconds",
            "Unix time at which the webhook's serving certificate ends",
            registry=r,
        )
        self.loop_lag_seconds = Histogram(
            "muster_event_loop_lag_seconds", "How late a timer of the event loop fired", buckets=_FAST, registry=r
        )
        self.gc_pause_seconds = Histogram(
            "muster_gc_pause_seconds", "Pauses of Python's cyclic garbage collector", buckets=_FAST, registry=r
        )
        self._gc_started = 0.0
        self._reviewed: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._event_seconds: dict[str, Histogram] = {}
        self._decisions: dict[str, Counter] = {}
        info = Gauge("muster_build_info", "1; the version is in the label", ["version"], registry=r)
        info.labels(version("spark-muster")).set(1)

    def reviewed(self, role: str, answer: str, seconds: float) -> None:
        """One admission review was answered."""
        of_kind = self._reviewed.get((role, answer))
        if of_kind is None:  # looking labels up costs more than observing
            of_kind = self.admissions.labels(role, answer), self.admission_seconds.labels(role)
            self._reviewed[role, answer] = of_kind
        count, took = of_kind
        count.inc()
        took.observe(seconds)

    def event_handled(self, event: str, seconds: float) -> None:
        """One event went through the scheduler."""
        of_event = self._event_seconds.get(event)
        if of_event is None:
            of_event = self._event_seconds[event] = self.event_seconds.labels(event)
        of_event.observe(seconds)

    def decided(self, decision: str) -> None:
        """The scheduler made one decision."""
        of_decision = self._decisions.get(decision)
        if of_decision is None:
            of_decision = self._decisions[decision] = self.decisions.labels(decision)
        of_decision.inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)

    def watch_gc(self) -> None:
        gc.callbacks.append(self._on_gc)

    def unwatch_gc(self) -> None:
        gc.callbacks.remove(self._on_gc)

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_started = time.perf_counter()
        else:
            self.gc_pause_seconds.observe(time.perf_counter() - self._gc_started)
