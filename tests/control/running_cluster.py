"""A small embedded cluster with Muster running on it, in one process, and words to say what should happen there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from muster.control.config import ServeConfig, parse
from muster.control.metrics import Metrics
from muster.control.serve import Service
from muster.devcluster.cluster import DevCluster
from muster.devcluster.distribution import ensure_spark
from muster.devcluster.node_pool import NodePool
from muster.devcluster.submission_objects import (
    Identity,
    driver_config_map,
    driver_pod,
    owner_reference,
    properties_of,
)
from muster.devcluster.virtual_application import VirtualApplication
from muster.kube.client import Client
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.kinds import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, PODS
from muster.kube.objects import Pod
from muster.kube.resources import GANGS, Gang

NAMESPACE = "team-a"
PATIENCE = 60.0
"""Seconds until what should happen counts as not happening; the machine may be busy."""


class RunningCluster:
    """``expect_…`` wait until something holds; every other method acts at once."""

    def __init__(self, cluster: DevCluster, config: ServeConfig) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.config = config
        self.service: Service | None = None
        self._running: asyncio.Task[None] | None = None
        self._service_client: Client | None = None

    async def start_muster(self) -> None:
        metrics = Metrics()
        self._service_client = await Client(self.cluster.access, user_agent="muster").__aenter__()
        self.service = Service(self.config, self._service_client, metrics, f"test_{id(metrics)}")
        self._running = asyncio.create_task(self.service.run())
        await self.until(lambda: self._is_serving(), "Muster serves and leads")

    async def stop_muster(self) -> None:
        assert self.service is not None and self._running is not None and self._service_client is not None
        self.service.stop()
        await self._running
        await self._service_client.close()
        self.service = self._running = self._service_client = None

    async def submit(self, name: str, **more: Any) -> str:
        """Returns the application id."""
        identity = await self.cluster.submit(VirtualApplication(name, namespace=NAMESPACE, **more))
        return identity.application_id

    async def submit_text(self, name: str, properties: str | None) -> str:
        """A driver as spark-submit creates it, and a ConfigMap with a text that spark-submit might refuse to write.

        ``None``: the submitter was killed before the ConfigMap.
        """
        application = VirtualApplication(name, namespace=NAMESPACE)
        identity = Identity.of(name)
        usual = properties_of(application, identity, self.cluster.api.url, 0)
        pod = await self.client.create(PODS, driver_pod(application, identity, usual), NAMESPACE)
        if properties is not None:
            owner = owner_reference(identity.driver_pod, pod.metadata.uid)
            body = driver_config_map(application, identity, owner, usual, "")
            body["data"]["spark.properties"] = properties
            await self.client.create(CONFIG_MAPS, body, NAMESPACE)
        return identity.application_id

    async def pods(self, application: str, role: str = "executor") -> list[Pod]:
        selector = f"spark-app-selector={application},spark-role={role}"
        return await self.client.list(PODS, NAMESPACE, label_selector=selector)

    async def driver(self, application: str) -> Pod:
        [driver] = await self.pods(application, "driver")
        return driver

    async def gang(self, application: str) -> Gang | None:
        return next((g for g in await self.client.list(GANGS, NAMESPACE) if g.metadata.name == application), None)

    async def why(self, application: str) -> tuple[int, Any]:
        assert self.service is not None
        port = self.service.management_port
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}/why", params={"application": f"{NAMESPACE}/{application}"}) as answer,
        ):
            return answer.status, await answer.json()

    async def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Ask again and again, until the answer is truthy; returns it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            answer = holds()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            if self._running is not None and self._running.done():
                self._running.result()
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"did not happen within {PATIENCE:.0f} s: {what}")
            await asyncio.sleep(0.05)

    async def expect_phase(self, application: str, phase: str) -> Gang:
        async def holds() -> Gang | None:
            gang = await self.gang(application)
            return gang if gang is not None and gang.status.phase == phase else None

        gang: Gang = await self.until(holds, f"gang {application} is {phase}")
        return gang

    async def expect_succeeded(self, application: str) -> None:
        async def holds() -> bool:
            return (await self.driver(application)).status.phase == "Succeeded"

        await self.until(holds, f"driver of {application} succeeds")

    async def expect_executors(self, application: str, count: int) -> list[Pod]:
        """That many executors have a node."""

        async def holds() -> list[Pod] | None:
            bound = [pod for pod in await self.pods(application) if pod.spec.node_name]
            return bound if len(bound) == count else None

        bound: list[Pod] = await self.until(holds, f"{application} has {count} executors on nodes")
        return bound

    def _is_serving(self) -> bool:
        service = self.service
        assert service is not None
        return service.webhook_registered and service.controller is not None and service.controller.synced.is_set()


@asynccontextmanager
async def running_cluster(
    *pools: NodePool,
    speed: float = 60.0,
    muster: bool = True,
    processes: bool = False,
    folder: Path | None = None,
    spark_home: Callable[[str], Path] = ensure_spark,
    **config: Any,
) -> AsyncIterator[RunningCluster]:
    """A cluster with the custom resources installed, and Muster on it unless ``muster`` is false."""
    async with DevCluster(
        pools or (NodePool(count=4),),
        speed=speed,
        processes=processes,
        namespaces=(NAMESPACE, "muster-system"),
        folder=folder,
        spark_home=spark_home,
    ) as dev:
        for definition in (gang_definition(), queue_definition()):
            await dev.client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        settings = parse(
            {
                "webhook": {"port": 0, "url": "https://127.0.0.1:0/mutate"},
                "management": {"port": 0},
                "lease": {"duration": "2s", "renewDeadline": "1s", "retryPeriod": "0.2s"},
                "validate": True,
            }
            | config,
            "test",
        )
        running = RunningCluster(dev, settings)
        if muster:
            await running.start_muster()
        try:
            yield running
        finally:
            if running.service is not None:
                await running.stop_muster()
