"""Carries the scheduler's decisions out: one lane per application, level-triggered, retried until it holds.

A lane keeps only the newest of each kind (reservation, status, release), so that a slow or absent API server delays
writes but never piles them up. Within a lane the reservation is durable before the driver is released. What a write
changed comes back through the watches as events; nothing is assumed here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from muster.scheduling.decisions import (
    Appraise,
    Condition,
    Decision,
    Demand,
    Evict,
    Place,
    Publish,
    ReleaseDriver,
    Reserve,
)
from muster.scheduling.model import Application, ApplicationKey, GangStatus, Phase, PodRef, Reservation

_log = structlog.get_logger("muster.outbox")

P = TypeVar("P")

STATUS_INTERVAL = 10.0
"""Seconds between two status writes of one gang while no milestone is reached: counts change with every executor."""
PENDING_GRACE = 1.0
"""Seconds an application may wait before a ``Gang`` is written for it: one that starts at once costs one write less."""
ENDING = 2.0
"""Seconds an ended application's executors get to go before its last status is written."""
NOT_NOW = 1.0
"""Seconds until a lane looks again if it may write: a renewal of the lease may be late, and nothing is lost yet."""
PLACES_AT_ONCE = 16
COURTESIES_AT_ONCE = 4
"""Writes under way at a time, over all lanes: of released and evicted pods; of statuses and Events, which can wait.

Each answer is work for the loop that answers admissions, and what is ready at once is worked off at once: thousands of
executors that were held while the watches were away must not make one long pause of it. Reservations and drivers go
first and are few: they have no limit.
"""


class Retry(Exception):
    """The write did not happen and may be tried again."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Gone(Exception):
    """The object the write was for no longer exists (or was replaced by another of its name)."""


class Writer(Protocol):
    """What the outbox needs of Kubernetes; each call raises ``Retry`` or ``Gone``."""

    async def write_gang(self, application: Application, reservation: Reservation | None) -> None:
        """Create the ``Gang`` or bring its spec to this reservation; idempotent."""

    async def write_invalid_gang(self, key: ApplicationKey, driver_pod: PodRef) -> None:
        """Create a ``Gang`` that only says which application it is for; idempotent."""

    async def write_status(self, key: ApplicationKey, status: GangStatus) -> None: ...

    async def delete_gang(self, key: ApplicationKey) -> None: ...

    async def release(self, pod: PodRef, key: ApplicationKey, node: str, extra: bool) -> None:
        """Take the gate off a pod, pinning it to ``node`` unless that is empty; done already is success."""

    async def evict(self, pod: PodRef, grace_seconds: float) -> None:
        """Delete this very pod, leaving it that much time to end; under way already is success."""

    async def publish(self, event: Publish) -> None: ...


class Backoff(Protocol):
    """Seconds to wait before attempt ``n`` (0-based); jitter included."""

    def __call__(self, attempt: int) -> float: ...


@dataclass
class _Lane:
    key: ApplicationKey
    application: Application | None = None
    driver_pod: PodRef | None = None
    reserve: Reserve | None = None
    release: ReleaseDriver | None = None
    status: GangStatus | None = None
    places: dict[PodRef, Place] = field(default_factory=dict)
    evictions: dict[PodRef, Evict] = field(default_factory=dict)
    events: list[Publish] = field(default_factory=list)
    created: bool = False
    durable_revision: int = -1
    status_written: GangStatus | None = None
    status_at: float = float("-inf")
    since: float = 0.0
    task: asyncio.Task[None] | None = None
    wake: asyncio.TimerHandle | None = None

    def reservation_due(self) -> bool:
        return self.reserve is not None and self.reserve.reservation.revision > self.durable_revision

    def status_wait(self, now: float) -> float | None:
        """Seconds until the status should be written; ``None`` when it is up to date."""
        if self.status is None or self.status == self.status_written:
            return None
        if self.status.phase is Phase.INVALID:
            return 0.0
        if self.status.phase is Phase.FINISHED:
            if self.status_written is not None and self.status_written.phase is Phase.FINISHED:
                return None  # its last executors may still go; nobody counts them any more
            ended = self.status.ended or 0.0
            return max(0.0, ended + ENDING - now) if self.status.running else 0.0
        if not self.created:
            return max(0.0, self.since + PENDING_GRACE - now) if self.status.phase is Phase.PENDING else None
        written = self.status_written
        if written is None and self.status.phase is Phase.PENDING:
            return 0.0
        if self.status.minimum_reached is not None and (written is None or written.minimum_reached is None):
            return 0.0  # what people wait for: the application runs with all of its minimum
        return max(0.0, self.status_at + STATUS_INTERVAL - now)

    def busy(self, now: float) -> bool:
        wait = self.status_wait(now)
        work = self.reservation_due() or self.release or self.places or self.evictions or self.events
        return bool(work or wait == 0.0)


class Outbox:
    """Decisions in (``push``), API writes out (through ``Writer``), each lane in its own task."""

    def __init__(
        self,
        writer: Writer,
        clock: Callable[[], float],
        backoff: Backoff,
        may_write: Callable[[], bool],
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._backoff = backoff
        self._may_write = may_write
        self._on_retry = on_retry
        self._lanes: dict[ApplicationKey, _Lane] = {}
        self._places = asyncio.Semaphore(PLACES_AT_ONCE)
        self._courtesies = asyncio.Semaphore(COURTESIES_AT_ONCE)
        self._closed = False

    def __len__(self) -> int:
        """Lanes with a write under way or waiting to be tried again."""
        return sum(1 for lane in self._lanes.values() if lane.task is not None)

    def restored(self, application: Application, revision: int) -> None:
        """Say which revision a ``Gang`` read at start already holds (-1: none), so that it is not written again."""
        lane = self._lane(application.key)
        lane.application, lane.created, lane.durable_revision = application, True, revision

    def found(self, application: Application) -> None:
        """Remember the application a later status is for."""
        lane = self._lane(application.key)
        if lane.created and lane.reserve is None and lane.application != application:
            lane.created = False  # it waits in another queue now: its Gang has to say so
        lane.application = application

    def push(self, decision: Decision) -> None:
        """Take over one decision; returns at once."""
        lane = self._lane(decision.key if not isinstance(decision, Reserve) else decision.application.key)
        match decision:
            case Reserve():
                lane.reserve, lane.application = decision, decision.application
                release = lane.release
                if release is not None and release.node and release.node != decision.reservation.driver_node:
                    lane.release = None  # of a reservation that is given up: the driver waits again
                lane.status = decision.status
            case ReleaseDriver():
                lane.release, lane.driver_pod = decision, decision.pod
            case Place():
                lane.places[decision.pod] = decision
            case Evict():
                lane.evictions[decision.pod] = decision
            case Condition():
                lane.status = decision.status
            case Publish():
                lane.events.append(decision)
            case Demand() | Appraise():
                return  # read by autoscalers from the scheduler itself; asked of the driver: nothing to write
        self._kick(lane)

    async def drain(self, timeout: float) -> bool:
        """Wait until every lane is idle; False when ``timeout`` seconds were not enough."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if not tasks:
            return True
        _, pending = await asyncio.wait(tasks, timeout=timeout)
        return not pending

    async def close(self) -> None:
        """Stop all lanes where they are; what was not written is found again by the next leader."""
        self._closed = True
        tasks = []
        for lane in self._lanes.values():
            if lane.wake is not None:
                lane.wake.cancel()
            if lane.task is not None:
                lane.task.cancel()
                tasks.append(lane.task)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lanes.clear()

    def _lane(self, key: ApplicationKey) -> _Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, since=self._clock())
        return lane

    def _kick(self, lane: _Lane) -> None:
        if lane.task is not None or self._closed:
            return
        if not self._may_write():
            self._look_again(lane, NOT_NOW)
        elif lane.busy(self._clock()):
            lane.task = asyncio.create_task(self._run(lane), name=f"outbox {lane.key}")
        else:
            self._rest(lane)  # most often a status that changed again before its time

    def _wake(self, lane: _Lane) -> None:
        lane.wake = None
        self._kick(lane)

    async def _run(self, lane: _Lane) -> None:
        attempt = 0
        try:
            while not self._closed and self._may_write() and lane.busy(self._clock()):
                try:
                    await self._step(lane)
                    attempt = 0
                except Retry as retry:
                    self._on_retry()
                    wait = max(self._backoff(attempt), retry.after or 0.0)
                    _log.warning("write failed", application=lane.key, error=str(retry), retry_in=round(wait, 2))
                    attempt += 1
                    await asyncio.sleep(wait)
        finally:
            lane.task = None
        if self._closed:
            return
        if self._may_write():
            self._rest(lane)
        else:
            self._look_again(lane, NOT_NOW)

    def _rest(self, lane: _Lane) -> None:
        """Nothing to do now: forget a finished lane, or wake when the next status is due."""
        written = lane.status_written
        if written is not None and written.phase is Phase.FINISHED:
            if not (lane.places or lane.release or lane.evictions or lane.events):
                self._lanes.pop(lane.key, None)
            return
        wait = lane.status_wait(self._clock())
        if wait is None:
            return
        self._look_again(lane, max(wait, 0.01))

    def _look_again(self, lane: _Lane, wait: float) -> None:
        """Look at the lane in ``wait`` seconds, or earlier if it is to be looked at earlier anyway."""
        loop = asyncio.get_running_loop()
        due = loop.time() + wait
        if lane.wake is not None:
            if lane.wake.when() <= due:
                return  # it looks again then
            lane.wake.cancel()
        lane.wake = loop.call_at(due, self._wake, lane)

    async def _step(self, lane: _Lane) -> None:
        if lane.reservation_due():
            await self._reserve(lane)
        elif lane.release is not None:
            await self._release(lane, lane.release)
        elif lane.places:
            await self._place(lane)
        elif lane.evictions:
            await self._evict(lane)
        elif lane.events:
            await self._attempt(self._writer.publish(lane.events[0]), self._courtesies)
            del lane.events[0]
        else:
            await self._status(lane)

    async def _reserve(self, lane: _Lane) -> None:
        reserve = lane.reserve
        assert reserve is not None
        await self._attempt(self._writer.write_gang(reserve.application, reserve.reservation))
        lane.created = True
        lane.durable_revision = reserve.reservation.revision
        if lane.status_at == float("-inf"):
            lane.status_at = self._clock()

    async def _release(self, lane: _Lane, release: ReleaseDriver) -> None:
        await self._attempt(self._writer.release(release.pod, release.key, release.node, extra=False))
        if lane.release is release:
            lane.release = None

    async def _place(self, lane: _Lane) -> None:
        await self._many(lane.places, lambda place: self._release_executor(lane, place))

    async def _evict(self, lane: _Lane) -> None:
        await self._many(lane.evictions, lambda evict: self._writer.evict(evict.pod, evict.grace_seconds))

    async def _many(self, waiting: dict[PodRef, P], write: Callable[[P], Coroutine[Any, Any, None]]) -> None:
        """Some of the writes for single pods, together; those that hold are done with. Raises as one of them did."""
        batch = [(pod, waiting[pod]) for pod in list(waiting)[:PLACES_AT_ONCE]]
        results = await asyncio.gather(
            *(self._attempt(write(what), self._places) for _, what in batch), return_exceptions=True
        )
        failure: BaseException | None = None
        for (pod, what), result in zip(batch, results, strict=True):
            if result is not None:
                failure = result
            elif waiting.get(pod) is what:
                del waiting[pod]
        if failure is not None:
            raise failure

    async def _release_executor(self, lane: _Lane, place: Place) -> None:
        if lane.places.get(place.pod) is place:  # it may have waited for its turn, and been decided anew
            await self._writer.release(place.pod, place.key, place.node, place.extra)

    async def _status(self, lane: _Lane) -> None:
        status = lane.status
        if status is None:
            return
        if not lane.created:
            await self._create_for_status(lane, status)
        finished = status.phase is Phase.FINISHED
        if finished and lane.application is not None and lane.application.driver_pod is None:
            # Client mode: no driver pod owns the Gang, so nothing but Muster would ever remove it.
            await self._attempt(self._writer.delete_gang(lane.key))
        elif lane.created:
            await self._attempt(self._writer.write_status(lane.key, status), self._courtesies)
        lane.status_written, lane.status_at = status, self._clock()

    async def _create_for_status(self, lane: _Lane, status: GangStatus) -> None:
        if status.phase is Phase.INVALID and lane.driver_pod is not None:
            await self._attempt(self._writer.write_invalid_gang(lane.key, lane.driver_pod))
            lane.created = True
        elif lane.application is not None and status.phase is not Phase.FINISHED:
            await self._attempt(self._writer.write_gang(lane.application, None))
            lane.created = True

    async def _attempt(self, write: Coroutine[Any, Any, None], turns: asyncio.Semaphore | None = None) -> None:
        """One write, in its turn; an object that is gone needs it no more. Raises ``Retry``."""
        try:
            async with turns or contextlib.nullcontext():
                if turns is not None and not self._may_write():
                    raise Retry("another replica leads now")  # the lease may have gone while this one waited
                await write
        except Gone as gone:
            _log.info("write no longer needed", reason=str(gone))
        finally:
            write.close()
