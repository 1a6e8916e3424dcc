"""The unmodified ``spark-submit`` of a distribution, against any cluster with process kubelets."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from muster.devcluster.node_pool import NodePool
from muster.devcluster.process_kubelet import JAVA_OPTIONS, POOL_NAME
from muster.devcluster.session import start
from muster.devcluster.spark_process import ProcessPlan

GROWING_JOB = Path(__file__).parent / "jobs" / "growing.py"
PI_JOB = "local:///opt/spark/examples/src/main/python/pi.py"
"""Ships with every distribution; the path is the image's."""


class SparkJob(msgspec.Struct, frozen=True):
    """A real application."""

    name: str
    application: str
    """``local:///…``: a path in the image or on this machine."""
    arguments: tuple[str, ...] = ()
    conf: dict[str, str] = {}
    version: str = "4.3.0"
    namespace: str = "default"
    service_account: str = "spark"
    deploy_mode: str = "cluster"
    """``client``: the driver is spark-submit's own process, outside the cluster."""


class SubmissionResult(msgspec.Struct, frozen=True):
    """How it ended."""

    exit_code: int
    """Of spark-submit; where that is 0, of the driver's pod, for which it waits but whose failure it hides."""
    seconds: float
    output: str
    """What spark-submit wrote."""
    driver_pod: str
    """"" when none was created."""


def static_job(name: str = "spark-pi", *, executors: int = 2, partitions: int = 4, version: str = "4.3.0") -> SparkJob:
    """SparkPi with a fixed number of executors."""
    conf = {"spark.executor.instances": str(executors)}
    return SparkJob(name, PI_JOB, (str(partitions),), conf, version)


def dynamic_job(
    name: str = "spark-growing",
    *,
    initial: int = 1,
    maximum: int = 3,
    tasks: int = 12,
    task_seconds: float = 1.0,
    version: str = "4.3.0",
) -> SparkJob:
    """Waiting tasks under dynamic allocation from one executor to ``maximum``."""
    conf = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": "1",
        "spark.dynamicAllocation.initialExecutors": str(initial),
        "spark.dynamicAllocation.maxExecutors": str(maximum),
    }
    return SparkJob(name, f"local://{GROWING_JOB}", (str(tasks), str(task_seconds)), conf, version)


def submit_arguments(job: SparkJob, server: str) -> list[str]:
    """The command line after ``spark-submit``. Nothing in it is for Muster; the selector leads to the process node."""
    pool_label = NodePool().pool_label
    conf = {
        "spark.kubernetes.namespace": job.namespace,
        "spark.kubernetes.authenticate.driver.serviceAccountName": job.service_account,
        "spark.kubernetes.container.image": f"spark:{job.version}",
        f"spark.kubernetes.node.selector.{pool_label}": POOL_NAME,
        "spark.driver.memory": "512m",
        "spark.executor.memory": "512m",
        "spark.executor.cores": "1",
        # Jetty listens on all addresses of the machine, which the drivers share
        "spark.ui.enabled": "false",
    }
    arguments = ["--master", f"k8s://{server}", "--deploy-mode", job.deploy_mode, "--name", job.name]
    for key, value in (conf | job.conf).items():
        arguments += ["--conf", f"{key}={value}"]
    return [*arguments, job.application, *job.arguments]


async def submit_real(
    job: SparkJob,
    server: str,
    kubeconfig: Path,
    spark_home: Path,
    folder: Path,
    *,
    timeout: float = 300.0,
    environment: Mapping[str, str] | None = None,
) -> SubmissionResult:
    """Run spark-submit until the application has ended; credentials come from ``kubeconfig``.

    ``folder`` receives its log. Raises ``TimeoutError`` after ``timeout`` seconds, with everything it started killed.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    log = folder / f"{job.name}-submit.log"
    plan = ProcessPlan(
        command=(str(spark_home / "bin" / "spark-submit"), *submit_arguments(job, server)),
        environment={
            **(os.environ if environment is None else environment),
            "SPARK_HOME": str(spark_home),
            "KUBECONFIG": str(kubeconfig),
            "PYSPARK_PYTHON": sys.executable,
            "JAVA_TOOL_OPTIONS": " ".join(JAVA_OPTIONS),
        },
        folder=folder,
    )
    begun = time.monotonic()
    submission = await start(plan, log)
    try:
        async with asyncio.timeout(timeout):
            code = await submission.wait()
    finally:
        submission.kill()
        await submission.wait()
    output = await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")
    return SubmissionResult(code or driver_exit_code(output), time.monotonic() - begun, output, driver_pod_of(output))


def driver_pod_of(output: str) -> str:
    """The driver pod that spark-submit tells of in its log; "" when it tells of none."""
    match = re.search(r"pod name: (\S+-driver)\b", output) or re.search(r"\b([a-z0-9][a-z0-9-]*-driver)\b", output)
    return match.group(1) if match else ""


def driver_exit_code(output: str) -> int:
    """The driver container's exit code in what spark-submit writes at the end; 0 when it tells of none."""
    codes: list[str] = re.findall(r"^\s*exit code: (\d+)$", output, re.MULTILINE)
    return int(codes[-1]) if codes else 0
