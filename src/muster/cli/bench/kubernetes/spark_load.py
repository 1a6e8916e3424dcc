"""The program that plays Spark: it submits applications and, once a driver is bound, creates the driver's executors.

A process of its own, so that its CPU time is nobody else's, and the same one in every mode. It reads one ``LoadSpec``
and then ``Order`` values from stdin and writes ``Progress`` and at last a ``Result`` to stdout, one JSON value a line.

The objects are those of Spark 4.3: spark-submit's driver pod and ConfigMap, the driver's executor pods. As in
``ExecutorPodsAllocator`` a driver creates its executors one after the other, in batches of 10, a second apart.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from muster.cli.bench.kubernetes.audit import ApplicationPods
from muster.devcluster.executor_allocation import batch_size
from muster.devcluster.executor_objects import executor_pod, executor_template
from muster.devcluster.node_pool import pod_network
from muster.devcluster.submission_objects import (
    Identity,
    driver_config_map,
    driver_pod,
    owner_reference,
    properties_of,
)
from muster.devcluster.virtual_application import VirtualApplication, minor
from muster.devcluster.virtual_spark import java_date
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import CONFIG_MAPS, PODS
from muster.kube.list_watch import Added, ListWatch, Modified, Synced, WatchedEvent
from muster.kube.objects import KubeStruct, ObjectMeta, PartialObject, Present

USER_AGENT = "spark-load"
SPARK_VERSION = "4.3.0"
BATCH_DELAY = 1.0
"""``spark.kubernetes.allocation.batch.delay``, in seconds."""
SUBMITTERS = 8
"""Submissions under way at a time."""
PROGRESS_SECONDS = 0.5


class LoadSpec(msgspec.Struct, frozen=True):
    kubeconfig: str
    namespace: str
    applications: int
    executors: int
    """Of each application."""
    qps: float
    """Requests a second at most."""
    in_flight: int
    """Requests at a time at most."""
    nodes: tuple[str, ...] = ()
    """Where to bind the pods at their creation, in turn; empty leaves that to others."""


Order = Literal["start", "end", "quit"]
"""``end``: the drivers succeed, as far as the API server can tell."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    created: int
    bound: int


class Result(msgspec.Struct, frozen=True, tag=True):
    applications: tuple[ApplicationPods, ...]
    born_bound: int
    """Executors that had a node in their first state."""


class _BoundSpec(KubeStruct, frozen=True):
    node_name: str = ""


class _BoundPod(KubeStruct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _BoundSpec = _BoundSpec()


_PODS = PODS.decoding_to(Present)
_CONFIG_MAPS = CONFIG_MAPS.decoding_to(Present)


class Limiter:
    """At most ``qps`` beginnings a second and ``in_flight`` at a time; who came first goes first."""

    def __init__(self, qps: float, in_flight: int) -> None:
        self._interval = 1 / qps
        self._places = asyncio.Semaphore(in_flight)
        self._next = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._places:
            now = time.monotonic()
            begin = self._next = max(now, self._next + self._interval)
            if begin > now:
                await asyncio.sleep(begin - now)
            yield


class SparkLoad:
    """One load: ``run`` it once."""

    def __init__(self, client: Client, spec: LoadSpec) -> None:
        self._client = client
        self._spec = spec
        self._limiter = Limiter(spec.qps, spec.in_flight)
        self._bound: set[str] = set()
        self._born_bound: set[str] = set()
        self._created = 0
        self._names: set[str] = set()
        self._driver_bound: dict[str, asyncio.Event] = {}
        self._all_bound = asyncio.Event()
        self._applications: list[ApplicationPods] = []

    @property
    def progress(self) -> Progress:
        return Progress(self._created, len(self._bound))

    async def follow(self, synced: asyncio.Event) -> None:
        """The one watch: it tells when pods are bound. Until cancelled."""

        def sink(event: WatchedEvent[_BoundPod]) -> None:
            if isinstance(event, Synced):
                synced.set()
            elif isinstance(event, Added | Modified) and event.object.spec.node_name:
                self._on_bound(event.object.metadata.name, at_birth=isinstance(event, Added))

        await ListWatch(self._client, PODS.decoding_to(_BoundPod), self._spec.namespace).run(sink)

    async def run(self) -> Result:
        """Submit everything and wait until every pod is bound."""
        numbers = iter(range(self._spec.applications))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SUBMITTERS):
                tasks.create_task(self._submit_all(numbers, tasks))
        await self._all_bound.wait()
        executors = {name for application in self._applications for name in application.executors}
        return Result(tuple(self._applications), len(self._born_bound & executors))

    async def end_drivers(self) -> None:
        """As their kubelets would report it."""
        async with asyncio.TaskGroup() as tasks:
            for application in self._applications:
                tasks.create_task(self._succeed(application.driver))

    async def _submit_all(self, numbers: Any, tasks: asyncio.TaskGroup) -> None:
        for number in numbers:
            await self._submit(number, tasks)

    async def _submit(self, number: int, tasks: asyncio.TaskGroup) -> None:
        """Driver pod, then its ConfigMap, as ``KubernetesClientApplication`` does; then its driver runs by itself."""
        application = VirtualApplication(
            f"bench-{number}",
            namespace=self._spec.namespace,
            executors=self._spec.executors,
            spark_version=SPARK_VERSION,
        )
        identity = Identity.of(application.name)
        properties = properties_of(application, identity, self._client.access.server, int(time.time() * 1000))
        body = driver_pod(application, identity, properties)
        self._names.add(identity.driver_pod)
        self._driver_bound[identity.driver_pod] = asyncio.Event()
        async with self._limiter.turn():
            pod = await self._client.create(PODS.decoding_to(PartialObject), self._placed(body), application.namespace)
        self._created += 1
        owner = owner_reference(identity.driver_pod, pod.metadata.uid)
        config_map = driver_config_map(application, identity, owner, properties, java_date())
        async with self._limiter.turn():
            await self._client.apply(_CONFIG_MAPS, config_map, field_manager="fabric8")
        tasks.create_task(self._drive(number, identity.driver_pod, owner, properties))

    async def _drive(self, number: int, driver: str, owner: dict[str, Any], properties: dict[str, str]) -> None:
        await self._driver_bound[driver].wait()
        address = f"{pod_network(number // 250)}.{number % 250 + 2}"
        template = executor_template(properties, SPARK_VERSION, owner, address, f"/var/data/spark-{owner['uid']}")
        bodies = [executor_pod(template, number) for number in range(1, self._spec.executors + 1)]
        executors = tuple(body["metadata"]["name"] for body in bodies)
        self._names.update(executors)
        self._applications.append(ApplicationPods(driver, executors))
        size = batch_size(minor(SPARK_VERSION))
        loop = asyncio.get_running_loop()
        for first in range(0, len(bodies), size):
            next_batch = loop.time() + BATCH_DELAY
            for body in bodies[first : first + size]:
                async with self._limiter.turn():
                    await self._client.create(_PODS, self._placed(body), self._spec.namespace)
                self._created += 1
            if first + size < len(bodies):
                await asyncio.sleep(max(0.0, next_batch - loop.time()))

    def _placed(self, body: dict[str, Any]) -> dict[str, Any]:
        nodes = self._spec.nodes
        return body | {"spec": body["spec"] | {"nodeName": nodes[self._created % len(nodes)]}} if nodes else body

    def _on_bound(self, name: str, *, at_birth: bool) -> None:
        if name not in self._names or name in self._bound:
            return
        self._bound.add(name)
        if at_birth:
            self._born_bound.add(name)
        if driver := self._driver_bound.get(name):
            driver.set()
        if len(self._bound) == self._spec.applications * (1 + self._spec.executors):
            self._all_bound.set()

    async def _succeed(self, driver: str) -> None:
        async with self._limiter.turn():
            status = {"status": {"phase": "Succeeded"}}
            await self._client.patch(_PODS, driver, status, self._spec.namespace, subresource="status")


async def main() -> None:
    """Read the spec, obey the orders."""
    lines = await _stdin()
    spec = msgspec.json.decode(await lines.readline(), type=LoadSpec)
    async with Client(load_access(spec.kubeconfig), user_agent=USER_AGENT) as client:
        load = SparkLoad(client, spec)
        synced = asyncio.Event()
        tasks = [asyncio.create_task(load.follow(synced)), asyncio.create_task(_tell_progress(load))]
        try:
            await synced.wait()
            _tell(load.progress)
            while order := (await lines.readline()).strip().decode():
                if order == "start":
                    _tell(await load.run())
                elif order == "end":
                    await load.end_drivers()
                    _tell(load.progress)
                else:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_progress(load: SparkLoad) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        _tell(load.progress)


def _tell(value: Progress | Result) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


if __name__ == "__main__":
    asyncio.run(main())
