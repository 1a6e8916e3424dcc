"""Every pod size and executor count is the one that the real Spark gave, as recorded from its own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.cluster.resources import Resources
from muster.devcluster.distribution import PINNED_VERSIONS
from muster.spark.errors import InvalidSizeError
from muster.spark.gang import MAX_EXECUTORS, executor_counts
from muster.spark.node_selectors import driver_node_selector, executor_node_selector
from muster.spark.properties import SparkProperties, read_properties
from muster.spark.sizes import ExecutorRequests, PodSize, driver_size, executor_size, profile_size
from tests.spark.recorded import read, sizes_file

RECORDED = [(version, answer) for version in PINNED_VERSIONS for answer in read(sizes_file(version))]


def _named(version: str, answer: dict[str, Any]) -> str:
    return f"{version}: {answer['name']}"


every_case = pytest.mark.parametrize(
    ("version", "answer"), RECORDED, ids=[_named(version, answer) for version, answer in RECORDED]
)


def assert_same(size: Callable[[], PodSize], answer: dict[str, Any]) -> None:
    """Requests (limits of devices count as requests, as Kubernetes defaults them) and limits; or both refuse."""
    if "refused" in answer or refused_by_kubernetes(answer):
        with pytest.raises(InvalidSizeError):
            size()
        return
    devices = {name: amount for name, amount in answer["limits"].items() if "/" in name}
    actual = size()
    assert actual.requests == Resources.parse(devices | answer["requests"])
    assert actual.limits == Resources.parse(answer["limits"])
    assert actual.memory is not None
    assert actual.memory.total_mib * 2**20 == actual.requests.get("memory")


def refused_by_kubernetes(answer: dict[str, Any]) -> bool:
    """``must be less than or equal to cpu limit``; Spark 4.3 says so itself for executors."""
    limit = answer["limits"].get("cpu")
    return limit is not None and Resources.parse({"cpu": answer["requests"]["cpu"]}) > Resources.parse({"cpu": limit})


@every_case
def test_pods_are_as_large_as_spark_makes_them(version: str, answer: dict[str, Any]) -> None:
    if "properties" not in answer:
        assert_same(lambda: driver_size(SparkProperties(answer["conf"]), version), answer["driver"])
        return
    properties = read_properties(answer["properties"])
    assert_same(lambda: driver_size(properties, version), answer["driver"])
    assert_same(lambda: executor_size(properties, version), answer["executor"])
    if answer["profile"]:
        assert_same(lambda: profile_size(properties, version, _requests(answer["asked"])), answer["profile"])


@every_case
def test_gangs_are_as_large_as_spark_starts_them(version: str, answer: dict[str, Any]) -> None:
    if "properties" not in answer:
        return
    properties = read_properties(answer["properties"])
    initial, ceiling = answer["initial"], answer["ceiling"]
    refused_by_spark = isinstance(initial, dict)
    refused_by_submit = initial == 0 and ceiling is None  # SparkSubmitArguments: "must be a positive number"
    if refused_by_spark or refused_by_submit:
        with pytest.raises(InvalidSizeError):
            executor_counts(properties)
        return
    counts = executor_counts(properties)
    assert counts.minimum == initial
    assert counts.dynamic is (ceiling is not None)
    if ceiling is None:
        assert counts.maximum == initial
    else:
        assert counts.maximum == (ceiling if ceiling <= MAX_EXECUTORS else None)


@pytest.mark.parametrize("version", PINNED_VERSIONS)
def test_node_selectors_are_those_spark_writes(version: str) -> None:
    answer = next(answer for answer in read(sizes_file(version)) if answer["name"] == "node selectors")
    properties = read_properties(answer["properties"])
    assert driver_node_selector(properties) == answer["driver"]["nodeSelector"]
    assert executor_node_selector(properties) == answer["executor"]["nodeSelector"]


@pytest.mark.parametrize("version", PINNED_VERSIONS)
def test_the_record_holds_every_kind_of_answer(version: str) -> None:
    answers = read(sizes_file(version))
    assert len(answers) > 250
    assert sum("refused" in answer["driver"] for answer in answers) >= 1
    assert sum("refused" in answer.get("executor", ()) for answer in answers) > 10
    assert sum(bool(answer.get("profile")) for answer in answers) > 100
    assert sum(answer.get("ceiling") is not None for answer in answers) > 50


def _requests(asked: dict[str, Any]) -> ExecutorRequests:
    return ExecutorRequests(
        cores=asked.get("cores"),
        memory_mib=asked.get("memory"),
        overhead_mib=asked.get("memoryOverhead"),
        off_heap_mib=asked.get("offHeapMemory"),
        pyspark_mib=asked.get("pysparkMemory"),
        resources=(("nvidia.com/gpu", asked["gpu"]),) if "gpu" in asked else (),
    )
