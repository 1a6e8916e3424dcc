"""Lent room comes back through the API: extras are deleted with their grace for a gang that waits, and it starts."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from muster.devcluster.node_pool import NodePool
from muster.kube.kinds import EVENTS
from tests.control.running_cluster import NAMESPACE, RunningCluster, running_cluster

ONE_NODE = NodePool(count=1, cpu=8)
PRESSED = {"pressure": {"after": "1s", "interval": "2s", "grace": "90s"}}


def counted(cluster: RunningCluster, name: str) -> float:
    assert cluster.service is not None
    families = text_string_to_metric_families(cluster.service.metrics.render().decode())
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def test_extras_are_called_back_for_a_gang_that_waits() -> None:
    async with running_cluster(ONE_NODE, scheduling=PRESSED) as cluster:
        lender = await cluster.submit(
            "lender", dynamic=True, executors=1, min_executors=1, max_executors=6, run_seconds=3600
        )
        await cluster.expect_executors(lender, 6)

        waits = await cluster.submit("waits", executors=2, run_seconds=1)

        await cluster.expect_succeeded(waits)
        about = [e for e in await cluster.client.list(EVENTS, NAMESPACE) if e.reason == "ExecutorCalledBack"]
        named = {event.involved_object.name for event in about}
        driver = (await cluster.driver(lender)).metadata.name
        assert driver in named, "the driver of the lender is told"
        assert len(named) == 4, "and so are the three pods that went"
        assert counted(cluster, "muster_evictions_total") == 3
        assert counted(cluster, "muster_evicted_core_seconds_total") > 0
        assert (await cluster.driver(lender)).status.phase == "Running"
        assert cluster.cluster.counters().overcommitted_nodes == 0


async def test_the_replacements_that_spark_asks_for_wait_behind_the_gang() -> None:
    async with running_cluster(ONE_NODE, scheduling=PRESSED) as cluster:
        lender = await cluster.submit(
            "lender", dynamic=True, executors=1, min_executors=1, max_executors=6, run_seconds=3600
        )
        await cluster.expect_executors(lender, 6)
        waits = await cluster.submit("waits", executors=2, run_seconds=600)
        await cluster.expect_executors(waits, 2)
        await cluster.expect_executors(lender, 3)
        assert all(pod.spec.scheduling_gates for pod in await cluster.pods(lender) if not pod.spec.node_name), (
            "held, not lost"
        )


async def test_a_whole_application_goes_where_its_queue_allows_it_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text(
        "queues: [{name: batch, preemption: applications, minRuntimeSeconds: 1}, {name: prod}]\n",
        encoding="utf-8",
    )
    async with running_cluster(ONE_NODE, scheduling=PRESSED, queues={"file": str(file)}) as cluster:
        batch = await cluster.submit(
            "batch", executors=6, run_seconds=3600, driver_annotations={"muster.dev/queue": "batch"}
        )
        await cluster.expect_executors(batch, 6)

        prod = await cluster.submit("prod", executors=2, run_seconds=1, driver_annotations={"muster.dev/queue": "prod"})

        await cluster.expect_succeeded(prod)
        await cluster.until(lambda: _is_gone(cluster, batch), "every pod of the preempted application is gone")
        assert counted(cluster, "muster_evictions_total") == 7
        assert cluster.cluster.counters().overcommitted_nodes == 0


async def _is_gone(cluster: RunningCluster, application: str) -> bool:
    return not [*await cluster.pods(application), *await cluster.pods(application, "driver")]
