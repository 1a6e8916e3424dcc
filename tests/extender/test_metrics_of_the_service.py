"""Everything that dashboards of the archived scheduler show is in /metrics of the running service, with its tags."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from muster.control.extender.demands import DEMANDS
from muster.control.extender.pod_lifecycle import STUCK
from muster.kube.client import PatchType
from muster.kube.kinds import PODS
from tests.extender.running_extender import GROUP, RunningExtender, running_extender

PREFIX = "foundry_spark_scheduler_"
Series = dict[tuple[str, ...], float]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RunningExtender]:
    async with running_extender(tmp_path) as running:
        await running.node("n1")
        await knows_nodes(running, 1)
        yield running


async def knows_nodes(cluster: RunningExtender, count: int) -> None:
    assert cluster.service is not None
    table = cluster.service.filter.view.scheduler.table
    await cluster.until(lambda: len(table.index) == count, f"{count} nodes are seen")


async def scraped(cluster: RunningExtender, name: str, *labels: str) -> Series:
    """The series of one metric, by the values of these labels."""
    _, text = await cluster.call("/metrics")
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == PREFIX + name
    }


async def refreshed(cluster: RunningExtender) -> None:
    assert cluster.service is not None
    await cluster.service.refresh()


async def dynamic_application(cluster: RunningExtender) -> None:
    """A driver and an executor in their slots, and one above the minimum: 1 + 2 + 2 cores on n1."""
    sizes = {
        "spark-dynamic-allocation-enabled": "true",
        "spark-dynamic-allocation-min-executor-count": "1",
        "spark-dynamic-allocation-max-executor-count": "3",
    }
    assert await cluster.schedule(await cluster.driver(executors=1, **sizes), ["n1"])
    for name in ("exec-1", "exec-2"):
        assert await cluster.schedule(await cluster.executor(name), ["n1"])
    await cluster.expect_slots({"driver": ("n1", "app-driver"), "executor-1": ("n1", "exec-1")})


async def test_calls_and_reservations(cluster: RunningExtender) -> None:
    await dynamic_application(cluster)
    driver = await cluster.driver("half", executors=2)
    assert await cluster.schedule(driver, ["n1"]) == ""
    await refreshed(cluster)

    assert await scraped(cluster, "requests_total", "sparkrole", "outcome", "instance_group") == {
        ("driver", "success", GROUP): 1,
        ("driver", "failure-fit", GROUP): 1,
        ("executor", "success", GROUP): 1,
        ("executor", "success-scheduled-extra-executor", GROUP): 1,
    }
    for name in ("schedule_time_count", "wait_time_count"):
        assert len(await scraped(cluster, name, "sparkrole", "outcome", "instance_group")) == 4
    assert await scraped(cluster, "resource_usage_cpu", "nodename", "instance_group") == {("n1", GROUP): 3}
    assert await scraped(cluster, "resource_usage_memory", "nodename", "instance_group") == {("n1", GROUP): 5 * 2**30}
    assert await scraped(cluster, "reservations_unbound_cpu") == {(): 0}
    assert await scraped(cluster, "reservations_timetofirstbind_count") == {(): 1}
    assert await scraped(cluster, "softreservation_count") == {(): 1}
    assert await scraped(cluster, "softreservation_executorcount") == {(): 1}
    assert await scraped(cluster, "cache_objects_count", "cachedobject", "source") == {
        ("resourcereservation", "cache"): 1,
        ("resourcereservation", "lister"): 1,
        ("demand", "cache"): 1,
        ("demand", "lister"): 1,
    }
    writes = await scraped(cluster, "async_request_count_total", "objecttype", "requesttype")
    assert writes[("resourcereservations", "create")] == writes[("demands", "create")] == 1
    packing = await scraped(cluster, "packingefficiency", f"{PREFIX}packingfunction", f"{PREFIX}packing_resource")
    assert packing[("tightly-pack", "cpu")] == pytest.approx(3 / 8)


async def test_soft_reservations_are_there_again_after_a_restart(cluster: RunningExtender) -> None:
    await dynamic_application(cluster)
    await cluster.stop()
    await cluster.start()
    assert await cluster.schedule(await cluster.driver("other", executors=0), ["n1"]), "it is this one's turn to answer"
    await refreshed(cluster)

    assert await scraped(cluster, "softreservation_count") == {(): 1}
    assert await scraped(cluster, "softreservation_executorcount") == {(): 1}


async def test_what_a_pods_wait_was_made_of(cluster: RunningExtender) -> None:
    driver = await cluster.driver("big", executors=20)
    assert await cluster.schedule(driver, ["n1"]) == ""
    service = cluster.service
    assert service is not None
    assert await service.demands.drain(30)
    fulfilled = {"status": {"phase": "fulfilled"}}
    await cluster.client.patch(
        DEMANDS, "demand-big-driver", fulfilled, "default", patch_type=PatchType.MERGE, subresource="status"
    )

    def is_known() -> bool:
        known = service.demands.get("default", "demand-big-driver")
        return known is not None and known.status.phase == "fulfilled"

    await cluster.until(is_known, "the autoscaler's answer is seen")
    assert await cluster.schedule(driver, ["n1"]) == "", "a failure after the demand was fulfilled"
    await cluster.node("n2", cpu="64", memory="256Gi")
    await knows_nodes(cluster, 2)
    assert await cluster.schedule(driver, ["n1", "n2"])

    async def told() -> bool:
        return bool(await scraped(cluster, "scheduling_waste_count", "wastetype"))

    await cluster.until(told, "the binding is seen")
    kinds = [
        "before-demand-creation",
        "after-demand-fulfilled",
        "after-demand-fulfilled-failure-failure-fit",
        "after-demand-fulfilled-since-last-failure",
    ]
    assert await scraped(cluster, "scheduling_waste_count", "wastetype") == {(kind,): 1 for kind in kinds}
    by_group = await scraped(cluster, "scheduling_wasteperinstancegroup_count", "wastetype", "instance_group")
    assert by_group == {(kind, GROUP): 1 for kind in kinds}


async def test_pods_that_are_stuck_are_told_of(cluster: RunningExtender) -> None:
    driver = await cluster.driver(executors=0)
    assert await cluster.schedule(driver, ["n1"])
    long_ago = (datetime.now(UTC) - timedelta(seconds=STUCK + 60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": long_ago}
    await cluster.client.patch(
        PODS,
        driver.metadata.name,
        {"status": {"conditions": [condition]}},
        "default",
        patch_type=PatchType.MERGE,
        subresource="status",
    )

    async def longest() -> float:
        await refreshed(cluster)
        stages = await scraped(cluster, "pod_lifecycle_max", "sparkrole", "lifecycle", "instance_group")
        return stages.get(("driver", "initializing", GROUP), 0.0)

    async def is_long() -> bool:
        return await longest() >= STUCK * 1e9

    await cluster.until(is_long, "it has been initializing for half a day")
    with capture_logs() as told:
        await refreshed(cluster)
    [stuck] = [line for line in told if line["event"] == "found stuck pod"]
    assert (stuck["podName"], stuck["lifecycle"]) == (driver.metadata.name, "initializing")
    counts = await scraped(cluster, "pod_lifecycle_count", "sparkrole", "lifecycle", "instance_group")
    assert counts[("driver", "initializing", GROUP)] == 1
