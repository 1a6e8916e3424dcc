"""`muster withdraw`: what waits behind the gate is handed to ordinary scheduling, and the webhook stays away."""

from __future__ import annotations

import pytest

from muster.control.withdrawal import withdraw
from muster.devcluster.node_pool import NodePool
from muster.kube.errors import ApiError
from muster.kube.kinds import MUTATING_WEBHOOKS, PODS
from tests.control.running_cluster import RunningCluster, running_cluster

ONE_NODE = NodePool(count=1, cpu=8)


async def webhooks(cluster: RunningCluster) -> list[str]:
    return [each["metadata"]["name"] for each in await cluster.client.list(MUTATING_WEBHOOKS)]


async def gated(cluster: RunningCluster, application: str) -> bool:
    return any(pod.spec.scheduling_gates for pod in await cluster.pods(application, "driver"))


async def one_runs_and_one_waits(cluster: RunningCluster) -> tuple[str, str]:
    first = await cluster.submit("first", executors=5, run_seconds=300)
    await cluster.expect_phase(first, "Running")
    second = await cluster.submit("second", executors=5, run_seconds=10)
    await cluster.expect_phase(second, "Pending")
    assert await gated(cluster, second)
    return first, second


async def test_a_driver_that_waited_when_muster_went_away_is_scheduled_by_kubernetes() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        first, second = await one_runs_and_one_waits(cluster)
        await cluster.stop_muster()
        assert await gated(cluster, second), "nobody but muster takes the gate off"
        withdrawal = await withdraw(cluster.client, timeout=30, settle=0)
        assert (withdrawal.webhook, withdrawal.released, withdrawal.left) == (True, 1, 0)
        assert await webhooks(cluster) == []
        await cluster.expect_succeeded(first)
        await cluster.expect_succeeded(second)


async def test_a_dry_run_counts_and_changes_nothing() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        _, second = await one_runs_and_one_waits(cluster)
        withdrawal = await withdraw(cluster.client, timeout=30, dry_run=True)
        assert (withdrawal.webhook, withdrawal.released) == (True, 1)
        assert await webhooks(cluster) == ["muster"]
        assert await gated(cluster, second)


async def test_gates_of_others_stay() -> None:
    async with running_cluster(ONE_NODE, muster=False) as cluster:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "held", "labels": {"spark-role": "driver", "spark-app-selector": "spark-held"}},
            "spec": {
                "containers": [{"name": "main", "image": "none"}],
                "schedulingGates": [{"name": "example.com/quota"}, {"name": "muster.dev/gang"}],
            },
        }
        await cluster.client.create(PODS, pod, "team-a")
        withdrawal = await withdraw(cluster.client, timeout=30, settle=0)
        assert (withdrawal.webhook, withdrawal.released, withdrawal.left) == (False, 1, 0)
        [left] = await cluster.pods("spark-held", "driver")
        assert [gate.name for gate in left.spec.scheduling_gates] == ["example.com/quota"]


async def test_what_may_not_be_patched_is_told_and_counted() -> None:
    async with running_cluster(ONE_NODE) as cluster:
        await one_runs_and_one_waits(cluster)
        await cluster.stop_muster()
        told: list[str] = []

        async def refused(*_: object, **__: object) -> None:
            raise ApiError("PATCH", 403, "Forbidden", "pods is forbidden")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster.client, "patch", refused)
            withdrawal = await withdraw(cluster.client, timeout=0.5, settle=0, notice=told.append)
        assert (withdrawal.released, withdrawal.left) == (0, 1)
        assert any("not released" in line and "forbidden" in line for line in told)
