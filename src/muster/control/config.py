"""``muster.yaml``: the configuration of ``muster serve``. Unknown keys and values are errors that name themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from muster.control.documents import ConfigError as ConfigError
from muster.control.documents import convert, read_document

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds from ``1h2m3.5s`` (Go's style, as Kubernetes configuration uses it)."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ConfigError(f"{text!r} is no duration; expected for example 30s, 5m or 1h30m")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)


Duration = Annotated[str, msgspec.Meta(description="for example 30s, 5m, 1h30m")]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Strict, camelCase, as Kubernetes configuration files are."""


class Kubernetes(_Section, frozen=True):
    """Where the API server is; empty means in-cluster, else the usual kubeconfig."""

    kubeconfig: str = ""
    context: str = ""


class Certificates(_Section, frozen=True):
    """What the webhook is served with: files that somebody else keeps, or else certificates of our own in a Secret."""

    cert_file: str = ""
    """PEM, as in a mounted Secret of cert-manager (``tls.crt``); with ``keyFile``."""
    key_file: str = ""
    ca_file: str = ""
    """With the files: what to register as ``caBundle``. Empty leaves that to others (cert-manager's CA injector)."""
    lifetime: Duration = "8760h"
    """Of our own serving certificate; renewed when two thirds of it have passed, as the authority is."""
    authority_lifetime: Duration = "87600h"
    check_interval: Duration = "30s"
    """How often a replica looks for a newer certificate, and whether the webhook is registered as it should be."""


class Webhook(_Section, frozen=True):
    """The admission webhook's listener, and how the API server reaches it."""

    host: str = "127.0.0.1"
    port: Port = 8443
    url: str = ""
    """Set outside the cluster: the API server calls this URL instead of a Service."""
    service: str = "muster"
    registration: Literal["create", "ca-bundle", "none"] = "create"
    """Of the MutatingWebhookConfiguration: ``create`` writes all of it (outside a cluster); ``ca-bundle`` writes our CA
    into the one that was installed, and never brings an uninstalled one back; ``none`` leaves it to somebody else,
    such as cert-manager's CA injector."""
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=30)] = 5
    certificates: Certificates = Certificates()
    shutdown_delay: Duration = "0s"
    """How long a stopping replica still answers (executors are held): until the Service sends it no more reviews."""


class Management(_Section, frozen=True):
    """Health, metrics and the read API: plain HTTP, loopback unless told otherwise."""

    host: str = "127.0.0.1"
    port: Port = 8484


class LabelPriority(_Section, frozen=True):
    """Nodes with an earlier value of this label come first."""

    label: str
    values: tuple[str, ...]


class Pressure(_Section, frozen=True):
    """Room that was lent to executors above a minimum is taken back for an application that waits."""

    enabled: bool = True
    after: Duration = "10s"
    """An application must have waited as long."""
    interval: Duration = "30s"
    """Nothing more is taken back for the same one before that."""
    grace: Duration = "60s"
    """Executors get as long to hand on their data, unless their own ``terminationGracePeriodSeconds`` is longer."""
    round_limit: Annotated[int, msgspec.Meta(ge=0)] = 1
    """The most whole applications that are preempted for one that waits, at a time, where their queues allow it."""
    ask_drivers: bool = True
    """Drivers are asked what their executors keep, over Spark's REST API; False: only their age counts."""


class Scheduling(_Section, frozen=True):
    packer: str = "tightly-pack"
    fifo: bool = True
    enforce_after: Duration = "0s"
    """A waiting gang blocks younger ones of its pool from this age on; 0s: always."""
    enforce_after_by_pool: dict[str, Duration] = {}
    pool_label: str = "muster.dev/pool"
    driver_priority: LabelPriority | None = None
    executor_priority: LabelPriority | None = None
    placement_expiry: Duration = "30s"
    backfill: bool = True
    """Others may start before the first that waits for room, if that one starts no later for it."""
    backfill_depth: Annotated[int, msgspec.Meta(ge=0)] = 100
    """Most applications behind it that are tried for that at a time."""
    pressure: Pressure = Pressure()
    max_pending_executors: Annotated[int, msgspec.Meta(ge=0)] = 1000
    """What drivers get as ``spark.kubernetes.allocation.maxPendingPods`` unless their own configuration sets it, so
    that executors which wait for room do not pile up; 0 leaves them alone."""
    scheduler_names: tuple[str, ...] = ("default-scheduler",)
    """Spark pods of other schedulers (``spec.schedulerName``) are left alone; they only count as used room."""
    bind: bool = True
    """False: executors are pinned and kube-scheduler binds them; nothing is born bound."""


class Sizes(_Section, frozen=True):
    config_map_timeout: Duration = "60s"


class History(_Section, frozen=True):
    """Finished applications, kept by the replica that led when they ended: ``muster history``, run-time estimates."""

    path: str = ""
    """SQLite file on a local disk; its folder is made. Empty: no history."""
    peers: str = ""
    """URL of the management port of all replicas: what the others have recorded is copied. Empty: nothing is."""
    keep_days: Annotated[int, msgspec.Meta(ge=1)] = 90
    keep_applications: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    """The oldest go when there are more, or when they are older; 1 to 4 kB each."""


class Queues(_Section, frozen=True):
    """Where queues are configured besides ``Queue`` objects, and who may submit for others."""

    file: str = ""
    """``queues.yaml``; read again when it changes. If it does not exist it says nothing. Empty: no file."""
    check_interval: Duration = "5s"
    trusted: tuple[str, ...] = ()
    """Users whose drivers may name another user in ``muster.dev/user``, such as an operator's service account:
    ``system:serviceaccount:NAMESPACE:NAME``. Whoever may tell such a one what to write can claim to be anybody."""


class Lease(_Section, frozen=True):
    """Leader election; one of several replicas decides."""

    name: str = "muster"
    duration: Duration = "15s"
    renew_deadline: Duration = "10s"
    retry_period: Duration = "2s"


class Logging(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class ServeConfig(_Section, frozen=True):
    """The whole of ``muster.yaml``; every key has a default."""

    namespace: str = "muster-system"
    """Muster's own namespace: lease, certificate, events about itself."""
    kubernetes: Kubernetes = Kubernetes()
    webhook: Webhook = Webhook()
    management: Management = Management()
    scheduling: Scheduling = Scheduling()
    sizes: Sizes = Sizes()
    queues: Queues = Queues()
    lease: Lease = Lease()
    history: History = History()
    logging: Logging = Logging()
    validate: bool = False
    """Check the invariants after every event; for tests and debugging."""


def parse(document: Mapping[str, Any], source: str) -> ServeConfig:
    """The configuration in ``document``; ``source`` names it in errors."""
    config = convert(document, ServeConfig, source)
    for path, text in _durations(config):
        try:
            parse_duration(text)
        except ConfigError as error:
            raise ConfigError(f"{source}: {path}: {error}") from None
    return config


def load(path: Path | None) -> ServeConfig:
    """Read a ``muster.yaml``; ``None`` gives the defaults."""
    return ServeConfig() if path is None else parse(read_document(path), str(path))


def read(path: Path) -> dict[str, Any]:
    """The keys of a ``muster.yaml`` as they are written, checked as ``load`` does."""
    document = read_document(path)
    parse(document, str(path))
    return document


def _durations(config: ServeConfig) -> list[tuple[str, str]]:
    scheduling, lease, certificates = config.scheduling, config.lease, config.webhook.certificates
    return [
        ("webhook.certificates.lifetime", certificates.lifetime),
        ("webhook.certificates.authorityLifetime", certificates.authority_lifetime),
        ("webhook.certificates.checkInterval", certificates.check_interval),
        ("webhook.shutdownDelay", config.webhook.shutdown_delay),
        ("scheduling.enforceAfter", scheduling.enforce_after),
        ("scheduling.placementExpiry", scheduling.placement_expiry),
        ("scheduling.pressure.after", scheduling.pressure.after),
        ("scheduling.pressure.interval", scheduling.pressure.interval),
        ("scheduling.pressure.grace", scheduling.pressure.grace),
        *((f"scheduling.enforceAfterByPool.{pool}", text) for pool, text in scheduling.enforce_after_by_pool.items()),
        ("sizes.configMapTimeout", config.sizes.config_map_timeout),
        ("queues.checkInterval", config.queues.check_interval),
        ("lease.duration", lease.duration),
        ("lease.renewDeadline", lease.renew_deadline),
        ("lease.retryPeriod", lease.retry_period),
    ]
