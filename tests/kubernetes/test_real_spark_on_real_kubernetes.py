"""The unmodified spark-submit, drivers and executors of Apache Spark, on real Kubernetes with Muster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from muster.control.serve import Service
from muster.devcluster.distribution import ensure_spark
from muster.devcluster.node_pool import NodePool
from muster.devcluster.real_spark import PI_JOB, SparkJob
from muster.kube.config import load_access
from muster.kube.kinds import PODS
from muster.kube.objects import Pod
from tests.kubernetes.onlooker import (
    ENDED,
    Onlooker,
    born_bound,
    first,
    half_started,
    is_extra,
    milestones,
    nodes_of,
    onlooker,
    overcommitted,
)
from tests.kubernetes.real_cluster import NAMESPACE, muster_service, until
from tests.kubernetes.real_spark_cluster import SparkCluster, spark_cluster

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.spark,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
]

JOBS = Path(__file__).parent / "jobs"
PLACES = 6
"""Pods of the size below that the two nodes hold together."""
SIZE = {"spark.kubernetes.driver.request.cores": "600m", "spark.kubernetes.executor.request.cores": "600m"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SparkCluster]:
    async with spark_cluster(tmp_path_factory.mktemp("real"), NodePool(count=2, cpu=2, memory_gib=8)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def seen(cluster: SparkCluster) -> AsyncIterator[Onlooker]:
    """Everything that happens in a test, in an empty namespace; afterwards nothing runs any more."""
    async with onlooker(cluster.client, NAMESPACE) as watcher:
        yield watcher
        try:
            await cluster.expect_nothing_left()
        finally:
            await cluster.delete_pods()


@pytest_asyncio.fixture(loop_scope="module")
async def muster(cluster: SparkCluster) -> AsyncIterator[Service]:
    async with muster_service(load_access(cluster.plane.kubeconfig)) as service:
        yield service
        assert service.controller is not None
        service.controller.scheduler.validate()


def pi(name: str, executors: int = 2, version: str = "4.3.0", **conf: str) -> SparkJob:
    return SparkJob(
        name,
        PI_JOB,
        ("4",),
        SIZE | {"spark.executor.instances": str(executors)} | conf,
        version,
        namespace=NAMESPACE,
    )


@pytest.mark.parametrize("version", ["4.3.0", "3.5.9"])
async def test_a_static_application_starts_whole_with_executors_born_bound(
    cluster: SparkCluster, muster: Service, seen: Onlooker, version: str
) -> None:
    name = f"static-{version.replace('.', '-')}"
    result = await cluster.run(pi(name, version=version))
    assert "Pi is roughly 3.1" in cluster.log(result.driver_pod)
    application = seen.application(name)
    gang = await cluster.expect_phase(application, "Finished")
    driver, executors = seen.driver(name), seen.executors(application)
    assert [gate.name for gate in driver[0].object.spec.scheduling_gates] == ["muster.dev/gang"]
    assert driver[-1].object.spec.node_name == gang.spec.driver_node
    assert [born_bound(each) for each in executors] == [True, True]
    assert not any(is_extra(each) for each in executors)
    assert nodes_of(executors) == {slot.node: slot.count for slot in gang.spec.slots}
    assert {each[0].object.metadata.name for each in executors} == cluster.pods_created_by(result.driver_pod)
    assert half_started(seen) == []
    told = milestones(seen, name)
    assert list(told) == sorted(told, key=lambda what: told[what].revision)
    print(
        f"\n{name}:", *(f"{what} {state.seconds - driver[0].seconds:.2f} s" for what, state in told.items()), sep="\n  "
    )


@pytest.mark.parametrize("version", ["4.3.0", "3.5.9"])
async def test_dynamic_allocation_gets_its_minimum_then_extras_as_room_allows_and_gives_them_back(
    cluster: SparkCluster, muster: Service, seen: Onlooker, version: str
) -> None:
    name = f"dynamic-{version.replace('.', '-')}"
    conf = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.timeout": "3s",
        "spark.dynamicAllocation.executorIdleTimeout": "3s",
        "spark.dynamicAllocation.minExecutors": "1",
        "spark.dynamicAllocation.maxExecutors": "3",
    }
    application = f"local://{JOBS / 'grow_and_shrink.py'}"
    told = cluster.folder / f"{name}-may-end"
    job = SparkJob(name, application, ("12", "1.5", str(told)), SIZE | conf, version, namespace=NAMESPACE)
    await cluster.client.create(PODS, sleeper("neighbour", node="process-00", cpu="1800m"), NAMESPACE)

    async def executor_held() -> bool:
        pods = await cluster.client.list(PODS, NAMESPACE, label_selector="spark-role=executor")
        return any(pod.spec.scheduling_gates for pod in pods)

    async def executors_given_back() -> bool:
        return sum(first(each, has_ended) is not None for each in seen.executors(seen.application(name))) == 2

    async with asyncio.TaskGroup() as both:
        submission = both.create_task(cluster.run(job))
        await until("there is room for a driver and two executors only", executor_held, 120)
        await cluster.client.delete(PODS, "neighbour", NAMESPACE)
        await until("two idle executors have ended while their application runs", executors_given_back, 120)
        told.touch()
    result = submission.result()
    # 0+3+6+9, 1+4+7+10, 2+5+8+11
    assert "sums by remainder: {0: 18, 1: 22, 2: 26}" in cluster.log(result.driver_pod)
    selector = seen.application(name)
    gang = await cluster.expect_phase(selector, "Finished")
    assert (gang.spec.min_executors, gang.spec.max_executors) == (1, 3)
    assert sum(slot.count for slot in gang.spec.slots) == 1
    executors = seen.executors(selector)
    assert [born_bound(each) for each in executors] == [True, True, False]
    assert [is_extra(each) for each in executors] == [False, True, True]
    assert executors[2][0].object.metadata.annotations["muster.dev/mode"] == "hold"
    assert executors[2][-1].object.spec.node_name == "process-00"
    assert half_started(seen) == []


async def test_four_applications_compete_for_room_for_two_and_none_starts_half(
    cluster: SparkCluster, muster: Service, seen: Onlooker
) -> None:
    names = [f"rival-{number}" for number in range(4)]
    await asyncio.gather(*(cluster.run(pi(name)) for name in names))
    assert half_started(seen) == []
    assert overcommitted(seen, await cluster.allocatable()) == []
    waited = 0
    for name in names:
        application = seen.application(name)
        gang = await cluster.expect_phase(application, "Finished")
        assert nodes_of(seen.executors(application)) == {slot.node: slot.count for slot in gang.spec.slots}
        waited += any(state.object.status.phase == "Pending" for state in seen.gang(application))
    assert waited >= 2, "there was room for all of them: nobody had to compete"


async def test_executors_of_a_driver_outside_the_cluster_are_placed_as_they_come(
    cluster: SparkCluster, muster: Service, seen: Onlooker
) -> None:
    address = cluster.network.next_address()
    conf = {
        "spark.executor.instances": "2",
        "spark.driver.host": address,
        "spark.driver.bindAddress": address,
    }
    script = ensure_spark("4.3.0") / "examples/src/main/python/pi.py"
    job = SparkJob("outside", str(script), ("4",), SIZE | conf, namespace=NAMESPACE, deploy_mode="client")
    result = await cluster.run(job)
    assert "Pi is roughly 3.1" in result.output
    executors = seen.executors(seen.only_application())
    assert [born_bound(each) for each in executors] == [True, True]
    assert [is_extra(each) for each in executors] == [True, True]


async def test_executors_of_a_notebook_that_name_their_number_are_a_gang(
    cluster: SparkCluster, muster: Service, seen: Onlooker
) -> None:
    await cluster.client.create(PODS, notebook(cluster.plane.url), NAMESPACE)

    async def ended() -> Pod | None:
        pod = await cluster.client.get(PODS, "notebook", NAMESPACE)
        return pod if has_ended(pod) else None

    pod: Pod = await until("the notebook ends", ended, 120)
    assert pod.status.phase == "Succeeded", cluster.log("notebook")
    assert "Pi is roughly 3.1" in cluster.log("notebook")
    application = seen.only_application()
    executors = seen.executors(application)
    [*written] = [state.object.spec for state in seen.gang(application) if state.object.spec.slots]
    assert written[0].driver is None
    assert written[0].min_executors == 2
    assert nodes_of(executors) == {slot.node: slot.count for slot in written[0].slots}
    assert not any(is_extra(each) for each in executors)


async def test_without_muster_the_same_application_runs_and_is_adopted_afterwards(
    cluster: SparkCluster, seen: Onlooker
) -> None:
    access = load_access(cluster.plane.kubeconfig)
    async with muster_service(access):
        pass  # it has registered its webhook and is gone
    running = asyncio.create_task(cluster.run(pi("orphan")))
    try:

        async def executors_run() -> str:
            drivers = await cluster.client.list(PODS, NAMESPACE, label_selector="spark-role=driver")
            executors = await cluster.client.list(PODS, NAMESPACE, label_selector="spark-role=executor")
            if [pod.status.phase for pod in executors] != ["Running", "Running"]:
                return ""
            return drivers[0].metadata.labels["spark-app-selector"]

        application: str = await until("two executors run", executors_run, 120)
        async with muster_service(access) as service:
            gang = await cluster.expect_phase(application, "Running")
            assert gang.spec.min_executors == 2
            await running
            await cluster.expect_phase(application, "Finished")
            assert service.controller is not None
            service.controller.scheduler.validate()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert seen.driver("orphan")[0].object.spec.scheduling_gates == ()
    assert not any(born_bound(each) for each in seen.executors(application))


def has_ended(pod: Pod) -> bool:
    return pod.status.phase in ENDED


def sleeper(name: str, node: str, cpu: str) -> dict[str, Any]:
    """A pod that is not Spark's and takes room."""
    container: dict[str, Any] = {"name": "main", "image": "none", "command": ["sleep", "600"]}
    container["resources"] = {"requests": {"cpu": cpu}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "serviceAccountName": "spark", "restartPolicy": "Never", "containers": [container]},
    }


def notebook(server: str) -> dict[str, Any]:
    """A plain pod that starts Spark in client mode, as notebooks and Spark Connect servers do."""
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    conf = SIZE | {
        "spark.kubernetes.namespace": NAMESPACE,
        "spark.kubernetes.container.image": "spark:4.3.0",
        "spark.kubernetes.authenticate.oauthTokenFile": f"{account}/token",
        "spark.kubernetes.authenticate.caCertFile": f"{account}/ca.crt",
        "spark.kubernetes.driver.pod.name": "notebook",
        "spark.kubernetes.executor.annotation.muster.dev/executor-count": "2",
        "spark.driver.host": "$(POD_IP)",
        "spark.driver.bindAddress": "$(POD_IP)",
        "spark.driver.memory": "512m",
        "spark.executor.memory": "512m",
        "spark.executor.instances": "2",
        "spark.ui.enabled": "false",
    }
    options = [word for key, value in conf.items() for word in ("--conf", f"{key}={value}")]
    container = {
        "name": "notebook",
        "image": "spark:4.3.0",
        "command": ["/opt/spark/bin/spark-submit", "--master", f"k8s://{server}", "--deploy-mode", "client"],
        "args": [*options, "/opt/spark/examples/src/main/python/pi.py", "4"],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"requests": {"cpu": "600m", "memory": "896Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "notebook", "labels": {"spark-version": "4.3.0"}},
        "spec": {"serviceAccountName": "spark", "restartPolicy": "Never", "containers": [container]},
    }
