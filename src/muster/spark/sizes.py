"""What Spark's pods ask for, to the MiB: driver, executors, executors of further resource profiles.

The formulas are those of ``BasicDriverFeatureStep`` and ``BasicExecutorFeatureStep`` of ``spark-kubernetes`` and of
``ResourceProfile.getResourcesForClusterManager`` of ``spark-core``, 3.5 to 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from muster.cluster.resources import CPU, MEMORY, Resources
from muster.spark.errors import InvalidSizeError
from muster.spark.values import INT_MAX, MAX_MIB, MIB, boolean, byte_count, factor, integer, mebibytes, quantity

DEFAULT_HEAP_MIB = 1024
DEFAULT_OVERHEAD_FACTOR = 0.1
DEFAULT_MIN_OVERHEAD_MIB = 384
PYTHON = "python"

_T = TypeVar("_T")

_RESOURCE_KEY = re.compile(r"spark\.(driver|executor)\.resource\.([^.]+)\.(?:amount|vendor)")


class Memory(msgspec.Struct, frozen=True):
    """What a pod's memory is made of, in MiB."""

    heap_mib: int
    overhead_mib: int
    off_heap_mib: int = 0
    pyspark_mib: int = 0

    @property
    def total_mib(self) -> int:
        return self.heap_mib + self.overhead_mib + self.off_heap_mib + self.pyspark_mib


class PodSize(msgspec.Struct, frozen=True):
    """Requests and limits of Spark's own container."""

    requests: Resources
    """With extended resources, which Spark writes as limits alone and Kubernetes copies to the requests."""
    limits: Resources
    memory: Memory | None = None
    """``None`` when the size was given as a whole (annotations)."""


class ExecutorRequests(msgspec.Struct, frozen=True):
    """``ExecutorResourceRequests`` of a resource profile other than the default one; ``None`` where it asks nothing."""

    cores: int | None = None
    memory_mib: int | None = None
    overhead_mib: int | None = None
    off_heap_mib: int | None = None
    pyspark_mib: int | None = None
    resources: tuple[tuple[str, int], ...] = ()
    """Extended resources by their Kubernetes name, ``("nvidia.com/gpu", 1)``."""


def major_version(spark_version: str) -> int:
    """The 4 of a ``spark-version`` label like ``4.3.0``; vendors' suffixes are fine, unreadable counts as 4."""
    match = re.match(r"([0-9]{1,4})\.", spark_version)
    return int(match[1]) if match else 4


def driver_size(properties: Mapping[str, str], spark_version: str) -> PodSize:
    """The driver pod's size (``BasicDriverFeatureStep``): heap and overhead; off-heap memory is *not* added.

    ``properties`` are the driver's own, in which the submitter has already set
    ``spark.kubernetes.memoryOverheadFactor`` (to 0.4 for Python and R applications that do not set it).

    Raises:
        InvalidSizeError: a value that does not parse or that no pod can have.
    """
    heap = _heap(properties, "spark.driver.memory", spark_version)
    memory = Memory(heap, _overhead(properties, "spark.driver", heap, spark_version))
    cores = _cores(properties, "spark.driver.cores")
    return _pod(
        memory,
        cpu=_cpu(properties, "driver", cores),
        extended=_extended_resources(properties, "driver"),
        source="spark.driver.memory",
    )


def executor_size(properties: Mapping[str, str], spark_version: str) -> PodSize:
    """An executor pod's size in the default resource profile (``BasicExecutorFeatureStep``).

    Heap, overhead, off-heap memory when enabled, and in Python applications PySpark's own memory.

    Raises:
        InvalidSizeError: a value that does not parse or that no pod can have.
    """
    cores = _cores(properties, "spark.executor.cores")
    return _pod(
        _executor_memory(properties, spark_version),
        cpu=_cpu(properties, "executor", cores),
        extended=_extended_resources(properties, "executor"),
        source="spark.executor.memory",
    )


def profile_size(properties: Mapping[str, str], spark_version: str, requests: ExecutorRequests) -> PodSize:
    """An executor pod's size in a resource profile other than the default one.

    ``request.cores`` and ``limit.cores`` do not count there. A profile with its own heap but without its own overhead
    gets the overhead of the *default* profile's heap: 16 GiB beside a default of 1 GiB come with 384 MiB
    (``ResourceProfile.getResourcesForClusterManager``).

    Raises:
        InvalidSizeError: a value that does not parse or that no pod can have.
    """
    default = _executor_memory(properties, spark_version)
    memory = Memory(
        heap_mib=_given(requests.memory_mib, default.heap_mib),
        overhead_mib=_given(requests.overhead_mib, default.overhead_mib),
        off_heap_mib=_given(requests.off_heap_mib, default.off_heap_mib) if _off_heap_enabled(properties) else 0,
        pyspark_mib=_given(requests.pyspark_mib, default.pyspark_mib) if _is_python(properties) else 0,
    )
    cores = _given(requests.cores, _cores(properties, "spark.executor.cores"))
    extended = Resources.of(**dict(requests.resources))
    return _pod(memory, (cores * 1000, None), extended, source="the resource profile's memory")


def _executor_memory(properties: Mapping[str, str], spark_version: str) -> Memory:
    heap = _heap(properties, "spark.executor.memory", spark_version)
    return Memory(
        heap,
        _overhead(properties, "spark.executor", heap, spark_version),
        _off_heap(properties, spark_version),
        _mebibytes(properties, "spark.executor.pyspark.memory", 0, spark_version) if _is_python(properties) else 0,
    )


def _heap(properties: Mapping[str, str], key: str, spark_version: str) -> int:
    heap = _mebibytes(properties, key, DEFAULT_HEAP_MIB, spark_version)
    if heap == 0:
        raise InvalidSizeError(key, f"{key} is less than 1 MiB")
    return heap


def _overhead(properties: Mapping[str, str], prefix: str, heap: int, spark_version: str) -> int:
    """MiB (``ResourceProfile.calculateOverHeadMemory``, ``BasicDriverFeatureStep.memoryOverheadMiB``).

    The role's own ``memoryOverhead`` wins; else its factor, or ``spark.kubernetes.memoryOverheadFactor``, of the heap,
    cut to whole MiB, and at least the minimum, which is a property from Spark 4.0 on.
    """
    factor_of_role = factor(properties, f"{prefix}.memoryOverheadFactor")
    factor_of_both = factor(properties, "spark.kubernetes.memoryOverheadFactor")
    minimum = DEFAULT_MIN_OVERHEAD_MIB
    if major_version(spark_version) >= 4:
        minimum = _mebibytes(properties, f"{prefix}.minMemoryOverhead", DEFAULT_MIN_OVERHEAD_MIB, spark_version)
    explicit = mebibytes(properties, f"{prefix}.memoryOverhead", binary_suffixes=major_version(spark_version) >= 4)
    if explicit is not None:
        return explicit
    share = _given(factor_of_role, _given(factor_of_both, DEFAULT_OVERHEAD_FACTOR)) * heap
    return max(int(min(share, INT_MAX)), minimum)


def _off_heap_enabled(properties: Mapping[str, str]) -> bool:
    return boolean(properties, "spark.memory.offHeap.enabled")


def _off_heap(properties: Mapping[str, str], spark_version: str) -> int:
    """MiB, cut (``Utils.executorOffHeapMemorySizeAsMb``, ``Utils.checkOffHeapEnabled``)."""
    key = "spark.memory.offHeap.size"
    size = byte_count(properties, key, binary_suffixes=major_version(spark_version) >= 4) or 0
    if not _off_heap_enabled(properties):
        return 0
    if size < MIB:
        raise InvalidSizeError(key, f"{key} must be at least 1 MiB when spark.memory.offHeap.enabled is true")
    return size // MIB


def _is_python(properties: Mapping[str, str]) -> bool:
    """Whether the submitter said that the main resource is Python (``APP_RESOURCE_TYPE``)."""
    return properties.get("spark.kubernetes.resource.type") == PYTHON


def _mebibytes(properties: Mapping[str, str], key: str, default: int, spark_version: str) -> int:
    value = mebibytes(properties, key, binary_suffixes=major_version(spark_version) >= 4)
    return _given(value, default)


def _cores(properties: Mapping[str, str], key: str) -> int:
    cores = _given(integer(properties, key), 1)
    if cores < 1:
        raise InvalidSizeError(key, f"{key} is less than 1")
    return cores


def _cpu(properties: Mapping[str, str], role: str, cores: int) -> tuple[int, int | None]:
    """Millicores requested, and their limit if there is one; a limit below the request is refused by Kubernetes."""
    request_key, limit_key = f"spark.kubernetes.{role}.request.cores", f"spark.kubernetes.{role}.limit.cores"
    request = quantity(request_key, properties[request_key]) if request_key in properties else cores * 1000
    if limit_key not in properties:
        return request, None
    limit = quantity(limit_key, properties[limit_key])
    if limit < request:
        requested_by = request_key if request_key in properties else f"spark.{role}.cores"
        raise InvalidSizeError(limit_key, f"{limit_key} is less than {requested_by}")
    return request, limit


def _extended_resources(properties: Mapping[str, str], role: str) -> Resources:
    """``ResourceUtils.parseAllResourceRequests``: GPUs and other devices, under ``<vendor>/<name>``."""
    amounts: dict[str, int] = {}
    for name in sorted(
        {match[2] for key in properties if (match := _RESOURCE_KEY.fullmatch(key)) and match[1] == role}
    ):
        prefix = f"spark.{role}.resource.{name}"
        amount = integer(properties, f"{prefix}.amount")
        if amount is None:
            raise InvalidSizeError(f"{prefix}.amount", f"{prefix}.amount is missing, while {prefix}.vendor is set")
        if amount < 0:
            raise InvalidSizeError(f"{prefix}.amount", f"{prefix}.amount is negative")
        vendor = properties.get(f"{prefix}.vendor", "")
        if amount and not vendor:
            raise InvalidSizeError(f"{prefix}.vendor", f"{prefix}.vendor is missing, which Kubernetes needs")
        amounts[f"{vendor}/{name}"] = amount
    return Resources.of(**amounts)


def _pod(memory: Memory, cpu: tuple[int, int | None], extended: Resources, source: str) -> PodSize:
    if memory.total_mib > MAX_MIB:
        raise InvalidSizeError(source, f"{source} with all overheads is larger than any machine's memory")
    request, limit = cpu
    both = Resources.of(**{MEMORY: memory.total_mib * MIB}) + extended
    return PodSize(
        requests=both + Resources.of(**{CPU: request}),
        limits=both if limit is None else both + Resources.of(**{CPU: limit}),
        memory=memory,
    )


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value
