"""The size of a gang: the driver's and the executors' pods, how many executors it starts with and may have."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muster.spark.errors import InvalidSizeError
from muster.spark.sizes import PodSize, driver_size, executor_size
from muster.spark.values import boolean, integer

MAX_EXECUTORS = 1_000_000
"""More executors than that in one gang are a mistake; a *ceiling* above it counts as none."""

INSTANCES = "spark.executor.instances"
DYNAMIC = "spark.dynamicAllocation.enabled"
DYNAMIC_MIN = "spark.dynamicAllocation.minExecutors"
DYNAMIC_INITIAL = "spark.dynamicAllocation.initialExecutors"
DYNAMIC_MAX = "spark.dynamicAllocation.maxExecutors"
DEFAULT_INSTANCES = 2
"""``SchedulerBackendUtils.DEFAULT_NUMBER_EXECUTORS``."""


class ExecutorCounts(msgspec.Struct, frozen=True):
    minimum: int
    """Executors that Spark asks for at the start."""
    maximum: int | None
    """With dynamic allocation its ceiling, ``None`` when there is none; else ``minimum``."""
    dynamic: bool = False


class ApplicationSizes(msgspec.Struct, frozen=True):
    """Everything that makes a gang, from one source."""

    driver: PodSize | None
    """``None`` in client mode, or where the source says nothing of the driver (its pod is the truth anyway)."""
    executor: PodSize
    """Executors of the default resource profile."""
    minimum: int
    maximum: int | None
    dynamic: bool = False


def sizes_from_properties(
    properties: Mapping[str, str], spark_version: str, *, client_mode: bool = False
) -> ApplicationSizes:
    """The sizes that Spark itself will use.

    ``properties``: the driver's own (``read_properties``); ``spark_version``: the label of that name.

    Raises:
        InvalidSizeError: a value that does not parse, or that Spark or Kubernetes would refuse.
    """
    counts = executor_counts(properties)
    return ApplicationSizes(
        driver=None if client_mode else driver_size(properties, spark_version),
        executor=executor_size(properties, spark_version),
        minimum=counts.minimum,
        maximum=counts.maximum,
        dynamic=counts.dynamic,
    )


def executor_counts(properties: Mapping[str, str]) -> ExecutorCounts:
    """How many executors Spark starts with, and may have (``SchedulerBackendUtils.getInitialTargetExecutorNumber``).

    Static: ``spark.executor.instances``, 2 by default. Dynamic: the largest of minimum, initial and instances
    (``Utils.getDynamicAllocationInitialExecutors``), which may be 0; the ceiling is ``maxExecutors``.

    Raises:
        InvalidSizeError: no number, negative, a static 0 (``SparkSubmitArguments``), a ceiling of 0 or below the start
            (``ExecutorAllocationManager.validateSettings``), or more than ``MAX_EXECUTORS``.
    """
    if boolean(properties, DYNAMIC):
        return _dynamic_counts(properties)
    instances = _count(properties, INSTANCES)
    if instances == 0:
        raise InvalidSizeError(INSTANCES, f"{INSTANCES} is 0, which Spark allows with dynamic allocation only")
    start = DEFAULT_INSTANCES if instances is None else instances
    bounded(INSTANCES, start)
    return ExecutorCounts(start, start)


def _dynamic_counts(properties: Mapping[str, str]) -> ExecutorCounts:
    minimum = _count(properties, DYNAMIC_MIN) or 0
    initial = _count(properties, DYNAMIC_INITIAL)
    instances = _count(properties, INSTANCES) or 0
    maximum = _count(properties, DYNAMIC_MAX)
    starts = {DYNAMIC_MIN: minimum, DYNAMIC_INITIAL: minimum if initial is None else initial, INSTANCES: instances}
    source = max(starts, key=lambda key: starts[key])
    start = starts[source]
    bounded(source, start)
    if maximum is None:
        return ExecutorCounts(start, None, dynamic=True)
    if maximum == 0:
        raise InvalidSizeError(DYNAMIC_MAX, f"{DYNAMIC_MAX} is 0")
    if maximum < start:
        raise InvalidSizeError(DYNAMIC_MAX, f"{DYNAMIC_MAX} is less than {source}")
    return ExecutorCounts(start, maximum if maximum <= MAX_EXECUTORS else None, dynamic=True)


def bounded(source: str, count: int) -> None:
    """Raises ``InvalidSizeError`` when a gang of ``count`` executors is absurd."""
    if count > MAX_EXECUTORS:
        raise InvalidSizeError(source, f"{source} is more than {MAX_EXECUTORS}")


def _count(properties: Mapping[str, str], key: str) -> int | None:
    count = integer(properties, key)
    if count is not None and count < 0:
        raise InvalidSizeError(key, f"{key} is negative")
    return count
