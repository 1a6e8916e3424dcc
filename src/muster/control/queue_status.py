"""The status of ``Queue`` objects: what a queue holds, who waits, and whether its newest version is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec
import structlog

from muster.control.queue_feed import QueueFeed
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.objects import Condition
from muster.kube.resources import QUEUES, Queue, QueueStatus
from muster.kube.timestamps import format_time
from muster.scheduling.queue_report import QueueReport

_log = structlog.get_logger("muster.queues")

INTERVAL = 10.0
"""Seconds between two looks at what queues hold; whether they are accepted is written at once."""
LOOK = 1.0
WRITES_PER_LOOK = 20
"""So that hundreds of queues that all change take a while, and not the API server's attention."""
ACCEPTED = "Accepted"


class QueueStatusWriter:
    """Writes what has changed, while ``may_write``."""

    def __init__(
        self,
        client: Client,
        feed: QueueFeed,
        reports: Callable[[], Iterable[QueueReport]],
        may_write: Callable[[], bool],
        clock: Callable[[], float],
        interval: float = INTERVAL,
    ) -> None:
        self._client = client
        self._feed = feed
        self._reports = reports
        self._may_write = may_write
        self._clock = clock
        self._interval = interval
        self._written: dict[str, QueueStatus] = {}

    async def run(self) -> None:
        """Until cancelled."""
        told, due, left = None, 0.0, False
        loop = asyncio.get_running_loop()
        while True:
            generations = {name: queue.metadata.generation for name, queue in self._feed.objects.items()}
            news = (self._feed.acceptance, generations)
            if left or told != news or loop.time() >= due:
                if not left:
                    due = loop.time() + self._interval
                told = news
                left = await self._write_changed()
            await asyncio.sleep(LOOK)

    async def _write_changed(self) -> bool:
        """Whether some are left for the next look."""
        reports = {report.name: report for report in self._reports()}
        now = self._clock()
        writes = 0
        for name, queue in sorted(self._feed.objects.items()):
            before = self._written.get(name, queue.status)
            accepted = self._accepted(queue, before, now)
            status = status_of(before, reports.get(name), accepted)
            if status == before:
                continue
            if writes == WRITES_PER_LOOK or not self._may_write():
                return True
            writes += 1
            await self._write(name, status)
        for gone in self._written.keys() - self._feed.objects.keys():
            del self._written[gone]
        return False

    def _accepted(self, queue: Queue, before: QueueStatus, now: float) -> Condition:
        name = queue.metadata.name
        problem = self._feed.acceptance.problems.get(name, "")
        stays = name in self._feed.acceptance.queues
        instead = "the version before stays in force" if stays else "there is no such queue until it is mended"
        status = "False" if problem else "True"
        return Condition(
            type=ACCEPTED,
            status=status,
            reason="Invalid" if problem else "Accepted",
            message=f"{problem}; {instead}" if problem else "in force as it is written",
            last_transition_time=_since(before, status) or format_time(now),
            observed_generation=queue.metadata.generation,
        )

    async def _write(self, name: str, status: QueueStatus) -> None:
        # as a whole: merged, what is no longer used would stay
        patch = [{"op": "add", "path": "/status", "value": msgspec.to_builtins(status)}]
        try:
            await self._client.patch(QUEUES, name, patch, subresource="status", patch_type=PatchType.JSON)
        except ApiError as error:
            if not error.not_found:
                _log.warning("status of queue not written", queue=name, error=str(error))
        else:
            self._written[name] = status


def status_of(before: QueueStatus, report: QueueReport | None, accepted: Condition) -> QueueStatus:
    """What there is to say of a queue; ``report`` is ``None`` for one of which no version is in force."""
    others = tuple(one for one in before.conditions if one.type != accepted.type)
    return QueueStatus(
        waiting=report.waiting if report else 0,
        running=report.running if report else 0,
        used=dict(report.used) if report else {},
        conditions=(*others, accepted),
    )


def _since(before: QueueStatus, status: str) -> str | None:
    """Since when the condition has this status; ``None`` when it had another one."""
    for condition in before.conditions:
        if condition.type == ACCEPTED and condition.status == status:
            return condition.last_transition_time
    return None
