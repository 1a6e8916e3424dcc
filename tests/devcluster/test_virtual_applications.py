"""Virtual Spark on a small embedded cluster, by ordinary scheduling: the API sees what real Spark makes it see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from muster.devcluster.cluster import DevCluster
from muster.devcluster.node_pool import NodePool
from muster.devcluster.submission_objects import (
    Identity,
    driver_config_map,
    driver_pod,
    owner_reference,
    properties_of,
)
from muster.devcluster.virtual_application import VirtualApplication
from muster.devcluster.virtual_spark import submit
from muster.kube.errors import ApiError
from muster.kube.kinds import CONFIG_MAPS, PODS, Resource
from muster.kube.list_watch import Added, Deleted, ListWatch, Modified
from muster.kube.objects import Pod

SERVICES = Resource[dict[str, Any]]("", "v1", "services", "Service", dict)


@pytest.fixture
async def cluster() -> AsyncIterator[DevCluster]:
    async with asyncio.timeout(30), DevCluster((NodePool(count=3, cpu=8, memory_gib=32),), speed=240) as running:
        yield running
        counters = running.counters()
        assert counters.problems == ()
        assert counters.overcommitted_nodes == 0


class History:
    """Everything that was seen of the pods of one application, in order."""

    def __init__(self) -> None:
        self.phases: dict[str, list[str]] = {}
        self.seen: dict[str, Pod] = {}
        self.gone: set[str] = set()
        self._changed = asyncio.Condition()

    async def watch(self, cluster: DevCluster, namespace: str = "default") -> None:
        async with aclosing(ListWatch(cluster.client, PODS, namespace).events()) as events:
            async for event in events:
                if isinstance(event, Added | Modified):
                    self._note(event.object)
                elif isinstance(event, Deleted):
                    self.gone.add(event.name)
                async with self._changed:
                    self._changed.notify_all()

    def _note(self, pod: Pod) -> None:
        name, phase = pod.metadata.name, pod.status.phase
        self.seen[name] = pod
        phases = self.phases.setdefault(name, [])
        if not phases or phases[-1] != phase:
            phases.append(phase)

    async def until_gone(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.gone) >= count)

    async def until_phase(self, name: str, phase: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: phase in self.phases.get(name, ()))

    async def until_running(self, prefix: str, count: int) -> list[str]:
        def running() -> list[str]:
            return [n for n, phases in self.phases.items() if n.startswith(prefix) and phases[-1] == "Running"]

        async with self._changed:
            await self._changed.wait_for(lambda: len(running()) >= count)
        return running()


@pytest.fixture
async def history(cluster: DevCluster) -> AsyncIterator[History]:
    seen = History()
    watch = asyncio.create_task(seen.watch(cluster))
    yield seen
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


def executors_of(history: History) -> dict[str, list[str]]:
    return {name: phases for name, phases in history.phases.items() if "-exec-" in name}


async def names(cluster: DevCluster, resource: Resource[Any]) -> set[str]:
    return {obj["metadata"]["name"] for obj in await cluster.client.list(resource.decoding_to(dict), "default")}


async def test_a_static_application_runs_and_leaves_its_driver_alone(cluster: DevCluster, history: History) -> None:
    submitted = await cluster.submit(VirtualApplication("pi", executors=2, run_seconds=60))
    assert await cluster.ended(submitted) == 0
    await history.until_gone(2)
    await history.until_phase(submitted.driver_pod, "Succeeded")
    assert history.phases[submitted.driver_pod] == ["Pending", "Running", "Succeeded"]
    assert list(executors_of(history).values()) == [["Pending", "Running", "Succeeded"]] * 2
    assert await names(cluster, PODS) == {submitted.driver_pod}
    # SparkContext.stop deletes by label; the driver's ConfigMap bears none and stays as long as the driver
    assert await names(cluster, CONFIG_MAPS) == {submitted.config_map, "kube-root-ca.crt"}
    assert await names(cluster, SERVICES) == set()


async def test_an_application_makes_the_calls_that_spark_makes_and_no_more(cluster: DevCluster) -> None:
    submitted = await cluster.submit(VirtualApplication("pi", executors=3, run_seconds=10))
    await cluster.ended(submitted)
    audit = cluster.api.audit
    by_spark = {"agent": "virtual-spark"}
    assert audit.count(verb="create", resource="pods", **by_spark) == 1 + 3
    assert audit.count(verb="patch", resource="services", **by_spark) == 1
    assert audit.count(verb="patch", resource="networkpolicies.networking.k8s.io", **by_spark) == 1
    assert audit.count(verb="patch", resource="configmaps", **by_spark) == 1
    assert audit.count(verb="create", resource="configmaps", **by_spark) == 1
    assert audit.count(verb="deletecollection", **by_spark) == 4
    assert audit.count(verb="watch", resource="pods", **by_spark) <= 1
    assert audit.count(verb="create", resource="pods/binding", agent="kube-scheduler") == 4


async def test_dynamic_allocation_grows_while_there_is_work_and_shrinks_in_the_tail(
    cluster: DevCluster, history: History
) -> None:
    application = VirtualApplication(
        "etl", executors=1, dynamic=True, max_executors=6, run_seconds=120, tail_seconds=180
    )
    submitted = await cluster.submit(application)
    running = await history.until_running("etl-", 1 + 6)
    assert len(running) == 7
    await history.until_gone(5)
    assert submitted.application_id not in cluster.spark.finished, "idle executors go while the application lives"
    assert await cluster.ended(submitted) == 0
    assert len(executors_of(history)) == 6


async def test_executors_belong_to_the_driver_and_go_with_it(cluster: DevCluster, history: History) -> None:
    submitted = await cluster.submit(VirtualApplication("long", executors=2, run_seconds=86400))
    await history.until_running("long-", 3)
    driver = history.seen[submitted.driver_pod]
    for name in executors_of(history):
        (owner,) = history.seen[name].metadata.owner_references
        assert (owner.kind, owner.name, owner.uid) == ("Pod", submitted.driver_pod, driver.metadata.uid)
    await cluster.client.delete(PODS, submitted.driver_pod, "default")
    await history.until_gone(3)
    assert await names(cluster, PODS) == set()


async def test_an_executor_that_is_deleted_is_replaced_under_the_next_number(
    cluster: DevCluster, history: History
) -> None:
    await cluster.submit(VirtualApplication("long", executors=2, run_seconds=86400))
    names_running = await history.until_running("long-", 3)
    victim = next(name for name in names_running if name.endswith("-exec-1"))
    await cluster.client.delete(PODS, victim, "default")
    await history.until_gone(1)
    assert {name.rpartition("-")[2] for name in await history.until_running("long-", 3)} == {"driver", "2", "3"}


async def test_more_than_the_cluster_holds_waits_and_says_why(cluster: DevCluster, history: History) -> None:
    # Three nodes of 7.91 allocatable cores: three executors of 7 cores fit beside nothing but a driver
    submitted = await cluster.submit(
        VirtualApplication("wide", executors=5, executor_cores=7, run_seconds=86400, driver_cores=1)
    )
    await history.until_running("wide-", 1 + 2)
    conditions: dict[str, str] = {}
    while not conditions:
        pods = await cluster.client.list(PODS, "default", field_selector="status.phase=Pending")
        conditions = {
            pod.metadata.name: condition.message
            for pod in pods
            for condition in pod.status.conditions
            if (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
        }
    assert all("Insufficient cpu" in message for message in conditions.values())
    await cluster.client.delete(PODS, submitted.driver_pod, "default")


async def test_a_driver_stays_pending_until_its_config_map_is_there(cluster: DevCluster, history: History) -> None:
    # A submitter that is killed between pod and ConfigMap leaves a driver that never starts
    application, identity = VirtualApplication("half", executors=1, run_seconds=1), Identity.of("half")
    properties = properties_of(application, identity, cluster.api.url, 0)
    pod = await cluster.client.create(PODS, driver_pod(application, identity, properties), "default")
    other = await cluster.submit(VirtualApplication("whole", executors=1, run_seconds=60))
    await cluster.ended(other)
    assert history.phases[identity.driver_pod] == ["Pending"]
    owner = owner_reference(identity.driver_pod, pod.metadata.uid)
    config_map = driver_config_map(application, identity, owner, properties, "now")
    await cluster.client.create(CONFIG_MAPS, config_map, "default")
    assert await cluster.ended(identity) == 0


async def test_an_application_that_fails_ends_with_its_exit_code(cluster: DevCluster, history: History) -> None:
    submitted = await cluster.submit(VirtualApplication("bad", executors=1, run_seconds=5, exit_code=3))
    assert await cluster.ended(submitted) == 3
    await history.until_phase(submitted.driver_pod, "Failed")
    (status,) = (await cluster.client.get(PODS, submitted.driver_pod, "default")).status.container_statuses
    assert status.state.terminated is not None
    assert (status.name, status.state.terminated.exit_code) == ("spark-kubernetes-driver", 3)


async def test_a_taken_name_is_refused_as_by_the_api(cluster: DevCluster) -> None:
    identity = Identity.of("twice")
    await submit(cluster.client, VirtualApplication("twice", executors=1, run_seconds=1), identity)
    with pytest.raises(ApiError) as refused:
        await submit(cluster.client, VirtualApplication("twice", executors=1, run_seconds=1), identity)
    assert refused.value.already_exists
    await cluster.spark.ended(identity.application_id)
