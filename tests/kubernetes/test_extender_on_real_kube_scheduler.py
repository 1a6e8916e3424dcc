"""A real kube-scheduler asks the extender, as the archived scheduler's users have configured it; nodes are virtual."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.control.extender.demands import DEMANDS
from muster.devcluster.control_plane import ControlPlane, free_ports
from muster.devcluster.node_pool import NodePool
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_kubelet import VirtualKubelets
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.errors import ApiError
from muster.kube.kinds import EVENTS, NODES, PODS
from muster.kube.objects import Pod
from tests.extender.running_extender import CONTEXT, GROUP, RunningExtender
from tests.kubernetes.real_cluster import ACCOUNTS, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]


class RealExtender(RunningExtender):
    """Pods are bound by kube-scheduler here."""

    async def node_of(self, pod: Pod) -> str:
        return (await self.client.get(PODS, pod.metadata.name, "default")).spec.node_name

    async def expect_bound(self, pod: Pod) -> str:
        node: str = await until(f"{pod.metadata.name} is bound", lambda: self.node_of(pod))
        return node

    async def expect_event(self, pod: Pod, text: str) -> None:
        async def told() -> bool:
            events = await self.client.list(EVENTS, "default")
            return any(
                each.involved_object.name == pod.metadata.name and text in each.message
                for each in events
                if each.reason == "FailedScheduling"
            )

        await until(f"kube-scheduler says of {pod.metadata.name}: {text}", told)

    async def delete(self, pod: Pod) -> None:
        await self.client.delete(PODS, pod.metadata.name, "default")


@asynccontextmanager
async def real_extender(folder: Path, nodes: int, **install: Any) -> AsyncIterator[RealExtender]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane(folder, scheduler=False))
        client = await stack.enter_async_context(Client(load_access(plane.kubeconfig), user_agent="test"))
        pools = (NodePool(count=nodes, cpu=8, labels={"resource_channel": GROUP}),)
        await stack.enter_async_context(VirtualKubelets(client, pools, Pace(30.0)))

        async def settled() -> bool:
            try:
                await client.get(ACCOUNTS, "default", "default")
            except ApiError as error:
                if not error.not_found:
                    raise
                return False
            return len(await client.list(NODES)) == nodes

        await until("nodes and the default service account are there", settled)
        [port] = free_ports(1)  # the same after a restart
        certificates = folder / "extender"
        certificates.mkdir()
        running = RealExtender(client, certificates, {"server": {"port": port}, **install})
        stack.push_async_callback(running.close)
        service = await running.start()
        await plane.start_scheduler(kube_scheduler_settings(service.port, certificates / "ca.crt"))
        yield running


def kube_scheduler_settings(port: int, authority: Path) -> dict[str, Any]:
    """As docs/migrating-from-palantir.md recommends."""
    return {
        "profiles": [
            {
                "schedulerName": "spark-scheduler",
                "percentageOfNodesToScore": 100,
                "plugins": {"postFilter": {"disabled": [{"name": "DefaultPreemption"}]}},
            }
        ],
        "extenders": [
            {
                "urlPrefix": f"https://127.0.0.1:{port}{CONTEXT}",
                "filterVerb": "predicates",
                "enableHTTPS": True,
                "tlsConfig": {"caFile": str(authority)},
                "nodeCacheCapable": True,
                "ignorable": False,
                "httpTimeout": "30s",
            }
        ],
    }


async def test_annotated_drivers_and_executors_are_scheduled_by_way_of_their_reservation(tmp_path: Path) -> None:
    async with real_extender(tmp_path, nodes=3) as real:
        driver = await real.driver(executors=4)
        node = await real.expect_bound(driver)
        executors = [await real.executor(f"exec-{number}") for number in range(4)]
        nodes = {pod.metadata.name: await real.expect_bound(pod) for pod in executors}

        async def is_written() -> bool:
            written = await real.reservation()
            slots = {name: (slot.node, pod) for name, slot, pod in written.slots()} if written is not None else {}
            driver_slot = slots.pop("driver", None)
            return driver_slot == (node, "app-driver") and {pod: where for where, pod in slots.values()} == nodes

        await until("the reservation names every pod and its node", is_written)

        one_more = await real.executor("exec-4")
        await real.expect_event(one_more, "application has no free executor spots to schedule this one")
        await real.delete(executors[0])
        await real.expect_bound(one_more)


async def test_a_gang_that_does_not_fit_waits_whole_demands_room_and_starts_when_there_is(tmp_path: Path) -> None:
    async with real_extender(tmp_path, nodes=2) as real:
        first = await real.driver("first", executors=5)
        await real.expect_bound(first)
        second = await real.driver("second", executors=5)
        third = await real.driver("third", executors=2)

        await real.expect_event(second, "application does not fit to the cluster")
        await real.expect_event(third, "earlier drivers do not fit to the cluster")

        async def demanded() -> bool:
            names = {each.metadata.name for each in await real.client.list(DEMANDS, "default")}
            return names == {"demand-second-driver", "demand-third-driver"}

        await until("both demand room", demanded)
        await real.stop()  # the extender is away: kube-scheduler binds nothing
        await real.start()

        await real.delete(first)
        await real.expect_bound(second)

        async def left() -> bool:
            names = {each.metadata.name for each in await real.client.list(DEMANDS, "default")}
            return names == {"demand-third-driver"} and await real.reservation("first") is None

        await until("its demand is gone, and the reservation of the first one", left)
