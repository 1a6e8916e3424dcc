"""``muster serve``: the webhook, the management endpoints, and a term of the controller whenever this replica leads."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from muster.control import logs
from muster.control.admission import MAX_REVIEW_BYTES, Admission
from muster.control.clock import Clock
from muster.control.config import ConfigError, ServeConfig, parse_duration
from muster.control.controller import Controller
from muster.control.discovery import Discovery
from muster.control.history_copies import HistoryCopies
from muster.control.listening import listening, posts_to
from muster.control.management import management_app
from muster.control.metrics import Metrics
from muster.control.outbox import Outbox
from muster.control.queue_feed import QueueFeed
from muster.control.queue_file import QueueFile
from muster.control.queue_status import QueueStatusWriter
from muster.control.recording import Recording
from muster.control.registration import WebhookRegistration
from muster.control.settings import certificate_lifetimes, scheduler_config
from muster.control.writer import ApiWriter, GatedPods
from muster.history.archive import Archive
from muster.kube.certificate_files import CertificateFiles
from muster.kube.certificates import ServingCertificates
from muster.kube.client import Call, Client
from muster.kube.config import load_access
from muster.kube.events import EventRecorder
from muster.kube.lease import LeaderElection, LeaseTiming
from muster.kube.retry import RetryPolicy
from muster.scheduling.model import Mode, Placement, Pod
from muster.scheduling.scheduler import Scheduler

_log = structlog.get_logger("muster.serve")

STOP_TIMEOUT = 10.0
"""Seconds for writes under way at a stop; below the usual termination grace of 30."""
HISTORY_TIMEOUT = 3.0
"""Seconds for the rows of the history that wait to be written, after that."""
_TERM_RETRY = RetryPolicy(first=0.5, ceiling=15.0)


class Service:
    """One replica of Muster. ``run`` it until ``stop`` is called.

    Time and randomness are those of ``client``, so that a replica can be run under virtual time.
    """

    def __init__(self, config: ServeConfig, client: Client, metrics: Metrics, identity: str) -> None:
        self._config = config
        self._client = client
        self.metrics = metrics
        self._stopping = asyncio.Event()
        self._leadership = asyncio.Condition()
        self.controller: Controller | None = None
        self._term_number = 0
        """The term of leadership that the controller was made for."""
        self.history = _archive(config, metrics)
        """What this replica has recorded, whether it leads now or not; ``None`` when that is switched off."""
        self.webhook_registered = False
        self.management_port = self.webhook_port = 0
        """Where it listens, once it does."""
        lease = config.lease
        self.election = LeaderElection(
            client,
            config.namespace,
            lease.name,
            identity,
            timing=LeaseTiming(
                duration=round(parse_duration(lease.duration)),
                renew_deadline=parse_duration(lease.renew_deadline),
                retry=parse_duration(lease.retry_period),
            ),
            random=client.random,
            on_change=self._leads,
        )
        # checked before anything is started: a bad packer name must end the start, not the first gang
        self._scheduler_config = scheduler_config(config.scheduling)
        self._certificates = _certificates(config, client)
        self._queue_file = QueueFile(Path(config.queues.file)) if config.queues.file else None

    def stop(self) -> None:
        """Begin a graceful stop."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def ca_pem(self) -> bytes:
        """What the webhook's certificate is verified against, once it is served."""
        return self._certificates.ca_pem

    def place(self, pod: Pod) -> Placement:
        """The answer to an executor at admission; held whenever this replica may not decide."""
        controller = self.controller
        if controller is None or not self._leads_on():
            return Placement(Mode.HOLD, reason="this replica does not decide; the one that leads will release it")
        return controller.place(pod)

    async def run(self) -> None:
        """Until ``stop``: hold or seek the lease, lead while it is held, keep certificates and webhook in order."""
        config = self._config
        tls = await self._certificates.ready()
        self.metrics.certificate_expiry.set_function(lambda: self._certificates.expires)
        admission = Admission(
            self.place,
            frozenset(config.scheduling.scheduler_names),
            self.metrics,
            frozenset(config.queues.trusted),
            config.scheduling.max_pending_executors,
        )

        async def mutate(request: web.BaseRequest) -> web.Response:
            answer = await admission.handle(request)
            if self.stopping:
                answer.force_close()  # API servers keep connections for long: the next one goes to another replica
            return answer

        webhook = posts_to("/mutate", mutate, most_bytes=MAX_REVIEW_BYTES)
        async with (
            listening(management_app(self), config.management.host, config.management.port, None) as management_port,
            listening(webhook, config.webhook.host, config.webhook.port, tls) as webhook_port,
        ):
            self.management_port, self.webhook_port = management_port, webhook_port
            _log.info(
                "serving", webhook_port=webhook_port, management_port=management_port, identity=self.election.identity
            )
            self.metrics.watch_gc()
            if self.history is not None:
                self.history.start()
            registration = WebhookRegistration(
                self._client, config.webhook, config.namespace, webhook_port, self._registered
            )
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(self.election.run(), name="lease"),
                asyncio.create_task(self._lead(), name="lead"),
                asyncio.create_task(registration.keep(self._certificates), name="webhook"),
            ]
            if self.history is not None and config.history.peers:
                copies = HistoryCopies(self.history, config.history.peers)
                tasks.append(asyncio.create_task(copies.run(), name="history of the others"))
            if self._queue_file is not None:
                interval = parse_duration(config.queues.check_interval)
                tasks.append(asyncio.create_task(self._queue_file.follow(interval), name="queues.yaml"))
            stop = asyncio.create_task(self._stopping.wait(), name="stop")
            try:
                done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stop}:
                    task.result()  # raises what ended it
            finally:
                await self._end([*tasks, stop])
                if self.history is not None:
                    await self.history.close(HISTORY_TIMEOUT)
                self.metrics.unwatch_gc()
            # reviews go on coming until everybody knows that this replica has left its Service: executors are held
            await asyncio.sleep(parse_duration(config.webhook.shutdown_delay))

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Writes under way get their time, then the lease goes to the next one."""
        controller = self.controller
        if controller is not None and not await controller.drain(STOP_TIMEOUT):
            _log.warning("stopped with writes under way; the next leader finds and repeats them")
        for task in reversed(tasks):  # the lease last: it is released when its task ends
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        _log.info("stopped")

    def _registered(self, registered: bool) -> None:
        self.webhook_registered = registered
        self.metrics.webhook_registered.set(int(registered))

    def _leads(self, leads: bool) -> None:
        self.metrics.leader.set(int(leads))
        _log.info("lease", leads=leads, holder=self.election.holder)
        asyncio.get_running_loop().create_task(self._wake())

    def _leads_on(self) -> bool:
        """Whether the term that the controller is for still lasts: when others have led since, it knows too little."""
        return self.election.leads_in(self._term_number)

    async def _wake(self) -> None:
        async with self._leadership:
            self._leadership.notify_all()

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        async with self._leadership:
            await self._leadership.wait_for(holds)

    async def _lead(self) -> None:
        """A new controller for every term: what it knows is read from the API, so nothing stale survives."""
        failures = 0
        while True:
            await self._wait_until(self.election.is_leader)
            self._term_number = self.election.term
            term = asyncio.create_task(self._term(), name="term")
            lost = asyncio.create_task(self._wait_until(lambda: not self._leads_on()), name="lost")
            try:
                await asyncio.wait([term, lost], return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.controller = None
                for task in (term, lost):
                    task.cancel()
                results = await asyncio.gather(term, lost, return_exceptions=True)
            failure = results[0]
            if isinstance(failure, Exception):
                failures += 1
                wait = _TERM_RETRY.delay(failures, self._client.random())
                _log.error("term ended by an error", exc_info=failure, retry_in=round(wait, 1))
                await asyncio.sleep(wait)
            else:
                failures = 0

    async def _term(self) -> None:
        clock = Clock(self._client.clock.time)
        gated = GatedPods()
        events = EventRecorder(self._client, "muster", self.election.identity)
        writer = ApiWriter(self._client, gated, events)
        outbox = Outbox(
            writer,
            clock,
            lambda attempt: _TERM_RETRY.delay(attempt + 1, self._client.random()),
            self._leads_on,
            self.metrics.outbox_retries.inc,
        )
        scheduling = self._config.scheduling
        feed = QueueFeed(self._client, self._queue_file, self.metrics)
        discovery = Discovery(
            self._client,
            clock,
            timeout=parse_duration(self._config.sizes.config_map_timeout),
            pool_label=scheduling.pool_label,
            scheduler_names=frozenset(scheduling.scheduler_names),
            rules=lambda: feed.rules,
        )
        scheduler = Scheduler(self._scheduler_config)
        recording = None
        if self.history is not None:
            recording = Recording(self.history, scheduler.table, scheduler.story, scheduling.pool_label)
        self.controller = Controller(
            self._config,
            self._client,
            scheduler,
            writer,
            outbox,
            discovery,
            gated,
            self.metrics,
            clock,
            feed,
            QueueStatusWriter(self._client, feed, scheduler.queues, self._leads_on, clock),
            recording,
        )
        await self.controller.run()


def _certificates(config: ServeConfig, client: Client) -> ServingCertificates | CertificateFiles:
    """Raises ``ConfigError`` for what does not go together."""
    webhook, settings = config.webhook, config.webhook.certificates
    if settings.cert_file and settings.key_file:
        authority = Path(settings.ca_file) if settings.ca_file else None
        return CertificateFiles(Path(settings.cert_file), Path(settings.key_file), authority)
    if settings.cert_file or settings.key_file or settings.ca_file:
        raise ConfigError("webhook.certificates: certFile and keyFile belong together, and caFile needs both")
    lifetimes = certificate_lifetimes(settings)
    return ServingCertificates(client, config.namespace, webhook.service, webhook.host, lifetimes=lifetimes)


def _archive(config: ServeConfig, metrics: Metrics) -> Archive | None:
    settings = config.history
    if not settings.path:
        return None
    return Archive(
        Path(settings.path),
        keep_days=settings.keep_days,
        keep_applications=settings.keep_applications,
        notice=lambda text: _log.warning("history", told=text),
        written=metrics.history_written.inc,
        dropped=metrics.history_dropped.inc,
    )


async def serve(config: ServeConfig) -> None:
    """Run one replica until SIGTERM or SIGINT. Raises ``AccessError`` or ``ConfigError`` when it cannot begin."""
    logs.configure(config.logging)
    metrics = Metrics()

    def observe(call: Call) -> None:
        metrics.api_requests.labels(call.verb, call.resource, str(call.code)).inc()
        metrics.api_seconds.labels(call.verb).observe(call.seconds)

    access = load_access(config.kubernetes.kubeconfig or None, config.kubernetes.context or None)
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    async with Client(access, observe=observe) as client:
        service = Service(config, client, metrics, identity)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        await service.run()
