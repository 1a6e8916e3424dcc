"""Virtual kubelets obey the API as real ones do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from muster.devcluster.cluster import DevCluster
from muster.devcluster.node_pool import NodePool, NodeTaint
from muster.kube.kinds import LEASES, NODES, PODS
from muster.kube.list_watch import Deleted, ListWatch, Synced
from muster.kube.objects import Node, Pod

GPU_TAINT = NodeTaint("nvidia.com/gpu")


@pytest.fixture
async def cluster() -> AsyncIterator[DevCluster]:
    pools = (NodePool(count=2, cpu=4, memory_gib=16), NodePool(name="gpu", count=1, cpu=4, taints=(GPU_TAINT,)))
    async with asyncio.timeout(30), DevCluster(pools, speed=100) as running:
        yield running
        assert running.counters().problems == ()


def pod(name: str, cpu: str = "1", node: str = "", memory: str = "1Gi", **annotations: str) -> dict[str, Any]:
    prefixed = {f"devcluster.muster.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    container = {"name": "main", "image": "none", "resources": {"requests": {"cpu": cpu, "memory": memory}}}
    spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never"}
    if node:
        spec["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": prefixed},
        "spec": spec,
    }


async def until(cluster: DevCluster, name: str, holds: Callable[[Pod], bool]) -> Pod:
    async with aclosing(ListWatch(cluster.client, PODS, "default").events()) as events:
        async for event in events:
            if not isinstance(event, Deleted | Synced) and event.object.metadata.name == name and holds(event.object):
                return event.object
    raise AssertionError("a list-watch never ends")


async def delete_and_see(cluster: DevCluster, name: str, grace_period_seconds: int | None = None) -> Pod:
    """Deletes the pod; its last state."""
    async with aclosing(ListWatch(cluster.client, PODS, "default").events()) as events:
        async for event in events:
            if isinstance(event, Synced):
                await cluster.client.delete(PODS, name, "default", grace_period_seconds=grace_period_seconds)
            elif isinstance(event, Deleted) and event.name == name:
                assert event.object is not None
                return event.object
    raise AssertionError("a list-watch never ends")


def in_phase(phase: str) -> Callable[[Pod], bool]:
    return lambda pod: pod.status.phase == phase


async def test_its_nodes_are_ready_and_only_their_own_taints_remain(cluster: DevCluster) -> None:
    async def taints(name: str) -> set[str]:
        return {taint.key for taint in (await cluster.client.get(NODES, name)).spec.taints}

    async with aclosing(ListWatch(cluster.client, NODES).events()) as events:
        clean: set[str] = set()
        async for event in events:
            node = getattr(event, "object", None)
            if isinstance(node, Node) and "node.kubernetes.io/not-ready" not in {t.key for t in node.spec.taints}:
                clean.add(node.metadata.name)
            if len(clean) == 3:
                break
    assert await taints("spark-00") == set()
    assert await taints("gpu-00") == {"nvidia.com/gpu"}
    leases = await cluster.client.list(LEASES, "kube-node-lease")
    assert {lease.spec.holder_identity for lease in leases} == {"spark-00", "spark-01", "gpu-00"}


async def test_a_pod_runs_with_an_address_of_its_node_and_ends_after_its_time(cluster: DevCluster) -> None:
    await cluster.client.create(PODS, pod("timed", run_seconds="30"), "default")
    running = await until(cluster, "timed", in_phase("Running"))
    node: dict[str, Any] = await cluster.client.get(NODES.decoding_to(dict), running.spec.node_name)
    network = node["spec"]["podCIDR"].removesuffix(".0/24")
    assert running.status.pod_ip.rpartition(".")[0] == network
    conditions = {condition.type: condition.status for condition in running.status.conditions}
    assert conditions == dict.fromkeys(("PodScheduled", "Initialized", "ContainersReady", "Ready"), "True")
    ended = await until(cluster, "timed", in_phase("Succeeded"))
    (status,) = ended.status.container_statuses
    assert status.state.terminated is not None
    assert (status.state.terminated.exit_code, status.state.terminated.reason) == (0, "Completed")


async def test_a_pod_that_fails_says_how(cluster: DevCluster) -> None:
    await cluster.client.create(PODS, pod("failing", run_seconds="1", exit_code="52"), "default")
    (status,) = (await until(cluster, "failing", in_phase("Failed"))).status.container_statuses
    assert status.state.terminated is not None
    assert (status.state.terminated.exit_code, status.state.terminated.reason) == (52, "Error")


async def test_a_deleted_pod_reports_its_end_before_it_goes(cluster: DevCluster) -> None:
    await cluster.client.create(PODS, pod("endless"), "default")
    await until(cluster, "endless", in_phase("Running"))
    last = await delete_and_see(cluster, "endless")
    assert last.status.container_statuses[0].state.terminated is not None
    assert last.status.container_statuses[0].state.terminated.exit_code == 143


async def test_a_pod_deleted_by_force_frees_its_room_at_once(cluster: DevCluster) -> None:
    await cluster.client.create(PODS, pod("first", "3", "spark-00"), "default")
    await until(cluster, "first", in_phase("Running"))
    await delete_and_see(cluster, "first", grace_period_seconds=0)
    await cluster.client.create(PODS, pod("second", "3", "spark-00"), "default")
    await until(cluster, "second", in_phase("Running"))
    assert cluster.counters().pods_rejected == {}


@pytest.mark.parametrize(("cpu", "memory", "reason"), [("2", "1Gi", "OutOfcpu"), ("100m", "12Gi", "OutOfmemory")])
async def test_a_pod_that_its_node_cannot_hold_is_refused_as_by_a_kubelet(
    cluster: DevCluster, cpu: str, memory: str, reason: str
) -> None:
    await cluster.client.create(PODS, pod("first", "2", "spark-00", "4Gi"), "default")
    await until(cluster, "first", in_phase("Running"))
    await cluster.client.create(PODS, pod("second", cpu, "spark-00", memory), "default")
    refused = await until(cluster, "second", in_phase("Failed"))
    assert refused.status.reason == reason
    assert refused.status.message.startswith("Pod was rejected: Node didn't have enough resource: " + reason[5:])
    assert refused.status.container_statuses == ()
    counters = cluster.counters()
    assert (counters.pods_rejected, counters.overcommitted_nodes) == ({reason: 1}, 1)


async def test_an_ended_pod_holds_nothing(cluster: DevCluster) -> None:
    for name in ("first", "second", "third"):
        await cluster.client.create(PODS, pod(name, "3", "spark-00", run_seconds="1"), "default")
        await until(cluster, name, in_phase("Succeeded"))
    counters = cluster.counters()
    assert (counters.pods_started, counters.most_pods_running, counters.pods_running) == (3, 1, 0)


async def test_pods_of_other_schedulers_are_left_alone_until_they_are_bound(cluster: DevCluster) -> None:
    manifest = pod("foreign", run_seconds="1")
    manifest["spec"]["schedulerName"] = "another"
    await cluster.client.create(PODS, manifest, "default")
    await cluster.client.create(PODS, pod("ours", run_seconds="1"), "default")
    await until(cluster, "ours", in_phase("Succeeded"))
    assert (await cluster.client.get(PODS, "foreign", "default")).spec.node_name == ""
    await cluster.client.bind("foreign", "default", "spark-01")
    await until(cluster, "foreign", in_phase("Succeeded"))


async def test_a_gated_pod_is_bound_when_its_gate_is_gone(cluster: DevCluster) -> None:
    manifest = pod("gated", run_seconds="1")
    manifest["spec"]["schedulingGates"] = [{"name": "muster.dev/gang"}]
    await cluster.client.create(PODS, manifest, "default")
    await cluster.client.create(PODS, pod("ours", run_seconds="1"), "default")
    await until(cluster, "ours", in_phase("Succeeded"))
    assert (await cluster.client.get(PODS, "gated", "default")).spec.node_name == ""
    await cluster.client.patch(PODS, "gated", {"spec": {"schedulingGates": None}}, "default")
    await until(cluster, "gated", in_phase("Succeeded"))
