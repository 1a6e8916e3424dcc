"""``install.yml``: the archived scheduler's own configuration file, as it is.

What it read silently wrong is an error here: unknown keys, an unknown ``binpack`` (there: ``distribute-evenly``), a
duration that does not parse. Keys that have no effect any more are accepted, each with a warning that says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from muster.cluster.ordering import LabelPriority
from muster.control.documents import ConfigError, convert, read_document
from muster.control.extender.pods import DEFAULT_INSTANCE_GROUP_LABEL
from muster.control.extender.write_back import MAX_RETRIES
from muster.packing import PACKERS
from muster.scheduling.config import SchedulerConfig

DEFAULT_BINPACK = "distribute-evenly"
DEFAULT_UNSCHEDULABLE_SECONDS = 600.0

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+", re.ASCII)
_SECRETS = ("health-checks.shared-secret",)
_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "error", "fatal": "error"}

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Duration = str | int
"""Text in Go's notation, or nanoseconds, as Go's YAML reads them."""


def parse_go_duration(value: Duration) -> float:
    """Seconds from ``1h2m3.5s``, ``300ms``, ``-5s`` or ``0`` (Go ``time.ParseDuration``), or from nanoseconds.

    Raises:
        ConfigError: neither of them.
    """
    if isinstance(value, int):
        return value * 1e-9
    if value in ("0", "+0", "-0"):
        return 0.0
    if not _DURATION.fullmatch(value):
        raise ConfigError(f"{value!r} is no duration; expected for example 300ms, 30s, 5m or 1h2m3.5s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    return -seconds if value.startswith("-") else seconds


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Strict, kebab-case."""


class Server(_Section, frozen=True):
    address: str = ""
    """Empty: every address of the machine."""
    port: Port = 8483
    management_port: Port = 0
    """0, or the same as ``port``: the status endpoints are on ``port``."""
    context_path: str = ""
    """Before every path of ``port``: ``/spark-scheduler``."""
    cert_file: str = ""
    key_file: str = ""
    client_ca_files: tuple[str, ...] = ()
    """The first is the CA that the conversion webhook is verified against; clients' certificates are checked against
    all of them."""
    require_client_certificates: bool = False
    """Refuse filter calls without a client certificate. The archived scheduler had no such key."""


class Logging(_Section, frozen=True):
    level: str = "info"
    output: str = ""


class HealthChecks(_Section, frozen=True):
    shared_secret: str = ""

    def __repr__(self) -> str:
        return f"HealthChecks(shared_secret={'…' if self.shared_secret else ''!r})"


class FifoConfig(_Section, frozen=True):
    default_enforce_after_pod_age: Duration = 0
    """An older driver that does not fit lets younger ones pass until it is this old."""
    enforce_after_pod_age_by_instance_group: dict[str, Duration] = msgspec.field(default_factory=dict)


class AsyncClientConfig(_Section, frozen=True):
    max_retry_count: Annotated[int, msgspec.Meta(ge=0)] = MAX_RETRIES
    """Quick retries of a write; afterwards it is tried every half minute, and never dropped."""


class PrioritizedLabel(_Section, frozen=True):
    label_name: str
    label_values_descending_priority: tuple[str, ...] = ()


class WebhookService(_Section, frozen=True):
    """The Service through which the API server reaches ``/convert``."""

    namespace: str = ""
    service_name: str = ""
    service_port: Port = 0
    context_path: str = ""


class Install(_Section, frozen=True):
    """The whole of ``install.yml``."""

    server: Server = Server()
    kube_config: str = ""
    """Path; empty means in-cluster."""
    fifo: bool = False
    fifo_config: FifoConfig = FifoConfig()
    qps: float = 0.0
    burst: int = 0
    binpack: str = DEFAULT_BINPACK
    should_schedule_dynamically_allocated_executors_in_same_az: bool = False
    instance_group_label: str = DEFAULT_INSTANCE_GROUP_LABEL
    async_client_config: AsyncClientConfig = AsyncClientConfig()
    unschedulable_pod_timeout_duration: Duration = "10m"
    driver_prioritized_node_label: PrioritizedLabel | None = None
    executor_prioritized_node_label: PrioritizedLabel | None = None
    resource_reservation_crd_annotations: dict[str, str] = msgspec.field(default_factory=dict)
    webhook_service_config: WebhookService = WebhookService()
    logging: Logging = Logging()
    health_checks: HealthChecks = HealthChecks()
    product_name: str = ""
    product_version: str = ""
    metrics_emit_frequency: Duration = "60s"
    trace_sample_rate: float | None = None
    management_trace_sample_rate: float | None = None
    use_console_log: bool = False
    use_wrapped_logs: bool = False
    use_experimental_host_priorities: bool = False

    @property
    def unschedulable_after(self) -> float:
        """Seconds a driver waits before it is asked whether it could ever fit; 0 and less mean the default."""
        seconds = parse_go_duration(self.unschedulable_pod_timeout_duration)
        return seconds if seconds > 0 else DEFAULT_UNSCHEDULABLE_SECONDS

    @property
    def log_level(self) -> Literal["debug", "info", "warning", "error"]:
        return _LEVELS[self.logging.level.lower()]  # type: ignore[return-value]

    @property
    def has_webhook(self) -> bool:
        """Whether the API server can be told where ``/convert`` is."""
        return bool(self.webhook_service_config.service_name)


class Loaded(msgspec.Struct, frozen=True):
    install: Install
    warnings: tuple[str, ...] = ()
    """Of keys that are set and have no effect: key, and why."""


def load(path: Path) -> Loaded:
    """Read an ``install.yml``. Raises ``ConfigError``."""
    return parse(read_document(path), str(path))


def parse(document: Mapping[str, Any], source: str) -> Loaded:
    """The configuration in ``document``; ``source`` names it in errors.

    Raises:
        ConfigError: an unknown key, a value that cannot be, or parts that do not go together.
    """
    # Go has no difference between an absent key, one without a value, and an empty text
    present = {key: value for key, value in _without_nulls(document).items() if value != ""}
    install = convert(present, Install, source, _SECRETS)
    for problem in _problems(install):
        raise ConfigError(f"{source}: {problem}")
    return Loaded(install, tuple(f"{source}: {key} has no effect: {why}" for key, why in _ineffective(present)))


def scheduler_config(install: Install) -> SchedulerConfig:
    """What of it concerns the one scheduler. In this mode kube-scheduler binds, never a pod's creation."""
    fifo = install.fifo_config
    return SchedulerConfig(
        packer=install.binpack,
        driver_priority=_priority(install.driver_prioritized_node_label),
        executor_priority=_priority(install.executor_prioritized_node_label),
        fifo=install.fifo,
        enforce_after=parse_go_duration(fifo.default_enforce_after_pod_age),
        enforce_after_by_pool={
            group: parse_go_duration(age) for group, age in fifo.enforce_after_pod_age_by_instance_group.items()
        },
        pool_label=install.instance_group_label,
        bind_enabled=False,
        asked=True,
    )


def _priority(label: PrioritizedLabel | None) -> LabelPriority | None:
    return LabelPriority(label.label_name, label.label_values_descending_priority) if label is not None else None


def _problems(install: Install) -> Iterator[str]:
    if install.binpack not in PACKERS:
        yield f"binpack = {install.binpack!r}: allowed are {', '.join(sorted(PACKERS))}"
    if install.logging.level.lower() not in _LEVELS:
        yield f"logging.level = {install.logging.level!r}: allowed are {', '.join(_LEVELS)}"
    for key, value in _durations(install):
        try:
            seconds = parse_go_duration(value)
        except ConfigError as error:
            yield f"{key} = {error}"
        else:
            if seconds < 0 and key.startswith("fifo-config"):
                yield f"{key} = {value!r}: an age cannot be negative"
    for key, path in (("cert-file", install.server.cert_file), ("key-file", install.server.key_file)):
        if not path:
            yield f"server.{key} is missing: the extender serves HTTPS only; give the path of a PEM file"
    if install.server.context_path and not install.server.context_path.startswith("/"):
        yield f"server.context-path = {install.server.context_path!r}: expected a path such as /spark-scheduler"
    if install.server.require_client_certificates and not install.server.client_ca_files:
        yield "server.require-client-certificates needs server.client-ca-files: the CAs that sign them"
    if install.has_webhook and not install.server.client_ca_files:
        yield (
            "server.client-ca-files is empty, and webhook-service-config names a service: give the PEM file of the CA "
            "that signed server.cert-file, else the API server cannot verify the conversion webhook"
        )


def _durations(install: Install) -> Iterator[tuple[str, Duration]]:
    fifo = install.fifo_config
    yield "unschedulable-pod-timeout-duration", install.unschedulable_pod_timeout_duration
    yield "metrics-emit-frequency", install.metrics_emit_frequency
    yield "fifo-config.default-enforce-after-pod-age", fifo.default_enforce_after_pod_age
    for group, age in fifo.enforce_after_pod_age_by_instance_group.items():
        yield f"fifo-config.enforce-after-pod-age-by-instance-group.{group}", age


INEFFECTIVE = {
    "use-experimental-host-priorities": "it was deprecated and ignored in the archived scheduler too",
    "qps": "requests are not throttled here; the API server's priority and fairness does that",
    "burst": "requests are not throttled here; the API server's priority and fairness does that",
    "product-name": "nothing is named after it",
    "product-version": "nothing is named after it",
    "metrics-emit-frequency": "metrics are scraped from /metrics of the management port, not written to the log",
    "trace-sample-rate": "there are no traces",
    "management-trace-sample-rate": "there are no traces",
    "use-console-log": "logs always go to standard error",
    "use-wrapped-logs": "logs are one JSON object a line",
    "logging.output": "logs always go to standard error",
    "webhook-service-config.context-path": "the path is server.context-path and /convert",
}
"""Keys that are accepted and do nothing, and why."""


def _ineffective(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, why in INEFFECTIVE.items():
        section, _, name = key.rpartition(".")
        if name in (document.get(section, {}) if section else document):
            yield key, why


def _without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in document.items()
        if value is not None
    }
