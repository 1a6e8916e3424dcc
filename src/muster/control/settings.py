"""From ``muster.yaml`` to the configuration that the scheduler and the certificates have of their own."""

from __future__ import annotations

from datetime import timedelta

from muster.cluster import ordering
from muster.control import config
from muster.control.executor_losses import ASK_SECONDS
from muster.kube.certificates import CertificateLifetimes
from muster.packing import PACKERS
from muster.scheduling.config import PressureConfig, SchedulerConfig

_SETTLING_CHECKS = 4


def scheduler_config(settings: config.Scheduling) -> SchedulerConfig:
    """Raises ``ConfigError`` for a packer that does not exist."""
    if settings.packer not in PACKERS:
        raise config.ConfigError(f"scheduling.packer = {settings.packer!r}: allowed are {', '.join(sorted(PACKERS))}")
    seconds = config.parse_duration
    return SchedulerConfig(
        packer=settings.packer,
        driver_priority=_priority(settings.driver_priority),
        executor_priority=_priority(settings.executor_priority),
        fifo=settings.fifo,
        enforce_after=seconds(settings.enforce_after),
        enforce_after_by_pool={pool: seconds(text) for pool, text in settings.enforce_after_by_pool.items()},
        pool_label=settings.pool_label,
        placement_expiry=seconds(settings.placement_expiry),
        bind_enabled=settings.bind,
        backfill=settings.backfill,
        backfill_depth=settings.backfill_depth,
        pressure=PressureConfig(
            enabled=settings.pressure.enabled,
            after=seconds(settings.pressure.after),
            interval=seconds(settings.pressure.interval),
            grace=seconds(settings.pressure.grace),
            round_limit=settings.pressure.round_limit,
            loss_wait=ASK_SECONDS if settings.pressure.ask_drivers else 0.0,
        ),
    )


def certificate_lifetimes(settings: config.Certificates) -> CertificateLifetimes:
    """Of our own certificates; a new authority settles for four checks, in which every replica and API server learns
    of it. Raises ``ConfigError`` when the durations do not go together."""
    lifetime, authority, check = (
        timedelta(seconds=config.parse_duration(text))
        for text in (settings.lifetime, settings.authority_lifetime, settings.check_interval)
    )
    try:
        return CertificateLifetimes(authority, lifetime, settling=_SETTLING_CHECKS * check)
    except ValueError:
        raise config.ConfigError(
            f"webhook.certificates: checkInterval = {settings.check_interval}, lifetime = {settings.lifetime}, "
            f"authorityLifetime = {settings.authority_lifetime}: the lifetime must be longer than "
            f"{3 * _SETTLING_CHECKS} check intervals, and not longer than the authority's"
        ) from None


def _priority(priority: config.LabelPriority | None) -> ordering.LabelPriority | None:
    return None if priority is None else ordering.LabelPriority(priority.label, priority.values)
