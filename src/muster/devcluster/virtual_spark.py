"""Virtual Spark: a submitter, drivers and executors that make the API calls of real ones and burn no CPU.

``submit`` does what spark-submit does; ``program`` is what virtual kubelets run in Spark pods. Drivers and their
executors talk in this process, where real ones use RPC: registration, idle release, stop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from muster.devcluster.executor_allocation import (
    AllocationSettings,
    Create,
    DeletePending,
    ExecutorAllocation,
    Instruction,
    Release,
    Remove,
    Stop,
)
from muster.devcluster.executor_objects import (
    ExecutorTemplate,
    executor_config_map,
    executor_pod,
    executor_template,
    random_token,
)
from muster.devcluster.pace import Pace
from muster.devcluster.pod_status import SIGTERM_EXIT_CODE
from muster.devcluster.submission_objects import (
    Identity,
    driver_config_map,
    driver_pod,
    driver_service,
    network_policy,
    owner_reference,
    properties_of,
)
from muster.devcluster.virtual_application import VirtualApplication
from muster.devcluster.virtual_kubelet import Program, RunningPod
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS, PODS, Resource
from muster.kube.list_watch import Added, Deleted, ListWatch, Modified, WatchedEvent
from muster.kube.objects import PartialObject, Pod, Present
from muster.spark.errors import SparkConfigurationError
from muster.spark.java_properties import parse
from muster.spark.names import (
    DRIVER_CONF_VOLUME,
    PROPERTIES_KEY,
    SPARK_APP_SELECTOR_LABEL,
    SPARK_EXEC_ID_LABEL,
    SPARK_ROLE_DRIVER,
    SPARK_ROLE_EXECUTOR,
    SPARK_ROLE_LABEL,
    SPARK_VERSION_LABEL,
)

FIELD_MANAGER = "fabric8"

_PODS = PODS.decoding_to(Present)
_CONFIG_MAPS = CONFIG_MAPS.decoding_to(Present)
_SERVICES = Resource("", "v1", "services", "Service", Present)
_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", Present)
_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", Present)

EXECUTOR_START_SECONDS = 3.0
"""Virtual seconds from the start of an executor's JVM to its registration."""
DRIVER_START_SECONDS = 4.0
"""Virtual seconds from the start of a driver's JVM to its first executor request."""


async def submit(client: Client, application: VirtualApplication, identity: Identity | None = None) -> Identity:
    """Create driver pod, service, network policy and ConfigMap, in this order.

    Raises ``ApiError``, and ``InvalidSizeError`` for sizes that spark-submit would refuse.
    """
    made_up = identity or Identity.of(application.name)
    namespace = application.namespace
    properties = properties_of(application, made_up, client.access.server, int(client.clock.time() * 1000))
    driver = driver_pod(application, made_up, properties)
    pod = await client.create(PODS.decoding_to(PartialObject), driver, namespace)
    owner = owner_reference(made_up.driver_pod, pod.metadata.uid)
    written = java_date(client.clock.time())
    for resource, body in (
        (_SERVICES, driver_service(application, made_up, owner)),
        (_POLICIES, network_policy(application, made_up, owner)),
        (_CONFIG_MAPS, driver_config_map(application, made_up, owner, properties, written)),
    ):
        if body is not None:
            await client.patch(
                resource,
                body["metadata"]["name"],
                body,
                namespace,
                patch_type=PatchType.APPLY,
                field_manager=FIELD_MANAGER,
                force=True,
            )
    return made_up


def java_date(seconds: float | None = None) -> str:
    """A Unix time (now if none is given) as ``java.util.Date`` writes it into properties files."""
    return time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(seconds))


class VirtualSpark:
    """The programs of Spark pods on virtual nodes."""

    def __init__(self, client: Client, pace: Pace, token: Callable[[], str] = random_token) -> None:
        self._client = client
        self._pace = pace
        self._token = token
        self._drivers: dict[str, _Driver] = {}
        self.finished: dict[str, int] = {}
        """Application id → exit code of its driver."""
        self._changed = asyncio.Condition()
        self.problems: list[str] = []

    def program(self, pod: Pod) -> Program | None:
        """What a Spark pod runs; ``None`` for other pods."""
        role = pod.metadata.labels.get(SPARK_ROLE_LABEL)
        if role == SPARK_ROLE_DRIVER:
            return self._run_driver
        return self._run_executor if role == SPARK_ROLE_EXECUTOR else None

    @property
    def drivers_running(self) -> int:
        return len(self._drivers)

    async def ended(self, application_id: str) -> int:
        """Waits for the driver's end; its exit code."""
        async with self._changed:
            await self._changed.wait_for(lambda: application_id in self.finished)
        return self.finished[application_id]

    async def _run_driver(self, running: RunningPod) -> int:
        labels = running.pod.metadata.labels
        application_id = labels[SPARK_APP_SELECTOR_LABEL]
        try:
            properties = await self._properties(running.pod)
            await self._pace.sleep(DRIVER_START_SECONDS)
            driver = self._drivers[application_id] = _Driver(self._client, self._pace, running, properties, self._token)
            code = await driver.run()
        except (ApiError, SparkConfigurationError) as error:
            self.problems.append(f"driver {running.pod.metadata.name}: {error}")
            code = 1
        finally:
            self._drivers.pop(application_id, None)
        self.finished[application_id] = code
        async with self._changed:
            self._changed.notify_all()
        return code

    async def _run_executor(self, running: RunningPod) -> int:
        """Registers with its driver and works until that says stop; without a driver it exits as real ones do."""
        labels = running.pod.metadata.labels
        executor = int(labels[SPARK_EXEC_ID_LABEL])
        await self._pace.sleep(EXECUTOR_START_SECONDS)
        driver = self._drivers.get(labels[SPARK_APP_SELECTOR_LABEL])
        if driver is None:
            return 1
        stop = driver.register(executor)
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(running.terminate.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            driver.disconnected(executor)
        return 0 if stop.is_set() else SIGTERM_EXIT_CODE

    async def _properties(self, pod: Pod) -> dict[str, str]:
        """``spark.properties`` of the driver's ConfigMap."""
        name = next(
            volume.config_map.name
            for volume in pod.spec.volumes
            if volume.name == DRIVER_CONF_VOLUME and volume.config_map is not None
        )
        found = await self._client.get(CONFIG_MAPS, name, pod.metadata.namespace)
        return parse(found.data[PROPERTIES_KEY])


class _Driver:
    """One running driver: feeds ``ExecutorAllocation`` with what happens and does what it says."""

    def __init__(
        self,
        client: Client,
        pace: Pace,
        running: RunningPod,
        properties: dict[str, str],
        token: Callable[[], str],
    ) -> None:
        meta = running.pod.metadata
        version = meta.labels[SPARK_VERSION_LABEL]
        self._client = client
        self._pace = pace
        self._running = running
        self._namespace = meta.namespace
        self._selector = f"{SPARK_APP_SELECTOR_LABEL}={meta.labels[SPARK_APP_SELECTOR_LABEL]}"
        self._settings = AllocationSettings.of(properties, meta.annotations, version)
        self._allocation = ExecutorAllocation(self._settings, pace.now())
        self._template: ExecutorTemplate = executor_template(
            properties,
            version,
            owner_reference(meta.name, meta.uid),
            running.address,
            f"/var/data/spark-{meta.uid}",
            token,
        )
        self._stops: dict[int, asyncio.Event] = {}
        self._news = asyncio.Event()

    def register(self, executor: int) -> asyncio.Event:
        """An executor has come up; the event tells it to stop."""
        stop = self._stops[executor] = asyncio.Event()
        self._allocation.registered(executor, self._pace.now())
        self._news.set()
        return stop

    def disconnected(self, executor: int) -> None:
        self._stops.pop(executor, None)
        self._allocation.lost(executor, self._pace.now())
        self._news.set()

    async def run(self) -> int:
        await self._client.get(_PODS, self._running.pod.metadata.name, self._namespace)
        await self._client.create(
            _CONFIG_MAPS, executor_config_map(self._template, java_date(self._client.clock.time())), self._namespace
        )
        selector = f"{self._selector},{SPARK_ROLE_LABEL}={SPARK_ROLE_EXECUTOR}"
        watch = asyncio.create_task(
            ListWatch(self._client, PODS, self._namespace, label_selector=selector).run(self._on_pod)
        )
        terminated = asyncio.create_task(self._running.terminate.wait())
        try:
            code = await self._until_stopped(terminated)
            for stop in list(self._stops.values()):
                stop.set()
            await self._clean_up(selector)
            return code
        finally:
            for task in (watch, terminated):
                task.cancel()
            for stop in list(self._stops.values()):
                stop.set()
            await asyncio.gather(watch, terminated, return_exceptions=True)

    async def _until_stopped(self, terminated: asyncio.Task[Any]) -> int:
        while not terminated.done():
            self._news.clear()
            for instruction in self._allocation.step(self._pace.now()):
                if isinstance(instruction, Stop):
                    return instruction.exit_code
                await self._carry_out(instruction)
            now = self._pace.now()
            seconds = self._allocation.next_step(now) - now
            if seconds > 0 and not self._news.is_set():
                news = asyncio.ensure_future(self._news.wait())
                timeout = None if math.isinf(seconds) else self._pace.real(seconds)
                await asyncio.wait((news, terminated), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
            else:
                await asyncio.sleep(0)  # others must have their turn, whatever is due now
        return SIGTERM_EXIT_CODE

    async def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Create(executors):
                await self._create(executors)
            case Release(executors):
                for executor in executors:
                    if stop := self._stops.get(executor):
                        stop.set()
            case Remove(executors):
                for executor in executors:
                    await self._remove(executor)
            case DeletePending(executors):
                ids = ",".join(map(str, executors))
                await self._client.delete_collection(
                    _PODS,
                    self._namespace,
                    label_selector=f"{self._selector},{SPARK_EXEC_ID_LABEL} in ({ids})",
                    field_selector="status.phase=Pending",
                )

    async def _create(self, executors: tuple[int, ...]) -> None:
        """One after the other, as Spark's single allocator thread does."""
        for position, executor in enumerate(executors):
            try:
                await self._client.create(_PODS, executor_pod(self._template, executor), self._namespace)
            except ApiError:
                if not self._settings.failed_creations_count:
                    self._allocation.creation_failed(executors[position:], self._pace.now())
                    return
                self._allocation.creation_failed((executor,), self._pace.now())

    async def _remove(self, executor: int) -> None:
        """``ExecutorPodsLifecycleManager``: look whether the pod is there, then delete it."""
        name = f"{self._template.prefix}-exec-{executor}"
        try:
            await self._client.get(_PODS, name, self._namespace)
            await self._client.delete(_PODS, name, self._namespace)
        except ApiError as error:
            if not error.not_found:
                raise

    async def _clean_up(self, executors: str) -> None:
        """The four collection deletes of ``SparkContext.stop``."""
        for resource, selector in (
            (_SERVICES, self._selector),
            (_CLAIMS, self._selector),
            (_PODS, executors),
            (_CONFIG_MAPS, executors),
        ):
            await self._client.delete_collection(resource, self._namespace, label_selector=selector)

    def _on_pod(self, event: WatchedEvent[Pod]) -> None:
        if isinstance(event, Deleted):
            self._allocation.pod_gone(_executor_id(event.name), self._pace.now())
        elif isinstance(event, Added | Modified):
            pod = event.object
            deleting = pod.metadata.deletion_timestamp is not None
            executor = _executor_id(pod.metadata.name)
            self._allocation.pod_seen(executor, pod.status.phase, deleting, self._pace.now())
        self._news.set()


def _executor_id(pod_name: str) -> int:
    return int(pod_name.rpartition("-")[2])
