"""``muster serve --extender``: listeners, watches, stores and the clock around one ``Filter``. I/O only."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from muster.cluster.quantity import QuantityError
from muster.control import logs
from muster.control.clock import Clock
from muster.control.config import Logging
from muster.control.extender import definitions, demand_book, gauges, marker
from muster.control.extender.capacity import exceeds
from muster.control.extender.configuration import Install, Loaded, scheduler_config
from muster.control.extender.demands import DEMANDS, Demand, DemandPhase, ours_under_their_status
from muster.control.extender.facts import is_scheduled_by_us, is_spark
from muster.control.extender.filter import CATCH_UP, Answer, Filter
from muster.control.extender.legacy_metrics import LegacyMetrics
from muster.control.extender.listeners import https
from muster.control.extender.messages import ExtenderArgs
from muster.control.extender.object_states import Key
from muster.control.extender.observations import Observations
from muster.control.extender.pod_lifecycle import stuck_pods
from muster.control.extender.pods import application_id
from muster.control.extender.reservations import RESOURCE_RESERVATIONS, ResourceReservation, pause_after
from muster.control.extender.routes import extender_app
from muster.control.extender.write_back import Happened, Verb, WriteBack
from muster.control.metrics import Metrics
from muster.kube import list_watch as lw
from muster.kube import objects as k
from muster.kube.certificate_files import CertificateFiles
from muster.kube.client import Call, Client, PatchType
from muster.kube.config import load_access
from muster.kube.errors import ApiError
from muster.kube.events import EventRecorder
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, NODES, PODS
from muster.kube.timestamps import format_time
from muster.packing import find_packer
from muster.scheduling.decisions import Publish

_log = structlog.get_logger("muster.extender")

ASK_AGAIN = "muster.dev/ask-again"
"""On pods: when they could have been placed, and nobody asked."""
TICK = 1.0
CERTIFICATE_CHECK = 30.0
DEMAND_DEFINITION_CHECK = 60.0
STOP_TIMEOUT = 10.0
"""Seconds for writes under way at a stop."""


class ExtenderService:
    """One replica; each answers its own kube-scheduler. ``run`` it until ``stop`` is called."""

    def __init__(self, install: Install, client: Client, metrics: Metrics, identity: str) -> None:
        config = scheduler_config(install)
        self._install = install
        self._client = client
        self._metrics = metrics
        self._legacy = LegacyMetrics(metrics.registry)
        self._label = config.pool_label
        self._packer = find_packer(config.packer)
        self._clock = Clock(client.clock.time)
        self._stopping = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._events = EventRecorder(client, "spark-scheduler", identity)
        self._observed = Observations(self._legacy, config.packer, self._label)
        self._starting = gauges.StartingPods(self._label)
        self._usage = gauges.NodeUsage(self._legacy, self._label)
        self._certificates = CertificateFiles(Path(install.server.cert_file), Path(install.server.key_file))
        retries = install.async_client_config.max_retry_count
        self.reservations: WriteBack[ResourceReservation] = WriteBack(
            client,
            RESOURCE_RESERVATIONS,
            changed=self._reservation_changed,
            happened=self._counting("resourcereservations"),
            max_retries=retries,
            pause=pause_after,
        )
        self.demands: WriteBack[Demand] = WriteBack(
            client,
            DEMANDS,
            carry=ours_under_their_status,
            happened=self._counting("demands"),
            max_retries=retries,
        )
        self._demand_book = demand_book.DemandBook(
            None,
            label=self._label,
            single_zone=self._packer.single_zone,
            clock=self._clock,
            announce=self._announce,
        )
        self.filter = Filter(
            config,
            self.reservations,
            self._demand_book,
            self._clock,
            same_zone=install.should_schedule_dynamically_allocated_executors_in_same_az,
            announce=self._announce,
            publish=self._publish,
            nudge=self._nudge,
            timed=self._observed.timed,
        )
        self.port = self.management_port = 0
        """Where it listens, once it does; the same when there is no management port."""

    def stop(self) -> None:
        """Begin a graceful stop."""
        self._stopping.set()

    def why_not_ready(self) -> str:
        if self._stopping.is_set():
            return "stopping"
        return "" if self.filter.view.synced else "the state of the cluster is still being read"

    # Running

    async def run(self) -> None:
        """Until ``stop``. Raises ``AccessError`` or ``DefinitionError`` when it cannot begin.

        It listens before it has read the cluster: reading reservations may need our own conversion.
        """
        server = self._install.server
        app = extender_app(server.context_path, self.ask, needs_client_certificate=server.require_client_certificates)
        async with https(self._install, self._certificates, app, self.why_not_ready, self._render) as ports:
            self.port, self.management_port = ports
            await self._serve()

    async def _serve(self) -> None:
        _log.info("serving", port=self.port, management_port=self.management_port)
        self._metrics.watch_gc()
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        work = asyncio.create_task(self._work(), name="work")
        try:
            await asyncio.wait([stop, work], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()  # raises what ended it
            elif not (await self.reservations.drain(STOP_TIMEOUT) and await self.demands.drain(STOP_TIMEOUT)):
                _log.warning("stopped with writes under way; the next process finds what is missing")
        finally:
            for task in (stop, work, *self._background):
                task.cancel()
            await asyncio.gather(stop, work, *self._background, return_exceptions=True)
            await self.reservations.close()
            await self.demands.close()
            self._metrics.unwatch_gc()
        _log.info("stopped")

    async def _work(self) -> None:
        webhook = await self._webhook()
        wanted = definitions.reservation_definition(webhook, self._install.resource_reservation_crd_annotations)
        await definitions.ensure_definition(self._client, wanted)
        has_demands = await self._ensure_demands(webhook)
        listed = {name: asyncio.Event() for name in ("nodes", "pods", "reservations", "demands")}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(RESOURCE_RESERVATIONS, self.reservations.observed, listed["reservations"]))
            if has_demands:
                tasks.create_task(self._follow(DEMANDS, self._demand_seen, listed["demands"]))
                await listed["demands"].wait()
                self._demand_book.store = self.demands
            await listed["reservations"].wait()
            tasks.create_task(self._follow(NODES, self._node_seen, listed["nodes"]))
            tasks.create_task(self._follow(PODS, self._pod_seen, listed["pods"]))
            await listed["nodes"].wait()
            await listed["pods"].wait()
            self.filter.begin()
            gc.collect()
            gc.freeze()
            self._metrics.synced.set(1)
            _log.info("ready", nodes=len(self.filter.view.scheduler.table.index))
            tasks.create_task(self._every(TICK, self._tick))
            tasks.create_task(self._every(gauges.INTERVAL, self.refresh))
            tasks.create_task(self._every(marker.INTERVAL, self.mark))
            tasks.create_task(self._every(CERTIFICATE_CHECK, self._check_certificates))
            if not has_demands:
                await self._wait_for_demands()
                tasks.create_task(self._follow(DEMANDS, self._demand_seen, listed["demands"]))
                await listed["demands"].wait()
                self._demand_book.store = self.demands
                self.filter.demand_all()

    async def _webhook(self) -> definitions.ConversionWebhook | None:
        install = self._install
        if not install.has_webhook:
            return None
        service = install.webhook_service_config
        ca_pem = await asyncio.to_thread(Path(install.server.client_ca_files[0]).read_bytes)
        path = install.server.context_path.rstrip("/") + definitions.CONVERT_PATH
        return definitions.ConversionWebhook(
            service.namespace, service.service_name, service.service_port, path, ca_pem
        )

    async def _ensure_demands(self, webhook: definitions.ConversionWebhook | None) -> bool:
        """Whether ``Demand`` is served. One that is installed belongs to an autoscaler, and is left as it is."""
        try:
            installed = await self._client.get(CUSTOM_RESOURCE_DEFINITIONS, definitions.DEMANDS_NAME)
        except ApiError as error:
            if not error.not_found:
                _log.warning("no demands yet: their definition cannot be read", error=str(error))
                return False
            try:
                await definitions.ensure_definition(self._client, definitions.demand_definition(webhook))
            except definitions.DefinitionError as refused:
                _log.warning("no demands yet", error=str(refused))
                return False
            return True
        if definitions.prunes_pod_names(installed):
            _log.warning("the installed definition of Demand loses spec.units[].pod-names-by-namespace")
        return definitions.is_established(installed)

    async def _wait_for_demands(self) -> None:
        while True:
            await asyncio.sleep(DEMAND_DEFINITION_CHECK)
            try:
                installed = await self._client.get(CUSTOM_RESOURCE_DEFINITIONS, definitions.DEMANDS_NAME)
            except ApiError:
                continue
            if definitions.is_established(installed):
                return

    # What is asked

    def ask(self, args: ExtenderArgs) -> Answer:
        """One call of kube-scheduler; metrics and logs included."""
        if args.pod is not None and is_spark(args.pod) and is_scheduled_by_us(args.pod):
            self._observed.seen(args.pod, self._clock())  # a call may come before the watch
        begun = time.perf_counter()
        answer = self.filter.answer(args)
        seconds = time.perf_counter() - begun
        if args.pod is None:
            return answer
        self._observed.answered(args.pod, answer, seconds, self._clock())
        if answer.created is not None:
            table = self.filter.view.scheduler.table
            self._observed.reserved(answer.created, answer.instance_group, table)
        if answer.first_bind is not None:
            self._observed.first_bound(answer.first_bind, self._clock())
        log = _log.bind(
            podNamespace=args.pod.metadata.namespace,
            podName=args.pod.metadata.name,
            podSparkRole=answer.role,
            instanceGroup=answer.instance_group,
            sparkAppID=application_id(args.pod),
        )
        if answer.node:
            log.info("scheduling pod to node", node=answer.node, outcome=answer.outcome)
        else:
            log.info("failed to schedule pod", outcome=answer.outcome, reason=answer.message)
        return answer

    # What is seen

    async def _follow(self, resource: Any, sink: Callable[[Any], None], listed: asyncio.Event) -> None:
        def told(event: Any) -> None:
            sink(event)
            if isinstance(event, lw.Synced):
                listed.set()

        await lw.ListWatch(self._client, resource, notice=_notice).run(told)

    def _node_seen(self, event: lw.WatchedEvent[k.Node]) -> None:
        match event:
            case lw.Added(node) | lw.Modified(node):
                try:
                    self.filter.view.node_seen(node)
                except QuantityError as error:
                    _log.error("node ignored", node=node.metadata.name, error=str(error))
            case lw.Deleted(name=name):
                self.filter.view.node_gone(name)

    def _pod_seen(self, event: lw.WatchedEvent[k.Pod]) -> None:
        match event:
            case lw.Added(pod) | lw.Modified(pod):
                if is_spark(pod) and is_scheduled_by_us(pod):
                    now = self._clock()
                    self._starting.see(pod, now)
                    self._observed.seen(pod, now)  # first: a demand may be made for it right away
                self.filter.view.pod_seen(pod)
            case lw.Deleted(namespace=namespace, name=name, uid=uid):
                self.filter.view.pod_gone(namespace, name, uid)
                self._starting.forget(namespace, name)
                self._observed.gone(namespace, name)

    def _demand_seen(self, event: lw.WatchedEvent[Demand]) -> None:
        self.demands.observed(event)
        match event:
            case lw.Added(demand) | lw.Modified(demand) if demand.status.phase == DemandPhase.FULFILLED:
                pod_name = demand.metadata.name.removeprefix("demand-")
                self._observed.fulfilled(demand.metadata.namespace, pod_name, self._clock())

    def _reservation_changed(self, key: Key, value: ResourceReservation | None) -> None:
        self.filter.view.reservation_changed(*key, value)

    # What is told

    def _announce(self, name: str, fields: dict[str, object]) -> None:
        _log.info(name, **fields)
        if name == demand_book.CREATED:
            pod_name = str(fields["demandName"]).removeprefix("demand-")
            self._observed.demanded(str(fields["demandNamespace"]), pod_name, self._clock())

    def _publish(self, event: Publish) -> None:
        pod = event.pod
        about = k.ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid, api_version="v1")
        self._in_background(self._events.publish(about, event.reason, event.message, warning=event.warning))

    def _nudge(self, pod_id: Key) -> None:
        """Any change of a pod's metadata makes kube-scheduler try it again."""
        namespace, name = pod_id
        stamp = {"metadata": {"annotations": {ASK_AGAIN: format_time(self._clock())}}}
        _log.info("asking kube-scheduler to try again", podNamespace=namespace, podName=name)
        self._in_background(self._patch(name, stamp, namespace))

    async def _patch(self, name: str, patch: dict[str, Any], namespace: str) -> None:
        try:
            await self._client.patch(PODS, name, patch, namespace)
        except ApiError as error:
            if not error.not_found:
                raise

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        async def done() -> None:
            try:
                await work
            except ApiError as error:
                _log.warning("write failed", error=str(error))

        task = asyncio.create_task(done())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _counting(self, resource: str) -> Callable[[Verb, Happened], None]:
        def count(verb: Verb, what: Happened) -> None:
            match what:
                case Happened.SENT:
                    self._legacy.count("async.request.count", resource, verb.value)
                case Happened.RETRIED:
                    self._legacy.count("async.request.retries.count", resource, verb.value)
                case _:
                    self._legacy.count("async.request.dropped.count", resource, verb.value, what.value)

        return count

    # What is done from time to time

    async def _every(self, seconds: float, act: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            if seconds == TICK:
                self._metrics.loop_lag_seconds.observe(max(0.0, loop.time() - due))
            due = max(due + seconds, loop.time())
            waits = act()
            if waits is not None:
                await waits

    async def _tick(self) -> None:
        self.filter.tick()
        more = self.filter.catch_up(CATCH_UP)
        while more:
            await asyncio.sleep(0)
            more = self.filter.catch_up(CATCH_UP)

    async def refresh(self) -> None:
        """Make the gauges anew."""
        view = self.filter.view
        for _ in self._usage.refresh(self.reservations, view.scheduler.table):
            await asyncio.sleep(0)
        for _ in gauges.refresh_soft(self._legacy, view.known):
            await asyncio.sleep(0)
        for name, store in (("resourcereservation", self.reservations), ("demand", self.demands)):
            pending = store.pending()
            gauges.refresh_store(self._legacy, name, len(store), len(store) - sum(pending.values()), pending)
        self._observed.refresh()
        now = self._clock()
        for stuck in stuck_pods(self._starting.refresh(self._legacy, now), now):
            _log.warning(
                "found stuck pod",
                podNamespace=stuck.start.namespace,
                podName=stuck.start.name,
                lifecycle=stuck.stage.value,
                seconds=round(stuck.seconds),
            )

    def _render(self) -> bytes:
        return self._metrics.render() + self._legacy.render()

    async def mark(self) -> None:
        """Mark drivers that wait for long as larger than the cluster, or not; one after the other."""
        view = self.filter.view
        table, packer = view.scheduler.table, self._packer
        now, timeout = self._clock(), self._install.unschedulable_after
        drivers = [driver for each in view.known.applications.values() for driver in each.drivers.values()]

        def too_large(driver: k.Pod) -> bool:
            return exceeds(view.size_of(driver), table, packer)

        for driver in drivers:
            if marker.is_overdue(driver, now, timeout):
                found = marker.scan((driver,), now, timeout, too_large)
                for _, error in found.unreadable:
                    _log.warning("driver not marked", podName=driver.metadata.name, error=str(error))
                for mark in found.marks:
                    await self._put(mark)
                await asyncio.sleep(0)

    async def _put(self, mark: marker.Mark) -> None:
        metadata = mark.pod.metadata
        if mark.condition.status == "True":
            _log.info("Marking pod as exceeds capacity", podName=metadata.name, podNamespace=metadata.namespace)
        try:
            await self._client.patch(
                PODS,
                metadata.name,
                mark.patch,
                metadata.namespace,
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            )
        except ApiError as error:
            if not error.not_found:
                _log.warning("driver not marked", podName=metadata.name, error=str(error))

    async def _check_certificates(self) -> None:
        try:
            await self._certificates.check()
        except Exception as error:
            _log.error("certificate not renewed; the old one is still served", error=str(error))


def _notice(error: Exception) -> None:
    _log.warning("watch", error=str(error))


async def serve(loaded: Loaded) -> None:
    """Run one replica until SIGTERM or SIGINT. Raises ``AccessError``, ``DefinitionError`` or ``ConfigError``."""
    install = loaded.install
    logs.configure(Logging(level=install.log_level))
    for warning in loaded.warnings:
        _log.warning(warning)
    metrics = Metrics()

    def observe(call: Call) -> None:
        metrics.api_requests.labels(call.verb, call.resource, str(call.code)).inc()
        metrics.api_seconds.labels(call.verb).observe(call.seconds)

    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    async with Client(load_access(install.kube_config or None), observe=observe) as client:
        service = ExtenderService(install, client, metrics, identity)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        await service.run()
