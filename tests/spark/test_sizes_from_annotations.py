"""Sizes written on the driver pod: Muster's annotations, the archived scheduler's, and what happens when two differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.resources import Resources
from muster.spark.annotations import annotation_sizes, application_sizes, client_gang, require_agreement
from muster.spark.errors import InvalidSizeError, SourcesDisagreeError
from muster.spark.properties import SparkProperties

CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "data" / "archived-annotation-parsing.json").read_text())
}
STATIC: dict[str, str] = CASES["parse/static"]["annotations"]
DYNAMIC: dict[str, str] = CASES["parse/dynamic"]["annotations"]
MUSTER = {
    "muster.dev/executor-cpu": "2",
    "muster.dev/executor-memory": "6758Mi",
    "muster.dev/executor-count": "3",
}


def annotated(case: dict[str, Any]) -> dict[str, str]:
    if "annotations" in case:
        return dict(case["annotations"])
    if "annotations_missing" in case:
        return {key: value for key, value in STATIC.items() if key != case["annotations_missing"]}
    return STATIC | case["annotations_delta"]


@pytest.mark.parametrize("name", ["parse/static", "parse/dynamic", "parse/no-gpu", "parse/fractional-count"])
def test_archived_annotations_mean_what_they_meant(name: str) -> None:
    expected = CASES[name]["expected"]
    sizes = annotation_sizes(annotated(CASES[name]))
    assert sizes is not None
    assert (sizes.minimum, sizes.maximum) == (expected["min"], expected["max"])
    for pod, role in ((sizes.driver, "driver"), (sizes.executor, "executor")):
        if role in expected:
            cores, memory, gpus = expected[role]
            assert pod is not None
            assert pod.requests == Resources.of(cpu=cores * 1000, memory=memory, **{"nvidia.com/gpu": gpus})


def test_a_missing_archived_annotation_is_told_in_the_archived_words() -> None:
    case = CASES["parse/missing-driver-cpu"]
    with pytest.raises(InvalidSizeError) as caught:
        annotation_sizes(annotated(case))
    assert f"failed to get spark resources: {caught.value.message}" == case["expected_message"]


def test_a_negative_archived_count_is_an_error_where_the_archived_scheduler_crashed() -> None:
    with pytest.raises(InvalidSizeError, match="annotation spark-executor-count is negative"):
        annotation_sizes(annotated(CASES["parse/negative-count"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spark-dynamic-allocation-enabled": "yes"}, "DynamicAllocationEnabled could not be parsed as a boolean"),
        ({"spark-dynamic-allocation-enabled": "tRUE"}, "DynamicAllocationEnabled could not be parsed as a boolean"),
        ({"spark-executor-count": None}, "ExecutorCount is required when DynamicAllocationEnabled is false"),
        (
            {"spark-dynamic-allocation-enabled": "1"},
            "spark-dynamic-allocation-min-executor-count is required when DynamicAllocationEnabled is true",
        ),
        ({"spark-executor-mem": None}, "spark-executor-mem is missing from driver"),
        ({"spark-driver-mem": "4 GB"}, "spark-driver-mem does not have a parseable value 4 GB"),
        ({"spark-driver-nvidia.com/gpu": "one"}, "spark-driver-nvidia.com/gpu does not have a parseable value one"),
        ({"spark-executor-cpu": "-1"}, "spark-executor-cpu is negative"),
        ({"spark-executor-count": "1000001"}, "spark-executor-count is more than 1000000"),
        (
            {"spark-dynamic-allocation-max-executor-count": "lots"},
            "spark-dynamic-allocation-max-executor-count does not have a parseable value lots",
        ),
    ],
)
def test_bad_archived_annotations_are_refused_by_name(changes: dict[str, str | None], message: str) -> None:
    annotations = {key: value for key, value in (STATIC | changes).items() if value is not None}
    with pytest.raises(InvalidSizeError) as caught:
        annotation_sizes(annotations)
    assert caught.value.message == f"annotation {message}"
    assert caught.value.reason == "InvalidSize"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spark-dynamic-allocation-min-executor-count": "-2"}, "min-executor-count is negative"),
        ({"spark-dynamic-allocation-max-executor-count": "1"}, "max-executor-count is less than"),
        ({"spark-dynamic-allocation-min-executor-count": "2000000"}, "min-executor-count is more than 1000000"),
    ],
)
def test_bad_archived_bounds_are_refused_by_name(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSizeError, match=message):
        annotation_sizes(DYNAMIC | changes)


def test_the_first_failure_in_the_archived_order_is_told() -> None:
    with pytest.raises(InvalidSizeError, match="spark-driver-cpu is missing"):
        annotation_sizes({"spark-executor-count": "x", "spark-executor-cpu": "y"})


def test_a_driver_without_size_annotations_says_nothing() -> None:
    assert annotation_sizes({}) is None
    assert annotation_sizes({"muster.dev/queue": "etl", "prometheus.io/scrape": "true"}) is None


def test_musters_annotations_alone_make_a_whole() -> None:
    sizes = annotation_sizes(MUSTER)
    assert sizes is not None
    assert sizes.driver is None
    assert sizes.executor.requests == Resources.of(cpu=2000, memory=6758 * 2**20)
    assert (sizes.minimum, sizes.maximum, sizes.dynamic) == (3, 3, False)


def test_a_minimum_alone_has_no_ceiling() -> None:
    bounded = {key: value for key, value in MUSTER.items() if key != "muster.dev/executor-count"}
    sizes = annotation_sizes(bounded | {"muster.dev/min-executors": "0"})
    assert sizes is not None
    assert (sizes.minimum, sizes.maximum, sizes.dynamic) == (0, None, True)


def test_parts_of_a_size_wait_for_the_properties() -> None:
    annotations = {"muster.dev/executor-memory": "8Gi", "muster.dev/min-executors": "1"}
    assert annotation_sizes(annotations) is None
    sizes = application_sizes(SparkProperties({"spark.executor.instances": "4"}), "4.3.0", annotations)
    assert sizes.executor.requests == Resources.of(cpu=1000, memory=8 * 2**30)
    assert sizes.executor.limits == Resources.of(memory=8 * 2**30)
    assert sizes.driver is not None
    assert sizes.driver.requests == Resources.of(cpu=1000, memory=1408 * 2**20)
    assert (sizes.minimum, sizes.maximum) == (1, 4)


def test_musters_annotations_override_the_archived_ones() -> None:
    sizes = annotation_sizes(STATIC | {"muster.dev/executor-cpu": "3", "muster.dev/executor-count": "2"})
    assert sizes is not None
    assert sizes.executor.requests.get("cpu") == 3000
    assert sizes.executor.requests.get("nvidia.com/gpu") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"muster.dev/executor-count": "0"}, "executor-count is 0"),
        ({"muster.dev/executor-count": "-1"}, "executor-count is not a whole number"),
        ({"muster.dev/executor-count": "2.5"}, "executor-count is not a whole number"),
        ({"muster.dev/executor-count": "²"}, "executor-count is not a whole number"),
        ({"muster.dev/executor-count": "9" * 5000}, "executor-count is not a whole number"),
        ({"muster.dev/executor-count": "1000001"}, "executor-count is more than 1000000"),
        ({"muster.dev/max-executors": "4"}, "does not go with muster.dev/max-executors"),
        ({"muster.dev/executor-memory": "8g"}, r"executor-memory is not a Kubernetes quantity \(like \"4Gi\""),
        ({"muster.dev/executor-cpu": "two"}, r"executor-cpu is not a Kubernetes quantity \(like \"500m\""),
        ({"muster.dev/executor-cpu": "-2"}, "executor-cpu is negative"),
        ({"muster.dev/executor-memory": "0"}, "executor-memory is 0"),
    ],
)
def test_bad_annotations_are_refused_by_name(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSizeError, match=f"annotation muster.dev/.*{message}"):
        annotation_sizes(MUSTER | changes)


def test_a_ceiling_below_the_minimum_is_refused() -> None:
    with pytest.raises(InvalidSizeError, match=r"max-executors is less than muster.dev/min-executors"):
        annotation_sizes({"muster.dev/min-executors": "5", "muster.dev/max-executors": "4"})


def test_an_annotated_minimum_above_sparks_ceiling_is_a_disagreement() -> None:
    properties = SparkProperties({"spark.executor.instances": "4"})
    with pytest.raises(SourcesDisagreeError, match=r"muster.dev.*settings disagree about how many executors"):
        application_sizes(properties, "4.3.0", {"muster.dev/min-executors": "5"})


def test_executors_of_client_mode_may_ask_for_a_gang() -> None:
    assert client_gang({"muster.dev/executor-count": "12"}) == 12
    assert client_gang({}) is None
    with pytest.raises(InvalidSizeError):
        client_gang({"muster.dev/executor-count": "0"})


def test_two_sources_that_agree_pass() -> None:
    properties = SparkProperties({"spark.executor.memory": "6g", "spark.executor.cores": "2"})
    from_spark = application_sizes(properties, "4.3.0")
    annotated_alike = annotation_sizes(
        {
            "muster.dev/executor-cpu": "2",
            "muster.dev/executor-memory": "6758Mi",
            "muster.dev/executor-count": "2",
        }
    )
    assert annotated_alike is not None
    require_agreement("the annotations", annotated_alike, "the ConfigMap", from_spark)


def test_two_sources_that_disagree_are_both_named_and_no_value_is() -> None:
    properties = SparkProperties({"spark.executor.memory": "7g", "spark.executor.instances": "5"})
    from_spark = application_sizes(properties, "4.3.0")
    from_annotations = annotation_sizes(STATIC)
    assert from_annotations is not None
    with pytest.raises(SourcesDisagreeError) as caught:
        require_agreement("the annotations", from_annotations, "the ConfigMap", from_spark)
    assert caught.value.reason == "SourcesDisagree"
    assert caught.value.message == (
        "the annotations and the ConfigMap disagree about the driver's memory, the driver's nvidia.com/gpu, "
        "the executors' cpu, the executors' memory, the executors' nvidia.com/gpu, "
        "the number of executors to start with, the highest number of executors"
    )
    with pytest.raises(SourcesDisagreeError) as caught:
        require_agreement("the annotations", from_annotations, "the pods", from_spark, counts=False)
    assert "number" not in caught.value.message
