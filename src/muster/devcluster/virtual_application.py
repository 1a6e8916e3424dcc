"""The description of a virtual Spark application."""

from __future__ import annotations

import msgspec

from muster.spark.names import GROUP

ANNOTATION_PREFIX = f"devcluster.{GROUP}/"
RUN_SECONDS = ANNOTATION_PREFIX + "run-seconds"
"""On any pod of a virtual node: virtual seconds until it ends by itself. On a driver: the length of the job's work."""
TAIL_SECONDS = ANNOTATION_PREFIX + "tail-seconds"
PARALLELISM = ANNOTATION_PREFIX + "parallelism"
EXIT_CODE = ANNOTATION_PREFIX + "exit-code"
"""On any pod of a virtual node: how it ends; 0 without."""


class VirtualApplication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Spark application whose driver and executors only take room and time.

    The work is ``run_seconds`` long with ``parallelism`` executors, and slower in proportion with fewer. After it
    comes a tail of ``tail_seconds`` in which one executor is busy: what dynamic allocation gives back.
    """

    name: str
    namespace: str = "default"
    executors: int = 2
    """``spark.executor.instances``; with dynamic allocation the initial number."""
    dynamic: bool = False
    min_executors: int = 0
    max_executors: int | None = None
    """``None`` is Spark's default, no ceiling."""
    executor_cores: int = 1
    executor_memory_mib: int = 1024
    """Heap; Spark adds its overhead."""
    driver_cores: int = 1
    driver_memory_mib: int = 1024
    run_seconds: float = 60.0
    tail_seconds: float = 0.0
    parallelism: int | None = None
    """Executors that the work could fill at its widest; by default as many as there may be."""
    spark_version: str = "4.3.0"
    python: bool = False
    properties: dict[str, str] = {}
    """Further Spark properties, as ``--conf``."""
    driver_annotations: dict[str, str] = {}
    driver_labels: dict[str, str] = {}
    executor_annotations: dict[str, str] = {}
    executor_labels: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    service_account: str = "spark"
    scheduler_name: str = ""
    exit_code: int = 0

    @property
    def widest(self) -> int:
        """Executors at which the work is at full speed."""
        if self.parallelism is not None:
            return self.parallelism
        if not self.dynamic:
            return self.executors
        return self.max_executors if self.max_executors is not None else max(2 * self.executors, 2)


def minor(version: str) -> tuple[int, int]:
    """``(4, 3)`` of ``4.3.0``."""
    major, minor_number = version.split(".")[:2]
    return int(major), int(minor_number)
