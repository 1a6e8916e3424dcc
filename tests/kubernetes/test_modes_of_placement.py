"""What may be born bound, what kube-scheduler must see, and what people see of it with kubectl."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from muster.control.serve import Service
from muster.devcluster.control_plane import ControlPlane, binaries
from muster.devcluster.node_pool import NodePool, NodeTaint
from muster.devcluster.pace import Pace
from muster.devcluster.virtual_kubelet import Program, VirtualKubelets
from muster.devcluster.virtual_spark import VirtualSpark
from muster.kube.client import PatchType
from muster.kube.config import load_access
from muster.kube.kinds import NODES, PODS
from muster.kube.objects import Pod
from tests.control.spark_pods import executor_pod
from tests.kubernetes.audit_trail import bound_by_kube_scheduler
from tests.kubernetes.local_volumes import ACCESS_MODE, STORAGE_CLASS, create_local_volumes
from tests.kubernetes.real_cluster import NAMESPACE, RealCluster, control_plane, muster_service, until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

POOLS = (NodePool("open", count=3, cpu=8), NodePool("shut", count=1, cpu=64, taints=(NodeTaint("dedicated"),)))


class Cluster(RealCluster):
    plane: ControlPlane
    service: Service

    async def is_known(self) -> bool:
        """A node is born with a taint, which the node lifecycle controller takes off when it has seen it Ready."""
        assert self.service.controller is not None
        nodes = [node for node in self.service.controller.scheduler.table.nodes if node is not None and node.ready]
        newborn = [node for node in nodes if any(t.key.startswith("node.kubernetes.io/") for t in node.taints)]
        return len(nodes) == len(self.kubelets.node_names) and not newborn

    async def kubectl(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(str(binaries() / "kubectl"), *arguments),
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where the plugin kubectl-muster is
                "KUBECONFIG": str(self.plane.kubeconfig),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()
        return output.decode()

    async def on_a_node(self, name: str) -> Pod:
        async def bound() -> Pod | None:
            pod = await self.client.get(PODS, name, NAMESPACE)
            return pod if pod.spec.node_name else None

        pod: Pod = await until(f"{name} has a node", bound)
        return pod


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        plane, client = await stack.enter_async_context(control_plane(tmp_path_factory.mktemp("modes")))
        pace = Pace(20)
        spark = VirtualSpark(client, pace)

        def program(pod: Pod) -> Program | None:
            return spark.program(pod) if is_owned(pod) else None

        kubelets = await stack.enter_async_context(VirtualKubelets(client, POOLS, pace, program))
        running = Cluster(client, kubelets)
        running.plane = plane
        await create_local_volumes(client, kubelets.node_names, 2)
        running.service = await stack.enter_async_context(muster_service(load_access(plane.kubeconfig)))
        await until("Muster knows all nodes as open as they are", running.is_known)
        yield running


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def empty(cluster: Cluster) -> AsyncIterator[None]:
    """After every test nothing runs any more."""
    yield
    await cluster.client.delete_collection(PODS, NAMESPACE)

    async def gone() -> bool:
        return not await cluster.client.list(PODS, NAMESPACE)

    await until("all pods are gone", gone)


SELECTOR = {"matchLabels": {"spark-role": "executor"}}
SPREAD = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
APART = {
    "requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": SELECTOR}
    ]
}
CLAIM = {
    "accessModes": [ACCESS_MODE],
    "storageClassName": STORAGE_CLASS,
    "resources": {"requests": {"storage": "1Gi"}},
}


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("ephemeral-volume", {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}}]}),
        ("host-network", {"hostNetwork": True}),
        (
            "anti-affinity",
            {"affinity": {"podAntiAffinity": APART}},
        ),
        ("topology-spread", {"topologySpreadConstraints": [SPREAD | {"labelSelector": SELECTOR}]}),
        ("gate-of-others", {"schedulingGates": [{"name": "example.com/quota"}]}),
    ],
)
async def test_an_executor_with_work_for_kube_scheduler_is_pinned_and_bound_by_it(
    cluster: Cluster, name: str, spec: dict[str, Any]
) -> None:
    pod = notebook_executor(name)
    pod["spec"] |= spec | {"volumes": pod["spec"]["volumes"] + spec.get("volumes", [])}
    created = await cluster.client.create(PODS, pod, NAMESPACE)
    assert (created.metadata.annotations["muster.dev/mode"], created.spec.node_name) == ("pin", "")
    if created.spec.scheduling_gates:
        patch = {"spec": {"schedulingGates": [{"$patch": "delete", "name": "example.com/quota"}]}}
        await cluster.client.patch(PODS, created.metadata.name, patch, NAMESPACE, patch_type=PatchType.STRATEGIC)
    bound = await cluster.on_a_node(created.metadata.name)
    assert bound.spec.node_name == created.metadata.annotations["muster.dev/slot"]

    async def told() -> bool:
        return bound.metadata.name in bound_by_kube_scheduler(cluster.plane)

    await until("the audit log says that kube-scheduler bound it", told)


async def test_a_plain_executor_is_born_bound_and_never_on_a_node_whose_taint_it_does_not_tolerate(
    cluster: Cluster,
) -> None:
    nodes = set()
    for number in range(3 * 8):
        created = await cluster.client.create(PODS, notebook_executor(f"plain-{number}"), NAMESPACE)
        if created.metadata.annotations["muster.dev/mode"] == "bind":
            nodes.add(created.spec.node_name)
        else:
            assert [gate.name for gate in created.spec.scheduling_gates] == ["muster.dev/gang"]
    assert nodes == {"open-00", "open-01", "open-02"}


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ({"unschedulable": True}, {"unschedulable": None}),
        ({"taints": [{"key": "maintenance", "effect": "NoSchedule"}]}, {"taints": None}),
    ],
    ids=["cordoned", "tainted"],
)
async def test_reserved_slots_leave_a_node_that_is_closed_and_executors_are_born_elsewhere(
    cluster: Cluster, request: pytest.FixtureRequest, change: dict[str, Any], back: dict[str, Any]
) -> None:
    name = f"{request.node.callspec.id}-notebook"
    first = await cluster.client.create(PODS, notebook_executor(name, gang=3), NAMESPACE)
    node = first.spec.node_name

    async def reserved() -> bool:
        gang = await cluster.gang(f"spark-{name}")
        return gang is not None and {slot.node: slot.count for slot in gang.spec.slots} == {node: 3}

    await until("three slots are reserved on one node", reserved)
    await cluster.client.patch(NODES, node, {"spec": change})
    try:

        async def moved() -> bool:
            gang = await cluster.gang(f"spark-{name}")
            assert gang is not None
            return sum(slot.count for slot in gang.spec.slots if slot.node != node) == 2

        await until("the unfilled slots are on another node", moved)
        for number in (2, 3):
            pod = await cluster.client.create(PODS, notebook_executor(name, number, gang=3), NAMESPACE)
            assert pod.metadata.annotations["muster.dev/mode"] == "bind"
            assert pod.spec.node_name not in ("", node)
    finally:
        await cluster.client.patch(NODES, node, {"spec": back})


async def test_kubectl_shows_who_waits_and_why(cluster: Cluster) -> None:
    running = await cluster.submit("first", executors=12, run_seconds=4000)
    await cluster.expect_phase(running, "Running")
    waiting = await cluster.submit("second", executors=12, run_seconds=20)
    await cluster.expect_phase(waiting, "Pending")
    invalid = await cluster.submit("third", run_seconds=20, driver_annotations={"muster.dev/min-executors": "-1"})
    await cluster.expect_phase(invalid, "Invalid")

    table = [line.split() for line in (await cluster.kubectl("get", "gangs", "-n", NAMESPACE)).splitlines()]
    assert table[0] == ["NAME", "APP", "QUEUE", "PHASE", "MIN", "RUNNING", "MAX", "WAIT", "REASON", "AGE"]
    rows = {row[0]: row for row in table[1:]}
    assert rows[running][1:7] == ["first", "default", "Running", "12", "12", "12"]
    assert rows[waiting][1:7] == ["second", "default", "Pending", "12", "0", "12"]
    assert rows[waiting][7] == "WaitingForCapacity"
    assert "InvalidSize" in rows[invalid]

    described = await cluster.kubectl("describe", "gang", waiting, "-n", NAMESPACE)
    assert "Phase:" in described and "WaitingForCapacity" in described
    [driver] = await cluster.pods(invalid, "driver")
    told = await cluster.kubectl("describe", "pod", driver.metadata.name, "-n", NAMESPACE)
    [line] = [line for line in told.splitlines() if "InvalidSize" in line]
    assert line.split()[:2] == ["Warning", "InvalidSize"] and "muster.dev/min-executors" in line

    server = f"http://127.0.0.1:{cluster.service.management_port}"
    why = await cluster.kubectl("muster", "why", "second", "-n", NAMESPACE, "--server", server)
    assert why.splitlines()[0] == "second: Pending, WaitingForCapacity"
    assert "Place 1 among all that wait" in why
    assert "1 have a taint that it does not tolerate: dedicated" in why


def is_owned(pod: Pod) -> bool:
    """By a driver pod: executors of notebooks have none here to talk to, and only take room."""
    return bool(pod.metadata.owner_references) or pod.metadata.labels.get("spark-role") == "driver"


def notebook_executor(name: str, number: int = 1, gang: int = 0) -> dict[str, Any]:
    """An executor of client mode; ``gang``: of how many that are to start together."""
    pod = executor_pod(number, application=f"spark-{name}", prefix=name)
    del pod["metadata"]["ownerReferences"]
    pod["spec"]["serviceAccountName"] = "spark"
    if gang:
        pod["metadata"]["annotations"] = {"muster.dev/executor-count": str(gang)}
    return pod
