"""Drivers are given a limit on pending executors, which they may overrule; real Spark keeps to it."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from muster.control.admission import Admission
from muster.control.metrics import Metrics
from muster.devcluster.distribution import SparkUnavailableError, find_spark
from muster.devcluster.real_spark import GROWING_JOB, SparkJob
from muster.kube.kinds import PODS
from muster.scheduling.model import Mode, Placement
from tests.control.running_cluster import NAMESPACE, running_cluster
from tests.control.spark_pods import driver_pod
from tests.control.test_admission_reviews import review_of

LIMIT = "-Dspark.kubernetes.allocation.maxPendingPods"


def environment(pod: dict[str, Any], limit: int = 1000) -> dict[str, Any]:
    """Of the driver's container after its admission."""
    admission = Admission(lambda _: Placement(Mode.HOLD), ("default-scheduler",), Metrics(), (), limit)
    response = json.loads(admission.review(review_of(pod)))["response"]
    patched = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))
    found = next(c for c in patched["spec"]["containers"] if c["name"] != "sidecar")
    return {variable["name"]: variable.get("value") for variable in found.get("env", ())}


def test_a_driver_gets_the_configured_limit_beside_its_own_environment() -> None:
    before = {v["name"] for v in driver_pod()["spec"]["containers"][0]["env"]}
    after = environment(driver_pod())
    assert after["SPARK_SUBMIT_OPTS"] == f"{LIMIT}=1000"
    assert before == after.keys() - {"SPARK_SUBMIT_OPTS"}
    assert before, "the driver that Spark makes has an environment"


def test_a_driver_without_any_environment_gets_one() -> None:
    pod = driver_pod()
    del pod["spec"]["containers"][0]["env"]
    assert environment(pod) == {"SPARK_SUBMIT_OPTS": f"{LIMIT}=1000"}


def test_options_that_somebody_has_set_are_left_alone() -> None:
    pod = driver_pod()
    pod["spec"]["containers"][0]["env"].append({"name": "SPARK_SUBMIT_OPTS", "value": "-Xss4m"})
    assert environment(pod)["SPARK_SUBMIT_OPTS"] == "-Xss4m"


def test_without_a_limit_nothing_is_added() -> None:
    assert "SPARK_SUBMIT_OPTS" not in environment(driver_pod(), limit=0)


@pytest.mark.parametrize(
    ("said", "limit"), [("7", "7"), (" 20 ", "20"), ("-1", "1000"), ("many", "1000"), ("", "1000")]
)
def test_an_annotation_overrules_the_configuration_if_it_is_a_count(said: str, limit: str) -> None:
    pod = driver_pod()
    pod["metadata"].setdefault("annotations", {})["muster.dev/max-pending-executors"] = said
    assert environment(pod)["SPARK_SUBMIT_OPTS"] == f"{LIMIT}={limit}"


def test_the_annotation_can_lift_the_limit() -> None:
    pod = driver_pod()
    pod["metadata"].setdefault("annotations", {})["muster.dev/max-pending-executors"] = "0"
    assert "SPARK_SUBMIT_OPTS" not in environment(pod)


def test_sparks_container_is_found_beside_others_and_under_another_name_if_it_is_alone() -> None:
    beside, renamed = driver_pod(), driver_pod()
    beside["spec"]["containers"].insert(0, {"name": "sidecar", "image": "proxy"})
    renamed["spec"]["containers"][0]["name"] = "main"
    assert environment(beside)["SPARK_SUBMIT_OPTS"] == f"{LIMIT}=1000"
    assert environment(renamed)["SPARK_SUBMIT_OPTS"] == f"{LIMIT}=1000"


# Real Spark


def installed_spark(version: str) -> Path:
    home = find_spark(version)
    if home is None:
        raise SparkUnavailableError(f"Spark {version} is not installed; `make test-spark` installs it")
    return home


def hungry_job(version: str, **conf: str) -> SparkJob:
    """It wants twelve executors, of which the process node with its 64 cores has room for one."""
    settings = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": "1",
        "spark.dynamicAllocation.maxExecutors": "12",
        "spark.kubernetes.executor.request.cores": "40",
    }
    return SparkJob("hungry", f"local://{GROWING_JOB}", ("24", "1.0"), settings | conf, version, NAMESPACE)


async def most_held(job: SparkJob, folder: Path, limit: int) -> int:
    """How many of its executors were held at a time, at most; the job ends well all the same."""
    most = 0
    async with running_cluster(
        processes=True,
        folder=folder,
        spark_home=installed_spark,
        scheduling={"maxPendingExecutors": limit},
    ) as cluster:

        async def count() -> None:
            nonlocal most
            while True:
                pods = await cluster.client.list(PODS, NAMESPACE, label_selector="spark-role=executor")
                held = [pod for pod in pods if pod.spec.scheduling_gates and pod.metadata.deletion_timestamp is None]
                most = max(most, len(held))
                await asyncio.sleep(0.2)

        counting = asyncio.create_task(count())
        try:
            result = await cluster.cluster.submit_real(job, timeout=400)
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)
        assert result.exit_code == 0, result.output[-3000:]
    return most


@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("spark")
@pytest.mark.parametrize("version", ["4.3.0", "3.5.9"])
async def test_real_spark_has_no_more_executors_pending_than_the_limit(version: str, tmp_path: Path) -> None:
    assert await most_held(hungry_job(version), tmp_path, 4) == 4


@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("spark")
@pytest.mark.parametrize("version", ["4.3.0", "3.5.9"])
async def test_what_the_user_has_configured_wins(version: str, tmp_path: Path) -> None:
    job = hungry_job(version, **{"spark.kubernetes.allocation.maxPendingPods": "6"})
    assert await most_held(job, tmp_path, 4) == 6
