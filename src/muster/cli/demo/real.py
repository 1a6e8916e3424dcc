"""The two real applications: which they are, whether they can run here, and running them by spark-submit."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import msgspec

from muster.cli.demo.cluster import NAMESPACE
from muster.cli.demo.measure import Expected
from muster.cluster.resources import Resources
from muster.devcluster.distribution import Progress, SparkUnavailableError, ensure_spark
from muster.devcluster.process_kubelet import java_command
from muster.devcluster.real_spark import SparkJob, dynamic_job, static_job

SPARK_VERSION = "4.3.0"
OLDEST_JAVA = 17
"""Spark 4 needs it."""

EXECUTOR = Resources.of(cpu=1000, memory=896 << 20)
"""512 MiB of heap + 384 MiB of overhead (of Python: 40 %, at least 384 MiB)."""

STATIC, DYNAMIC = "real-static-pi", "real-dynamic-growing"


class RealJob(msgspec.Struct, frozen=True):
    job: SparkJob
    minimum: int

    @property
    def expected(self) -> Expected:
        return Expected(self.job.name, self.minimum, EXECUTOR, real=True)


def real_jobs() -> tuple[RealJob, ...]:
    """One static application of two executors, one that grows from one to three."""
    static = static_job(STATIC, executors=2, partitions=8, version=SPARK_VERSION)
    dynamic = dynamic_job(DYNAMIC, initial=1, maximum=3, tasks=12, version=SPARK_VERSION)
    return tuple(
        RealJob(msgspec.structs.replace(job, namespace=NAMESPACE), minimum)
        for job, minimum in ((static, 2), (dynamic, 1))
    )


def missing() -> str:
    """Why real Spark cannot run on this machine; "" when it can."""
    try:
        java = java_command()
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    found = java_version(told)
    if found is None:
        return f"{java} did not tell its version"
    return "" if found >= OLDEST_JAVA else f"{java} is Java {found}; Spark {SPARK_VERSION} needs {OLDEST_JAVA} or later"


def java_version(told: str) -> int | None:
    """The major version in the answer of ``java -version``: 17 of ``17.0.12``, 8 of ``1.8.0_402``."""
    match = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(match.group(1)) if match else None


async def install(progress: Progress) -> Path | str:
    """``SPARK_HOME``, installed on first use; or in words why there is none."""
    loop = asyncio.get_running_loop()

    def report(text: str) -> None:
        loop.call_soon_threadsafe(progress, text)

    try:
        return await asyncio.to_thread(ensure_spark, SPARK_VERSION, report)
    except SparkUnavailableError as error:
        return str(error)
