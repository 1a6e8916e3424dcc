"""Muster on a real kube-apiserver, kube-scheduler and kube-controller-manager; nodes and Spark are virtual."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

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
from muster.kube.config import load_access
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS, Resource
from muster.kube.objects import Pod
from muster.kube.resources import GANGS, Gang

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

NAMESPACE = "team-a"
ACCOUNTS = Resource[dict[str, Any]]("", "v1", "serviceaccounts", "ServiceAccount", dict)


class Real:
    def __init__(self, client: Client, kubelets: VirtualKubelets) -> None:
        self.client = client
        self.kubelets = kubelets

    async def submit(self, name: str, **more: Any) -> str:
        return (await submit(self.client, VirtualApplication(name, namespace=NAMESPACE, **more))).application_id

    async def pods(self, application: str, role: str) -> list[Pod]:
        selector = f"spark-app-selector={application},spark-role={role}"
        return await self.client.list(PODS, NAMESPACE, label_selector=selector)

    async def gang(self, application: str) -> Gang | None:
        return next((g for g in await self.client.list(GANGS, NAMESPACE) if g.metadata.name == application), None)

    async def until(self, what: str, holds: Any) -> Any:
        async with asyncio.timeout(90):
            while True:
                answer = await holds()
                if answer:
                    return answer
                await asyncio.sleep(0.2)
        raise AssertionError(what)

    async def expect_phase(self, application: str, phase: str) -> Gang:
        async def holds() -> Gang | None:
            gang = await self.gang(application)
            return gang if gang is not None and gang.status.phase == phase else None

        gang: Gang = await self.until(f"{application} is {phase}", holds)
        return gang

    async def expect_succeeded(self, application: str) -> None:
        async def holds() -> bool:
            return [pod.status.phase for pod in await self.pods(application, "driver")] == ["Succeeded"]

        await self.until(f"{application} succeeds", holds)

    async def expect_executors(self, application: str, count: int) -> list[Pod]:
        async def holds() -> list[Pod] | None:
            bound = [pod for pod in await self.pods(application, "executor") if pod.spec.node_name]
            return bound if len(bound) == count else None

        bound: list[Pod] = await self.until(f"{application} has {count} executors", holds)
        return bound


@asynccontextmanager
async def real_cluster(folder: Path, *pools: NodePool, speed: float = 30.0, **config: Any) -> AsyncIterator[Real]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder))
        access = load_access(plane.kubeconfig)
        client = await stack.enter_async_context(Client(access, user_agent="test"))
        for definition in (gang_definition(), queue_definition()):
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        for namespace in (NAMESPACE, "muster-system"):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
            await client.create(NAMESPACES, body)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spark"}}
        await client.create(ACCOUNTS, account, NAMESPACE)
        pace = Pace(speed)
        spark = VirtualSpark(client, pace)
        kubelets = await stack.enter_async_context(VirtualKubelets(client, pools, pace, spark.program))
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
        service_client = await stack.enter_async_context(Client(access))
        service = Service(settings, service_client, Metrics(), "real")
        running = asyncio.create_task(service.run())
        real = Real(client, kubelets)
        try:

            async def serves() -> bool:
                if running.done():
                    running.result()
                controller = service.controller
                return service.webhook_registered and controller is not None and controller.synced.is_set()

            await real.until("Muster serves", serves)
            await asyncio.sleep(1)  # kube-apiserver takes up webhook configurations through a watch of its own
            yield real
        finally:
            service.stop()
            await running


async def test_a_static_application_is_gated_reserved_released_and_its_executors_are_born_bound(tmp_path: Path) -> None:
    async with real_cluster(tmp_path, NodePool(count=3, cpu=8)) as real:
        application = await real.submit("pi", executors=3, run_seconds=120)
        executors = await real.expect_executors(application, 3)
        assert [pod.metadata.annotations["muster.dev/mode"] for pod in executors] == ["bind"] * 3
        gang = await real.expect_phase(application, "Running")
        [driver] = await real.pods(application, "driver")
        assert driver.spec.node_name == gang.spec.driver_node
        assert Counter(pod.spec.node_name for pod in executors) == {slot.node: slot.count for slot in gang.spec.slots}
        await real.expect_succeeded(application)
        await real.expect_phase(application, "Finished")
        assert real.kubelets.rejected == {}


async def test_several_compete_for_too_little_room_and_none_starts_half(tmp_path: Path) -> None:
    async with real_cluster(tmp_path, NodePool(count=2, cpu=8)) as real:
        applications = [await real.submit(f"app-{number}", executors=5, run_seconds=60) for number in range(5)]
        for application in applications:
            await real.expect_succeeded(application)
        assert real.kubelets.rejected == {}
        for application in applications:
            gang = await real.expect_phase(application, "Finished")
            assert sum(slot.count for slot in gang.spec.slots) in (0, 5)


async def test_pin_and_hold_are_released_by_patches_that_the_api_server_accepts(tmp_path: Path) -> None:
    async with real_cluster(tmp_path, NodePool(count=1, cpu=8), scheduling={"bind": False}) as real:
        first = await real.submit("first", executors=4, run_seconds=150)
        executors = await real.expect_executors(first, 4)
        assert {pod.metadata.annotations["muster.dev/mode"] for pod in executors} == {"pin"}
        growing = await real.submit("growing", dynamic=True, executors=0, max_executors=4, run_seconds=200)

        async def held() -> bool:
            return any(pod.spec.scheduling_gates for pod in await real.pods(growing, "executor"))

        await real.until("executors are held", held)
        await real.expect_succeeded(first)
        await real.expect_executors(growing, 4)
        await real.expect_succeeded(growing)
