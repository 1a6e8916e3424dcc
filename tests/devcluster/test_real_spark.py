"""The unmodified spark-submit, drivers and executors of Apache Spark run on the embedded cluster to exit 0."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.devcluster.cluster import DevCluster
from muster.devcluster.distribution import SparkUnavailableError, find_spark
from muster.devcluster.real_spark import (
    SparkJob,
    SubmissionResult,
    driver_exit_code,
    driver_pod_of,
    dynamic_job,
    static_job,
)
from muster.kube.kinds import PODS
from muster.kube.list_watch import Added, ListWatch, Modified, WatchedEvent
from muster.kube.objects import Pod

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("spark")]


def installed_spark(version: str) -> Path:
    home = find_spark(version)
    if home is None:
        raise SparkUnavailableError(f"Spark {version} is not installed; `make test-spark` installs it")
    return home


class Seen:
    """The executors' pods, with the phases that they went through."""

    def __init__(self) -> None:
        self.phases: dict[str, list[str]] = {}

    def note(self, event: WatchedEvent[Pod]) -> None:
        if isinstance(event, Added | Modified) and event.object.metadata.labels.get("spark-role") == "executor":
            phases = self.phases.setdefault(event.object.metadata.name, [])
            if not phases or phases[-1] != event.object.status.phase:
                phases.append(event.object.status.phase)

    def ran(self) -> list[str]:
        return [name for name, phases in self.phases.items() if "Running" in phases]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[DevCluster]:
    async with DevCluster((), processes=True, folder=tmp_path, spark_home=installed_spark) as running:
        yield running
        assert running.counters().problems == ()


@pytest.fixture
async def seen(cluster: DevCluster) -> AsyncIterator[Seen]:
    executors = Seen()
    watch = asyncio.create_task(ListWatch(cluster.client, PODS).run(executors.note))
    yield executors
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def run(cluster: DevCluster, job: SparkJob) -> SubmissionResult:
    result = await cluster.submit_real(job, timeout=500)
    assert cluster.process_kubelet is not None
    tail = cluster.process_kubelet.tail("default", result.driver_pod, lines=60)
    assert result.exit_code == 0, f"{result.output[-3000:]}\n--- driver ---\n{tail}"
    return result


@pytest.mark.spark
@pytest.mark.parametrize("version", ["4.3.0", "3.5.9"])
async def test_a_static_application_runs_to_its_end(cluster: DevCluster, seen: Seen, version: str) -> None:
    result = await run(cluster, static_job(version=version))
    assert len(seen.ran()) == 2
    driver = await cluster.client.get(PODS, result.driver_pod, "default")
    assert driver.status.phase == "Succeeded"
    assert cluster.process_kubelet is not None
    assert "Pi is roughly 3.1" in cluster.process_kubelet.tail("default", result.driver_pod, lines=60)
    left = await cluster.client.list(PODS, "default", label_selector="spark-role=executor")
    assert [pod.metadata.name for pod in left if pod.status.phase == "Running"] == []


@pytest.mark.spark
async def test_dynamic_allocation_grows_to_its_maximum(cluster: DevCluster, seen: Seen) -> None:
    await run(cluster, dynamic_job(initial=1, maximum=3))
    assert len(seen.ran()) == 3


@pytest.mark.spark
async def test_the_exit_code_of_a_job_that_fails_is_told(cluster: DevCluster, tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import sys\nsys.exit(3)\n")
    result = await cluster.submit_real(SparkJob("fails", f"local://{script}"), timeout=500)
    assert result.exit_code == 3
    driver = await cluster.client.get(PODS, result.driver_pod, "default")
    assert driver.status.phase == "Failed"


def test_the_driver_pod_is_found_in_what_spark_submit_writes() -> None:
    output = (
        "INFO LoggingPodStatusWatcherImpl: State changed, new state: \n\t pod name: spark-pi-d793fda210f9f03f-driver\n"
    )
    assert driver_pod_of(output) == "spark-pi-d793fda210f9f03f-driver"
    assert driver_pod_of("Exception in thread main") == ""


def test_the_drivers_exit_code_is_the_last_one_that_spark_submit_writes() -> None:
    output = (
        "Container final statuses:\n\n\n\t container name: spark-kubernetes-driver\n\t exit code: 3\n\t termination"
    )
    assert driver_exit_code(output) == 3
    assert driver_exit_code("nothing of the kind") == 0
