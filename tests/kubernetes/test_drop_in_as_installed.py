"""The drop-in with the objects, configuration and rights of `muster manifests --extender`, on a real API server: old
and new clients of its resources, no right too many or too few, and a replica that is killed under load.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from muster.control.extender.definitions import RESERVATIONS_NAME
from muster.control.extender.demands import DEMANDS
from muster.control.extender.manifests import extender_role
from muster.control.extender.reservations import RESOURCE_RESERVATIONS, SPEC_ANNOTATION
from muster.kube.kinds import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, PODS, Resource
from muster.kube.objects import Pod
from tests.kubernetes.audit_trail import permissions, uses
from tests.kubernetes.installed_extender import JOBS, USER, Extender, InstalledExtender, Process, installed_extender
from tests.kubernetes.real_cluster import until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

UNTYPED: type[dict[str, Any]] = dict
V1BETA1 = Resource(
    RESOURCE_RESERVATIONS.group, "v1beta1", RESOURCE_RESERVATIONS.plural, RESOURCE_RESERVATIONS.kind, UNTYPED
)
NODES = ["n1", "n2", "n3"]


async def scheduled(cluster: InstalledExtender, extender: Extender, app: str, executors: int) -> list[Pod]:
    """A driver and its executors, asked about and bound."""
    pods = [await cluster.driver(app, executors)]
    assert await cluster.schedule(extender, pods[0], NODES)
    for number in range(executors):
        pods.append(await cluster.executor(app, number))
        assert await cluster.schedule(extender, pods[-1], NODES)

    async def written() -> bool:
        found = await cluster.reservation(app)
        return found is not None and len(found.status.pods) == executors + 1

    await until(f"the reservation of {app} names all its pods", written)
    return pods


async def test_clients_of_either_version_read_and_write_what_the_other_one_stored(tmp_path: Path) -> None:
    async with installed_extender(tmp_path, controllers=False) as cluster:
        for name in NODES:
            await cluster.node(name)
        # a cluster that never had v1beta1: stored as v1beta2
        plain = await cluster.extender("plain", webhook=False)
        await scheduled(cluster, plain, "new", 1)
        await plain.stop()

        extender = await cluster.extender("converting")
        definition = await cluster.client.get(CUSTOM_RESOURCE_DEFINITIONS, RESERVATIONS_NAME)
        webhook = definition["spec"]["conversion"]["webhook"]["clientConfig"]
        assert webhook["caBundle"] == b64encode(cluster.authority).decode()
        assert webhook["service"] == {
            "namespace": "spark",
            "name": "spark-scheduler",
            "port": cluster.balancer.port,
            "path": "/spark-scheduler/convert",
        }
        assert {version["name"]: version["storage"] for version in definition["spec"]["versions"]} == {
            "v1beta1": True,
            "v1beta2": False,
        }

        async def old(app: str) -> dict[str, Any]:
            return await cluster.client.get(V1BETA1, app, JOBS)

        new = await cluster.reservation("new")
        assert new is not None
        converted = await old("new")
        slot = new.spec.reservations["executor-1"]
        assert converted["spec"]["reservations"]["executor-1"] == {"node": slot.node, "cpu": "1", "memory": "1Gi"}
        assert converted["status"]["pods"] == new.status.pods
        assert SPEC_ANNOTATION in converted["metadata"]["annotations"]

        # and the other way: written by an old client, read by Muster, which goes on with it
        pods = await scheduled(cluster, extender, "app", 2)
        written = await old("app")
        written["status"]["pods"]["executor-2"] = "by-hand"
        await cluster.client.replace(V1BETA1, "app", written, JOBS)

        async def mended() -> bool:
            found = await cluster.reservation("app")
            return found is not None and set(found.status.pods.values()) == {pod.metadata.name for pod in pods}

        # somebody asks, so Muster writes: the executor runs, and has its slot back
        other = await cluster.driver("other", 0)
        assert await cluster.ask(extender, other, NODES)
        await until("the reservation names the executor that runs again", mended)
        kept = await cluster.reservation("app")
        assert kept is not None
        assert kept.spec.reservations["executor-1"].resources["nvidia.com/gpu"] == "0", "not known to v1beta1"


async def test_each_right_is_used_and_none_is_missing(tmp_path: Path) -> None:
    async with installed_extender(
        tmp_path, kube_scheduler_rights=False, controllers=False, audit_reads=True
    ) as cluster:
        client = cluster.client
        for name in NODES:
            await cluster.node(name)
        quick = {"unschedulable-pod-timeout-duration": "1ns"}
        first = await cluster.extender(**quick)
        pods = await scheduled(cluster, first, "app", 5)
        await first.stop()
        # the definition is changed by the configuration
        extender = await cluster.extender(**quick, **{"resource-reservation-crd-annotations": {"team": "data"}})

        # demands come, change, and go; a driver that waited is asked about again
        huge = await cluster.driver("huge", 100)
        assert await cluster.ask(extender, huge, NODES) == ""
        waiting = await cluster.driver("waiting", 20)
        assert await cluster.ask(extender, waiting, NODES) == ""

        async def demanded(app: str) -> int:
            found = {each.metadata.name: each for each in await client.list(DEMANDS, JOBS)}.get(f"demand-{app}-driver")
            return found.spec.units[1].count if found is not None else 0

        async def has(app: str, count: int) -> bool:
            return await demanded(app) == count

        await until("the waiting driver demands room", lambda: has("waiting", 20))
        fewer = {
            "spark-dynamic-allocation-min-executor-count": "19",
            "spark-dynamic-allocation-max-executor-count": "19",
        }
        await client.patch(PODS, "waiting-driver", {"metadata": {"annotations": fewer}}, JOBS)
        await until("it demands less", lambda: has("waiting", 19))
        for pod in pods:
            await cluster.delete(pod)

        async def asked_again() -> bool:
            return "muster.dev/ask-again" in (await cluster.pods())["waiting-driver"].metadata.annotations

        await until("kube-scheduler is made to ask again", asked_again)
        assert await cluster.schedule(extender, waiting, NODES)
        await until("its demand is gone", lambda: has("waiting", 0))

        # an application id that is used again: the old reservation goes, whose owner is gone
        again = await cluster.driver("app", 1)
        assert await cluster.schedule(extender, again, NODES)

        async def of_the_new_one() -> bool:
            found = await cluster.reservation("app")
            return found is not None and found.metadata.owner_references[0].uid == again.metadata.uid

        await until("there is a reservation of the new driver", of_the_new_one)

        await cluster.driver("wrong", 1, **{"spark-driver-cpu": "many"})

        async def told() -> bool:
            return any(event.reason == "InvalidSize" for event in await client.list(EVENTS, JOBS))

        await until("people are told of the mistake", told)

        async def marked() -> bool:
            conditions = (await cluster.pods())["huge-driver"].status.conditions
            return any(each.type == "PodExceedsClusterCapacity" and each.status == "True" for each in conditions)

        await until("the driver that never fits is marked", marked, 100)

        calls = list(uses(cluster.plane.audit_log, USER))
        assert [call for call in calls if call.code in (401, 403)] == []
        unused = [one for one in permissions(extender_role()) if not any(one.allows(call) for call in calls)]
        # a single object is read only after a conflict with somebody else's write, which does not happen here
        assert [(one.verb, one.resource) for one in unused] == [("get", "resourcereservations"), ("get", "demands")]


class Pair:
    """A replica: an extender and the kube-scheduler beside it."""

    def __init__(self, extender: Extender, scheduler: Process) -> None:
        self.extender = extender
        self.scheduler = scheduler

    async def kill(self) -> None:
        """As when their machine is lost."""
        self.scheduler.process.kill()
        self.extender.process.kill()
        await self.scheduler.process.wait()
        await self.extender.process.wait()


async def start_pair(cluster: InstalledExtender, name: str) -> Pair:
    extender = await cluster.extender(name)
    return Pair(extender, await cluster.kube_scheduler(f"{name}-scheduler", extender))


async def creating(cluster: InstalledExtender, app: str, numbers: range) -> None:
    """As a Spark driver does."""
    for number in numbers:
        await cluster.executor(app, number)
        await asyncio.sleep(0.05)


async def test_a_killed_leader_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with installed_extender(tmp_path, controllers=False) as cluster:
        for number in range(6):
            await cluster.node(f"n{number}", cpu="10")
        leader = await start_pair(cluster, "first")
        driver = await cluster.driver("app", 20, 25)

        async def bound() -> list[Pod]:
            return [pod for pod in (await cluster.pods()).values() if pod.spec.node_name]

        async def count(expected: int) -> bool:
            return len(await bound()) >= expected

        await until("the driver is bound", lambda: count(1))
        follower = await start_pair(cluster, "second")
        waiting = await cluster.driver("waiting", 40)
        executors = asyncio.create_task(creating(cluster, "app", range(20)))
        await until("some executors are bound", lambda: count(6))

        await leader.kill()
        await executors
        await until("every executor is bound", lambda: count(21))

        assert await follower.extender.asked() >= 14, "it was the other one that was asked"
        pods = await cluster.pods()
        assert pods[driver.metadata.name].spec.node_name
        assert not pods[waiting.metadata.name].spec.node_name, "there is no room for its gang"
        load = Counter(pod.spec.node_name for pod in pods.values() if pod.spec.node_name)
        assert max(load.values()) <= 10
        executors_of = {name: pod.spec.node_name for name, pod in pods.items() if name.startswith("app-exec")}

        async def in_step() -> bool:
            found = await cluster.reservation("app")
            assert found is not None
            slots = {pod: slot.node for name, slot, pod in found.slots() if name != "driver"}
            return len(slots) == 20 and all(executors_of.get(pod) == node for pod, node in slots.items())

        await until("each slot names one executor, and its node", in_step)
        found = await cluster.reservation("app")
        assert found is not None and len(found.spec.reservations) == 21

        # a third one knows nothing but what the API server has, and goes on; above the minimum, too
        third = await start_pair(cluster, "third")
        await follower.kill()
        await cluster.delete(waiting)
        await cluster.executor("app", 20)
        await until("an executor above the minimum is bound", lambda: count(22))
        assert await third.extender.asked() > 0
        await until("no slot is another's now", in_step)
