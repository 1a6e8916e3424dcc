"""A real kube-apiserver, kube-scheduler and kube-controller-manager with Muster on it, for the tests of this folder.

Three parts, each a context of its own, so that a test takes what it needs: `control_plane` (with the custom resources
and the namespaces), `muster_service` (the service in the process of the test) and `real_cluster` (both, virtual nodes).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from muster.control.config import parse
from muster.control.metrics import Metrics
from muster.control.serve import Service
from muster.devcluster.control_plane import ControlPlane
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_application import VirtualApplication
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark, submit
from muster.kube.client import Client
from muster.kube.config import ClusterAccess, load_access
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource
from muster.kube.objects import Pod
from muster.kube.resources import GANGS, Gang

NAMESPACE = "team-a"
SYSTEM_NAMESPACE = "muster-system"
ACCOUNTS = Resource[dict[str, Any]]("", "v1", "serviceaccounts", "ServiceAccount", dict)


async def until(what: str, holds: Callable[[], Awaitable[Any]], seconds: float = 90) -> Any:
    """What `holds` answers as soon as that is true; fails with `what` after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await holds()
                if answer:
                    return answer
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"did not come true in {seconds:.0f} s: {what}") from None


class Applications:
    """What a test asks about Spark applications of one namespace and their gangs."""

    def __init__(self, client: Client, namespace: str = NAMESPACE) -> None:
        self.client = client
        self.namespace = namespace

    async def pods(self, application: str, role: str) -> list[Pod]:
        selector = f"spark-app-selector={application},spark-role={role}"
        return await self.client.list(PODS, self.namespace, label_selector=selector)

    async def gang(self, application: str) -> Gang | None:
        gangs = await self.client.list(GANGS, self.namespace)
        return next((gang for gang in gangs if gang.metadata.name == application), None)

    async def expect_phase(self, application: str, phase: str, seconds: float = 90) -> Gang:
        async def holds() -> Gang | None:
            gang = await self.gang(application)
            return gang if gang is not None and gang.status.phase == phase else None

        gang: Gang = await until(f"{application} is {phase}", holds, seconds)
        return gang

    async def expect_succeeded(self, application: str, seconds: float = 90) -> None:
        async def holds() -> bool:
            return [pod.status.phase for pod in await self.pods(application, "driver")] == ["Succeeded"]

        await until(f"{application} succeeds", holds, seconds)

    async def expect_executors(self, application: str, count: int, seconds: float = 90) -> list[Pod]:
        async def holds() -> list[Pod] | None:
            bound = [pod for pod in await self.pods(application, "executor") if pod.spec.node_name]
            return bound if len(bound) == count else None

        bound: list[Pod] = await until(f"{application} has {count} executors", holds, seconds)
        return bound


class RealCluster(Applications):
    """Virtual Spark on virtual nodes of a real control plane."""

    def __init__(self, client: Client, kubelets: VirtualKubelets) -> None:
        super().__init__(client)
        self.kubelets = kubelets

    async def submit(self, name: str, **more: Any) -> str:
        return (await submit(self.client, VirtualApplication(name, namespace=NAMESPACE, **more))).application_id


@asynccontextmanager
async def control_plane(folder: Path, **options: Any) -> AsyncIterator[tuple[ControlPlane, Client]]:
    """The control plane with Muster's custom resources, both namespaces and an admin's client."""
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, **options))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent="test"))
        for definition in (gang_definition(), queue_definition()):
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        for namespace in (NAMESPACE, SYSTEM_NAMESPACE):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            await client.create(NAMESPACES, body)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spark"}}
        await client.create(ACCOUNTS, account, NAMESPACE)
        yield plane, client


async def is_asked(service: Service, client: Client) -> bool:
    """Whether the webhook is in force: the API server takes up its configuration through a watch of its own.

    The service is asked about a driver that is created for show only (a dry run), too.
    """
    labels = {"spark-role": "driver", "spark-app-selector": "dry-run"}
    driver = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "dry-run", "labels": labels},
        "spec": {"serviceAccountName": "spark", "containers": [{"name": "driver", "image": "none"}]},
    }
    url = f"{client.access.server}{PODS.path(NAMESPACE)}?dryRun=All"
    headers = {"Authorization": await client.access.credentials.authorization() or ""}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client.access.tls or True)) as http,
        http.post(url, json=driver, headers=headers) as answer,
    ):
        assert answer.status == 201, await answer.text()
    labels = {"role": "driver", "answer": "gate"}
    return bool(service.metrics.registry.get_sample_value("muster_admissions_total", labels))


@asynccontextmanager
async def muster_service(access: ClusterAccess, identity: str = "real", **config: Any) -> AsyncIterator[Service]:
    """Muster inside this process, synced, with its webhook registered and in force; stopped in the end."""
    settings = parse(
        {
            "webhook": {"port": 0, "url": "https://127.0.0.1:0/mutate"},
            "management": {"port": 0},
            "lease": {"duration": "5s", "renewDeadline": "3s", "retryPeriod": "0.5s"},
            "validate": True,
        }
        | config,
        "test",
    )
    async with Client(access) as client:
        service = Service(settings, client, Metrics(), identity)
        running = asyncio.create_task(service.run())

        async def serves() -> bool:
            if running.done():
                running.result()
            controller = service.controller
            return service.webhook_registered and controller is not None and controller.synced.is_set()

        try:
            await until("Muster serves", serves)
            await until("the API server asks the webhook", lambda: is_asked(service, client))
            yield service
        finally:
            service.stop()
            await running


@asynccontextmanager
async def real_cluster(
    folder: Path, *pools: NodePool, speed: float = 30.0, **config: Any
) -> AsyncIterator[RealCluster]:
    async with AsyncExitStack() as stack:
        plane, client = await stack.enter_async_context(control_plane(folder))
        pace = Pace(speed)
        spark = VirtualSpark(client, pace)
        kubelets = await stack.enter_async_context(VirtualKubelets(client, pools, pace, spark.program))
        await stack.enter_async_context(muster_service(load_access(plane.kubeconfig), **config))
        yield RealCluster(client, kubelets)
