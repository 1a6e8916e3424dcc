"""Sizes that people write on driver pods: Muster's annotations, and those of the archived ``k8s-spark-scheduler``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muster.cluster.quantity import QuantityError, amount
from muster.cluster.resources import CPU, GPU, MEMORY, Resources, scale
from muster.spark import names
from muster.spark.errors import InvalidSizeError, SourcesDisagreeError
from muster.spark.gang import ApplicationSizes, bounded, sizes_from_properties
from muster.spark.sizes import PodSize
from muster.spark.values import quantity

ARCHIVED_ANNOTATIONS = (
    names.ARCHIVED_DRIVER_CPU,
    names.ARCHIVED_DRIVER_MEMORY,
    names.ARCHIVED_DRIVER_GPU,
    names.ARCHIVED_EXECUTOR_CPU,
    names.ARCHIVED_EXECUTOR_MEMORY,
    names.ARCHIVED_EXECUTOR_GPU,
    names.ARCHIVED_EXECUTOR_COUNT,
    names.ARCHIVED_DYNAMIC_ALLOCATION,
    names.ARCHIVED_MIN_EXECUTORS,
    names.ARCHIVED_MAX_EXECUTORS,
)
_GO_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)

_SHOWN = 64
"""Longest part of an annotation's value in an error: the extender repeats it for every node."""


class Overrides(msgspec.Struct, frozen=True):
    """What Muster's own annotations say of a size; ``None`` where they say nothing. Base units of ``Resources``."""

    driver_cpu: int | None = None
    driver_memory: int | None = None
    executor_cpu: int | None = None
    executor_memory: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    static: bool = False
    """``executor-count`` was given: minimum and maximum are it."""


def application_sizes(
    properties: Mapping[str, str], spark_version: str, annotations: Mapping[str, str] | None = None
) -> ApplicationSizes:
    """An application's sizes from Spark's properties, with what the driver's annotations override.

    Raises:
        InvalidSizeError: a property or annotation that does not parse or that nothing can have.
        SourcesDisagreeError: an annotated minimum above the properties' ceiling, or the other way round.
    """
    return overridden(sizes_from_properties(properties, spark_version), read_overrides(annotations or {}))


def annotation_sizes(annotations: Mapping[str, str]) -> ApplicationSizes | None:
    """An application's sizes from its driver's annotations alone; ``None`` when these do not hold all of them.

    Muster's annotations override the archived scheduler's. Of Muster's alone, executor cpu, memory and a count (or a
    minimum) make a whole; the driver's size is then ``None`` unless both its amounts are given.

    Raises:
        InvalidSizeError: an annotation that does not parse or that nothing can have.
        SourcesDisagreeError: see ``application_sizes``.
    """
    overrides = read_overrides(annotations)
    archived = archived_sizes(annotations)
    if archived is not None:
        return overridden(archived, overrides)
    if overrides.executor_cpu is None or overrides.executor_memory is None or overrides.minimum is None:
        return None
    driver = None
    if overrides.driver_cpu is not None and overrides.driver_memory is not None:
        driver = _pod_size(overrides.driver_cpu, overrides.driver_memory)
    return ApplicationSizes(
        driver=driver,
        executor=_pod_size(overrides.executor_cpu, overrides.executor_memory),
        minimum=overrides.minimum,
        maximum=overrides.maximum,
        dynamic=not overrides.static,
    )


def client_gang(annotations: Mapping[str, str]) -> int | None:
    """The gang's size on an executor pod of client mode; ``None`` when it asks for no gang.

    Raises:
        InvalidSizeError: not a whole number above 0, or absurd.
    """
    return _positive_count(annotations, names.EXECUTOR_COUNT_ANNOTATION)


def read_overrides(annotations: Mapping[str, str]) -> Overrides:
    """Muster's own annotations. Counts are plain whole numbers, sizes Kubernetes quantities (``4Gi``, not ``4g``).

    Raises:
        InvalidSizeError: a value that does not parse, a static count of 0, a ceiling of 0 or below the minimum, or
            ``executor-count`` together with a minimum or maximum.
    """
    count = _positive_count(annotations, names.EXECUTOR_COUNT_ANNOTATION)
    minimum = _count(annotations, names.MIN_EXECUTORS_ANNOTATION)
    maximum = _positive_count(annotations, names.MAX_EXECUTORS_ANNOTATION)
    if count is not None and (minimum is not None or maximum is not None):
        other = names.MIN_EXECUTORS_ANNOTATION if minimum is not None else names.MAX_EXECUTORS_ANNOTATION
        raise InvalidSizeError(
            names.EXECUTOR_COUNT_ANNOTATION,
            f"annotation {names.EXECUTOR_COUNT_ANNOTATION} stands for a fixed count, and does not go with {other}",
        )
    if minimum is not None and maximum is not None and maximum < minimum:
        raise InvalidSizeError(
            names.MAX_EXECUTORS_ANNOTATION,
            f"annotation {names.MAX_EXECUTORS_ANNOTATION} is less than {names.MIN_EXECUTORS_ANNOTATION}",
        )
    return Overrides(
        driver_cpu=_amount(annotations, names.DRIVER_CPU_ANNOTATION, CPU),
        driver_memory=_amount(annotations, names.DRIVER_MEMORY_ANNOTATION, MEMORY),
        executor_cpu=_amount(annotations, names.EXECUTOR_CPU_ANNOTATION, CPU),
        executor_memory=_amount(annotations, names.EXECUTOR_MEMORY_ANNOTATION, MEMORY),
        minimum=count if count is not None else minimum,
        maximum=count if count is not None else maximum,
        static=count is not None,
    )


def overridden(sizes: ApplicationSizes, overrides: Overrides) -> ApplicationSizes:
    """``sizes`` with what is not ``None`` in ``overrides``. A lower minimum alone starts a static gang smaller.

    Raises:
        SourcesDisagreeError: the minimum of one would be above the maximum of the other.
    """
    minimum = sizes.minimum if overrides.minimum is None else overrides.minimum
    maximum = sizes.maximum if overrides.maximum is None else overrides.maximum
    if maximum is not None and minimum > maximum:
        raise SourcesDisagreeError(
            "the annotations muster.dev/*", "the application's own settings", ("how many executors it may have",)
        )
    return ApplicationSizes(
        driver=sizes.driver and _with_amounts(sizes.driver, overrides.driver_cpu, overrides.driver_memory),
        executor=_with_amounts(sizes.executor, overrides.executor_cpu, overrides.executor_memory),
        minimum=minimum,
        maximum=maximum,
        dynamic=sizes.dynamic and not overrides.static,
    )


def archived_sizes(annotations: Mapping[str, str]) -> ApplicationSizes | None:
    """The archived scheduler's annotations, ``None`` when there are none of them.

    Raises:
        InvalidSizeError: see ``read_archived_sizes``.
    """
    return read_archived_sizes(annotations) if any(name in annotations for name in ARCHIVED_ANNOTATIONS) else None


def read_archived_sizes(annotations: Mapping[str, str]) -> ApplicationSizes:
    """The archived scheduler's annotations, which must be there.

    As its ``SparkResources`` read them: every one present must parse, used or not, and the first failure in its own
    order is told in its own words; counts are quantities, rounded up. Stricter than it where it crashed: counts that
    are negative or absurd, and a maximum below the minimum, are errors.

    Raises:
        InvalidSizeError: see above. It shows a value that does not parse, as the archived scheduler did: whoever sees
            the pod sees its annotations.
    """
    dynamic = _GO_BOOLEANS.get(annotations.get(names.ARCHIVED_DYNAMIC_ALLOCATION, "false"))
    if dynamic is None:
        raise InvalidSizeError(
            names.ARCHIVED_DYNAMIC_ALLOCATION, "annotation DynamicAllocationEnabled could not be parsed as a boolean"
        )
    driver = _archived_pod(
        annotations, names.ARCHIVED_DRIVER_CPU, names.ARCHIVED_DRIVER_MEMORY, names.ARCHIVED_DRIVER_GPU
    )
    executor = _archived_pod(
        annotations, names.ARCHIVED_EXECUTOR_CPU, names.ARCHIVED_EXECUTOR_MEMORY, names.ARCHIVED_EXECUTOR_GPU
    )
    count = _archived_amount(annotations, names.ARCHIVED_EXECUTOR_COUNT)
    if count is None and not dynamic:
        raise InvalidSizeError(
            names.ARCHIVED_EXECUTOR_COUNT,
            "annotation ExecutorCount is required when DynamicAllocationEnabled is false",
        )
    bounds: list[int | None] = []
    for name in (names.ARCHIVED_MIN_EXECUTORS, names.ARCHIVED_MAX_EXECUTORS):
        bounds.append(_archived_amount(annotations, name))
        if bounds[-1] is None and dynamic:
            raise InvalidSizeError(name, f"annotation {name} is required when DynamicAllocationEnabled is true")
    minimum, maximum = bounds if dynamic else (count, count)
    assert minimum is not None and maximum is not None
    _archived_counts_are_sane(minimum, maximum, dynamic)
    return ApplicationSizes(driver, executor, minimum, maximum, dynamic)


def require_agreement(
    first_name: str, first: ApplicationSizes, second_name: str, second: ApplicationSizes, *, counts: bool = True
) -> None:
    """Two sources of one application's sizes must say the same, as far as both say something.

    ``counts=False`` compares the pods alone.

    Raises:
        SourcesDisagreeError: naming both sources and every field, never a value.
    """
    fields = []
    if first.driver is not None and second.driver is not None:
        fields += [f"the driver's {name}" for name in differing(first.driver.requests, second.driver.requests)]
    fields += [f"the executors' {name}" for name in differing(first.executor.requests, second.executor.requests)]
    if counts and first.minimum != second.minimum:
        fields.append("the number of executors to start with")
    if counts and first.maximum != second.maximum:
        fields.append("the highest number of executors")
    if fields:
        raise SourcesDisagreeError(first_name, second_name, tuple(fields))


def differing(first: Resources, second: Resources) -> list[str]:
    """Names of the resources whose amounts differ, sorted."""
    resources = {name for name, _ in (*first.amounts, *second.amounts)}
    return sorted(name for name in resources if first.get(name) != second.get(name))


def _pod_size(cpu: int, memory: int, gpu: int = 0) -> PodSize:
    whole = Resources.of(**{CPU: cpu, MEMORY: memory, GPU: gpu})
    return PodSize(requests=whole, limits=Resources.of(**{MEMORY: memory, GPU: gpu}))


def _with_amounts(size: PodSize, cpu: int | None, memory: int | None) -> PodSize:
    if cpu is None and memory is None:
        return size
    requests, limits = dict(size.requests.amounts), dict(size.limits.amounts)
    if cpu is not None:
        requests[CPU] = cpu
    if memory is not None:
        requests[MEMORY] = limits[MEMORY] = memory
    return PodSize(Resources.of(**requests), Resources.of(**limits), size.memory if memory is None else None)


def _amount(annotations: Mapping[str, str], name: str, resource: str) -> int | None:
    if (text := annotations.get(name)) is None:
        return None
    value = quantity(f"annotation {name}", text, resource)
    if value == 0:
        raise InvalidSizeError(name, f"annotation {name} is 0")
    return value


def _count(annotations: Mapping[str, str], name: str) -> int | None:
    if (text := annotations.get(name)) is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise InvalidSizeError(name, f"annotation {name} is not a whole number, 0 or more")
    bounded(f"annotation {name}", int(text))
    return int(text)


def _positive_count(annotations: Mapping[str, str], name: str) -> int | None:
    count = _count(annotations, name)
    if count == 0:
        raise InvalidSizeError(name, f"annotation {name} is 0")
    return count


def _archived_pod(annotations: Mapping[str, str], cpu: str, memory: str, gpu: str) -> PodSize:
    amounts = {}
    for name, resource in ((cpu, CPU), (memory, MEMORY), (gpu, GPU)):
        value = _archived_amount(annotations, name, resource)
        if value is None and name != gpu:
            raise InvalidSizeError(name, f"annotation {name} is missing from driver")
        if value is not None and value < 0:
            raise InvalidSizeError(name, f"annotation {name} is negative")
        amounts[resource] = value or 0
    return _pod_size(amounts[CPU], amounts[MEMORY], amounts[GPU])


def _archived_amount(annotations: Mapping[str, str], name: str, resource: str = "count") -> int | None:
    if (text := annotations.get(name)) is None:
        return None
    try:
        return amount(text, scale(resource))
    except QuantityError:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        raise InvalidSizeError(name, f"annotation {name} does not have a parseable value {shown}") from None


def _archived_counts_are_sane(minimum: int, maximum: int, dynamic: bool) -> None:
    lowest = names.ARCHIVED_MIN_EXECUTORS if dynamic else names.ARCHIVED_EXECUTOR_COUNT
    highest = names.ARCHIVED_MAX_EXECUTORS if dynamic else names.ARCHIVED_EXECUTOR_COUNT
    for name, count in ((lowest, minimum), (highest, maximum)):
        if count < 0:
            raise InvalidSizeError(name, f"annotation {name} is negative")
    bounded(f"annotation {lowest}", minimum)
    if maximum < minimum:
        raise InvalidSizeError(highest, f"annotation {highest} is less than {lowest}")
