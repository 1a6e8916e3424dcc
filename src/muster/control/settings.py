"""From ``muster.yaml`` to the scheduler's own configuration."""

from __future__ import annotations

from muster.cluster import ordering
from muster.control import config
from muster.packing import PACKERS
from muster.scheduling.config import SchedulerConfig


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
    )


def _priority(priority: config.LabelPriority | None) -> ordering.LabelPriority | None:
    return None if priority is None else ordering.LabelPriority(priority.label, priority.values)
