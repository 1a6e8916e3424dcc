"""One term of leadership: rebuild the scheduler from the API, feed it what happens, carry out what it decides.

Everything here runs on one event loop and never blocks it; the scheduler is only ever called from this loop.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

import structlog

from muster.cluster.quantity import QuantityError
from muster.control import facts, gangs
from muster.control.calling_back import CallingBack
from muster.control.config import ServeConfig
from muster.control.discovery import Discovery, Finding
from muster.control.metrics import Metrics
from muster.control.outbox import Outbox
from muster.control.queue_feed import QueueFeed
from muster.control.queue_status import QueueStatusWriter
from muster.control.queues import Configs
from muster.control.recording import Recording
from muster.control.routing import Routes
from muster.control.writer import ApiWriter, GatedPods
from muster.kube import kinds
from muster.kube import list_watch as lw
from muster.kube import objects as k
from muster.kube.client import Client
from muster.kube.resources import GANGS, Gang
from muster.scheduling.decisions import Condition, Decision, Reserve
from muster.scheduling.events import (
    ApplicationFound,
    ApplicationInvalid,
    Event,
    NodeGone,
    NodeSeen,
    PodGone,
    PodSeen,
    QueuesChanged,
    ReservationRestored,
    Synced,
    TimePassed,
)
from muster.scheduling.explaining import Explanation
from muster.scheduling.model import Application, ApplicationKey, GangStatus, Mode, Phase, Placement, Pod, PodRef, Role
from muster.scheduling.scheduler import Scheduler

_log = structlog.get_logger("muster.controller")

P = ParamSpec("P")
T = TypeVar("T")

TICK = 1.0
"""Seconds between ``TimePassed`` events: the resolution of expiry and ageing."""


class Controller:
    """Reads nodes, pods and gangs; owns the scheduler while this replica leads."""

    def __init__(
        self,
        config: ServeConfig,
        client: Client,
        scheduler: Scheduler,
        writer: ApiWriter,
        outbox: Outbox,
        discovery: Discovery,
        gated: GatedPods,
        metrics: Metrics,
        clock: Callable[[], float],
        queues: QueueFeed,
        queue_status: QueueStatusWriter,
        recording: Recording | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self.scheduler = scheduler
        self._writer = writer
        self._outbox = outbox
        self._discovery = discovery
        self._gated = gated
        self._metrics = metrics
        self._clock = clock
        self._queues = queues
        self._queue_status = queue_status
        self._routes = Routes()
        self._recording = recording
        self._calling_back = CallingBack(metrics, clock, self._handle)
        self._scheduler_names = frozenset(config.scheduling.scheduler_names)
        self._sized: set[ApplicationKey] = set()
        """Applications whose sizes are known, known to be bad, or being looked for."""
        self._drivers: dict[tuple[str, str], k.Pod] = {}
        """Drivers listed before the first state was complete."""
        self._observed: dict[ApplicationKey, GangStatus] = {}
        self._waiting: dict[ApplicationKey, float] = {}
        """When the drivers of pending gangs were found."""
        self._began = clock()
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Lists first, then decides."""
        restored = await self._client.list(GANGS)
        listed = {"nodes": asyncio.Event(), "pods": asyncio.Event(), "queues": asyncio.Event()}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_nodes(listed["nodes"]))
                tasks.create_task(self._follow_pods(listed["pods"]))
                tasks.create_task(self._queues.run(self._queues_changed, listed["queues"]))
                for event in listed.values():
                    await event.wait()
                self._restore(restored)
                now = self._clock()
                self._record(Recording.settle, now)
                self._handle(Synced(now))
                self._count_restored()
                self._settle()
                tasks.create_task(self._queue_status.run())
                tasks.create_task(self._tick())
        finally:
            self.synced.clear()
            self._metrics.synced.set(0)
            self._metrics.gangs.clear()
            self._metrics.held.set(0)
            self._metrics.oldest_waiting_seconds.set(0)
            await self._discovery.close()
            await self._calling_back.close()
            await self._outbox.close()

    def place(self, pod: Pod) -> Placement:
        """The answer to an executor at admission."""
        if not self.synced.is_set():
            return Placement(Mode.HOLD, reason="the state of the cluster is still being read")
        return self.scheduler.place_executor(pod, self._clock())

    def explain(self, key: ApplicationKey) -> Explanation | None:
        """Why an application is where it is; ``None`` when it is not known."""
        now, outlook = self._clock(), self.scheduler.outlook(key)
        eta = self._record(Recording.eta, now, outlook) if outlook is not None else None
        return self.scheduler.explain(key, now, eta)

    @property
    def queue_problems(self) -> Mapping[str, str]:
        """By queue, what is wrong with its newest version, which is not in force."""
        return self._queues.acceptance.problems

    async def drain(self, timeout: float) -> bool:
        """Let writes under way finish; False when ``timeout`` seconds were not enough."""
        return await self._outbox.drain(timeout)

    async def _follow_nodes(self, listed: asyncio.Event) -> None:
        def sink(event: lw.WatchedEvent[k.Node]) -> None:
            match event:
                case lw.Added(node) | lw.Modified(node):
                    try:
                        seen = facts.node_from(node)
                    except QuantityError as error:
                        _log.error("node ignored", node=node.metadata.name, error=str(error))
                        return
                    self._handle(NodeSeen(self._clock(), seen))
                case lw.Deleted(name=name):
                    self._handle(NodeGone(self._clock(), name))
                case lw.Synced():
                    listed.set()

        await lw.ListWatch(self._client, kinds.NODES, notice=_notice).run(sink)

    async def _follow_pods(self, listed: asyncio.Event) -> None:
        def sink(event: lw.WatchedEvent[k.Pod]) -> None:
            match event:
                case lw.Added(pod) | lw.Modified(pod):
                    self._pod_seen(pod)
                case lw.Deleted(namespace=namespace, name=name, uid=uid, object=last):
                    self._gated.forget(namespace, name, uid)
                    self._drivers.pop((namespace, name), None)
                    now, gone = self._clock(), PodRef(namespace, name, uid)
                    self._record(Recording.pod_gone, now, gone, None if last is None else facts.application_key(last))
                    self._handle(PodGone(now, gone))
                    if last is not None and facts.role_of(last) is Role.DRIVER:
                        self._forget(facts.application_key(last))
                case lw.Synced():
                    listed.set()

        await lw.ListWatch(self._client, kinds.PODS, notice=_notice).run(sink)

    def _pod_seen(self, pod: k.Pod) -> None:
        seen = facts.pod_from(pod, scheduler_names=self._scheduler_names)
        self._gated.see(seen)
        now = self._clock()
        self._record(Recording.pod_seen, now, pod, seen)
        self._handle(PodSeen(now, seen))
        if seen.role is not Role.DRIVER:
            return
        self._calling_back.driver_seen(seen.application, pod)
        if not self.synced.is_set():
            self._drivers[(seen.namespace, seen.name)] = pod
        elif seen.finished:
            self._forget(seen.application)
        elif seen.application not in self._sized:
            self._discover(pod, seen.application)

    def _queues_changed(self, queues: Configs) -> None:
        self._handle(QueuesChanged(self._clock(), tuple(queues[name] for name in sorted(queues))))
        for application in self._routes.rerouted(self._queues.rules):
            self._tell_found(application)

    def _discover(self, driver: k.Pod, key: ApplicationKey) -> None:
        self._sized.add(key)
        self._routes.seen(key, driver)
        self._discovery.start(driver, key, self._found)

    def _forget(self, key: ApplicationKey) -> None:
        """The driver has ended: nothing is to be found out about it any more."""
        self._sized.discard(key)
        self._calling_back.driver_gone(key)
        self._routes.settled(key)
        self._discovery.cancel(key)

    def _found(self, finding: Finding) -> None:
        if isinstance(finding, ApplicationInvalid):
            self._routes.settled(finding.key)
            self._handle(finding)
            return
        finding = self._record(Recording.estimated, finding) or finding
        self._tell_found(self._routes.found(finding, self._queues.rules))

    def _tell_found(self, application: Application) -> None:
        now = self._clock()
        self._record(Recording.found, now, application)
        self._outbox.found(application)
        self._handle(ApplicationFound(now, application))

    def _restore(self, restored: list[Gang]) -> None:
        """Tell the scheduler what earlier leaders had reserved, for drivers that are still there.

        A gang that says too little (``Invalid``, or written by another version) is left out: its driver is looked
        up again.
        """
        drivers = {facts.application_key(driver): driver for driver in self._drivers.values()}
        for gang in restored:
            key = gangs.key_of(gang)
            driver = drivers.get(key)
            if gang.status.phase in (Phase.FINISHED, Phase.INVALID) or (
                driver is None and gang.spec.driver is not None
            ):
                continue
            try:
                application = gangs.application_from(gang, created=facts.created_at(driver) if driver else None)
            except gangs.BadGang as error:
                _log.warning("gang not restored, its driver is looked up again", application=key, reason=str(error))
                continue
            self._writer.known(key, gang.metadata.resource_version)
            self._sized.add(key)
            reservation = gangs.reservation_from(gang)
            self._outbox.restored(application, reservation.revision if reservation else -1)
            now = self._clock()
            if reservation is None:
                if driver is not None:
                    self._routes.seen(key, driver)
                self._tell_found(self._routes.found(application, self._queues.rules))
            else:
                self._record(Recording.restored, now, application, reservation)
                self._handle(ReservationRestored(now, application, reservation, gangs.status_from(gang)))

    def _count_restored(self) -> None:
        """Gangs of which nothing is new are told to nobody, but they are there."""
        for key, status in self.scheduler.applications().items():
            if key not in self._observed and status.phase is not Phase.FINISHED:
                self._count(key, status)

    def _settle(self) -> None:
        """The first state is complete: keep the garbage collector off it, look up the drivers nobody knows."""
        self.synced.set()
        self._metrics.synced.set(1)
        gc.collect()
        gc.freeze()
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            key = facts.application_key(driver)
            if facts.has_ended(driver):
                self._forget(key)
            elif key not in self._sized:
                self._discover(driver, key)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + TICK
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._metrics.loop_lag_seconds.observe(max(0.0, loop.time() - due))
            due = max(due + TICK, loop.time())
            self._handle(TimePassed(self._clock()))
            self._record(Recording.tick, self._clock())
            self._metrics.outbox_pending.set(len(self._outbox))
            now = self._clock()
            self._metrics.oldest_waiting_seconds.set(max(0.0, now - min(self._waiting.values(), default=now)))

    def _handle(self, event: Event) -> None:
        begun = time.perf_counter()
        decisions = self.scheduler.handle(event)
        self._metrics.event_handled(type(event).__name__, time.perf_counter() - begun)
        if self._config.validate:
            self.scheduler.validate()
        for decision in decisions:
            self._metrics.decided(type(decision).__name__)
            self._observe(decision)
            self._calling_back.decided(decision)
            self._record(Recording.decided, event.at, decision)
            self._outbox.push(decision)

    def _record(self, step: Callable[Concatenate[Recording, P], T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """History is a courtesy: whatever goes wrong with it ends the recording of this term, and nothing else."""
        if self._recording is None:
            return None
        try:
            return step(self._recording, *arguments, **named)
        except Exception:
            _log.exception("history: nothing more is recorded until another term begins")
            self._recording = None
            return None

    def _observe(self, decision: Decision) -> None:
        """Metrics and one log line for what people ask about: reserved, reached its minimum, ended."""
        if isinstance(decision, Reserve):
            key, status = decision.application.key, decision.status
        elif isinstance(decision, Condition):
            key, status = decision.key, decision.status
        else:
            return
        before = self._observed.get(key)
        if before is None and status.phase is Phase.FINISHED:
            return  # told already: its last executors go after it
        if before is None or before.phase is not status.phase:
            _log.info("gang", application=key, phase=status.phase.value, reason=status.reason, message=status.message)
        if status.found is not None:
            if status.reserved is not None and self._is_new(before.reserved if before else None, status.reserved):
                self._metrics.gang_wait_seconds.observe(max(0.0, status.reserved - status.found))
            reached = status.minimum_reached
            if reached is not None and self._is_new(before.minimum_reached if before else None, reached):
                self._metrics.minimum_seconds.observe(max(0.0, reached - status.found))
        self._count(key, status)

    def _count(self, key: ApplicationKey, status: GangStatus) -> None:
        """Gauges of how many there are, and since when the oldest waits."""
        before = self._observed.get(key)
        finished = status.phase is Phase.FINISHED
        if before is None or before.phase is not status.phase:
            if before is not None:
                self._metrics.gangs.labels(before.phase.value).dec()
            if not finished:
                self._metrics.gangs.labels(status.phase.value).inc()
        self._metrics.held.inc((0 if finished else status.held) - (before.held if before is not None else 0))
        if status.phase is Phase.PENDING and status.found is not None:
            self._waiting[key] = status.found
        else:
            self._waiting.pop(key, None)
        if status.phase is not Phase.PENDING:
            self._routes.settled(key)
        if finished:
            self._observed.pop(key, None)
        else:
            self._observed[key] = status

    def _is_new(self, before: float | None, at: float) -> bool:
        """Whether something happened now, in this term: what was restored was counted by the leader of its time."""
        return before is None and at >= self._began


def _notice(error: Exception) -> None:
    _log.warning("watch", error=str(error))
