"""What calling pods back takes beside the writes of the outbox: asking drivers what would be lost, and counting."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from muster.control import facts
from muster.control.executor_losses import ExecutorLosses, Losses
from muster.control.metrics import Metrics
from muster.kube import objects as k
from muster.scheduling.decisions import Appraise, Decision, Evict
from muster.scheduling.events import LossesKnown
from muster.scheduling.model import ApplicationKey

_log = structlog.get_logger("muster.pressure")


class CallingBack:
    """Sees drivers and decisions; ``tell`` takes what drivers answered."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float], tell: Callable[[LossesKnown], None]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._tell = tell
        self._losses = ExecutorLosses(self._known, clock)
        self._addresses: dict[ApplicationKey, tuple[str, int]] = {}
        """Where the UI of each running driver is."""

    def driver_seen(self, key: ApplicationKey, driver: k.Pod) -> None:
        if driver.status.pod_ip and not facts.has_ended(driver):
            self._addresses[key] = (driver.status.pod_ip, facts.ui_port_of(driver))

    def driver_gone(self, key: ApplicationKey) -> None:
        """It has ended, or does not exist any more."""
        self._addresses.pop(key, None)
        self._losses.forget(key)

    def decided(self, decision: Decision) -> None:
        """Count and log an eviction; ask a driver where the scheduler wants to know."""
        if isinstance(decision, Evict):
            self._metrics.evictions.labels(decision.reason).inc()
            self._metrics.evicted_core_seconds.labels(decision.reason).inc(decision.core_seconds)
            _log.info(
                "called back",
                application=decision.key,
                pod=decision.pod.name,
                reason=decision.reason,
                grace=decision.grace_seconds,
                core_seconds=round(decision.core_seconds),
            )
        elif isinstance(decision, Appraise) and decision.key in self._addresses:
            self._losses.ask(decision.key, *self._addresses[decision.key])

    async def close(self) -> None:
        await self._losses.close()

    def _known(self, key: ApplicationKey, losses: Losses) -> None:
        self._tell(LossesKnown(self._clock(), key, losses))
