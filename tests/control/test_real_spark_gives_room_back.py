"""Real Spark: what its REST API serves; a job whose executor is called back keeps its shuffle data and ends well."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import msgspec
import pytest

from muster.control.executor_losses import Executor
from muster.control.facts import ui_port_of
from muster.devcluster.distribution import SparkUnavailableError, find_spark
from muster.devcluster.real_spark import SparkJob, SubmissionResult, static_job
from muster.kube.kinds import EVENTS, PODS
from tests.control.running_cluster import NAMESPACE, RunningCluster, running_cluster

pytestmark = [pytest.mark.spark, pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]

JOB = Path(__file__).parent / "jobs" / "shuffles_twice.py"
CORES = {"spark.kubernetes.executor.request.cores": "28"}
"""Two of them, and no more, fit on the process node of 64."""


def installed_spark(version: str) -> Path:
    home = find_spark(version)
    if home is None:
        raise SparkUnavailableError(f"Spark {version} is not installed; `make test-spark` installs it")
    return home


def lender(version: str, folder: Path) -> SparkJob:
    """One executor is its minimum, a second one is lent to it; both keep shuffle data."""
    conf = {
        "spark.ui.enabled": "true",
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": "1",
        "spark.dynamicAllocation.maxExecutors": "2",
        "spark.decommission.enabled": "true",
        "spark.storage.decommission.enabled": "true",
        "spark.storage.decommission.replicationReattemptInterval": "5s",
    }
    return SparkJob("lender", f"local://{JOB}", (str(folder),), conf | CORES, version, NAMESPACE)


async def executors_as_told(cluster: RunningCluster) -> list[dict[str, object]]:
    """The driver's answer, as it is."""
    [driver] = await cluster.client.list(PODS, NAMESPACE, label_selector="spark-role=driver")
    application = driver.metadata.labels["spark-app-selector"]
    url = f"http://{driver.status.pod_ip}:{ui_port_of(driver)}/api/v1/applications/{application}/executors"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == 200
        told: list[dict[str, object]] = json.loads(await answer.read())
        return told


def ended_well(cluster: RunningCluster, result: SubmissionResult) -> bool:
    assert cluster.cluster.process_kubelet is not None
    tail = cluster.cluster.process_kubelet.tail(NAMESPACE, result.driver_pod, lines=60)
    assert result.exit_code == 0, f"{result.output[-3000:]}\n--- driver ---\n{tail}"
    return True


@pytest.mark.parametrize("version", ["4.3.0", "3.5.9"])
async def test_a_job_whose_executor_is_called_back_loses_nothing_that_it_shuffled(version: str, tmp_path: Path) -> None:
    pressure = {"pressure": {"after": "2s"}}
    async with running_cluster(
        processes=True, folder=tmp_path, spark_home=installed_spark, scheduling=pressure
    ) as cluster:
        lending = asyncio.create_task(cluster.cluster.submit_real(lender(version, tmp_path), timeout=500))
        while not await asyncio.to_thread((tmp_path / "shuffled").exists):
            assert not lending.done(), lending.result().output[-3000:]
            await asyncio.sleep(0.2)

        told = [one for one in await executors_as_told(cluster) if one["id"] != "driver"]
        assert len(told) == 2
        for one in told:
            assert {field.encode_name for field in msgspec.structs.fields(Executor)} <= one.keys()
            executor = msgspec.convert(one, Executor)
            assert executor.is_active
            assert executor.completed_tasks >= 1
            assert executor.total_shuffle_write > 0
            assert executor.total_duration >= 1500 * executor.completed_tasks, "milliseconds of tasks"

        claims = await cluster.cluster.submit_real(
            msgspec.structs.replace(
                static_job("claims", executors=1, version=version),
                namespace=NAMESPACE,
                conf={"spark.executor.instances": "1"} | CORES,
            ),
            timeout=400,
        )

        assert ended_well(cluster, claims)
        events = [e for e in await cluster.client.list(EVENTS, NAMESPACE) if e.reason == "ExecutorCalledBack"]
        assert any("it keeps shuffle data" in event.message for event in events), "the driver was asked"
        (tmp_path / "go").touch()
        assert ended_well(cluster, await lending)
        assert (tmp_path / "total").read_text() == str(sum(range(32)))
