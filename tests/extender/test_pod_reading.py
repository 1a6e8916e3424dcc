"""Instance groups, sizes and ends of pods, as the archived scheduler read them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from muster.control.extender.outcomes import SPARK_RESOURCES, wrapped
from muster.control.extender.pods import (
    application_id,
    application_of,
    instance_group,
    is_scheduled,
    is_terminated,
    scheduled_at,
)
from muster.kube.objects import Pod, PodSpec
from muster.spark.errors import InvalidSizeError
from tests.extender.spark_objects import ANNOTATIONS, driver_pod


def spec(*terms: list[dict[str, Any]], selector: dict[str, str] | None = None) -> PodSpec:
    required = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}} if terms else {}
    return msgspec.convert({"affinity": affinity, "nodeSelector": selector or {}}, PodSpec)


def expression(*values: str, key: str = "resource_channel", operator: str = "In") -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("pod_spec", "expected"),
    [
        (spec([expression("batch")]), "batch"),
        (spec([expression("x", key="zone"), expression("batch")]), "batch"),
        (spec([expression("x", key="zone")], [expression("batch")]), "batch"),
        (spec([expression("a", "b")], [expression("c")]), "c"),
        (spec([expression("not-this", operator="NotIn")]), "not-this"),
        (spec([expression("batch")], selector={"resource_channel": "selected"}), "batch"),
        (spec([expression("a", "b")], selector={"resource_channel": "selected"}), "selected"),
        (spec(selector={"resource_channel": "selected"}), "selected"),
        (spec(selector={"zone": "z"}), None),
        (PodSpec(), None),
    ],
)
def test_the_first_single_value_names_the_group(pod_spec: PodSpec, expected: str | None) -> None:
    assert instance_group(pod_spec) == expected


def test_the_groups_label_can_be_another() -> None:
    assert instance_group(spec(selector={"pool": "p"}), "pool") == "p"


def status(**fields: Any) -> Pod:
    return driver_pod(status=fields)


TERMINATED = {"name": "c", "state": {"terminated": {"exitCode": 0}}}
RUNNING = {"name": "c", "state": {"running": {}}}


@pytest.mark.parametrize(
    ("pod", "over"),
    [
        (status(phase="Running", containerStatuses=[TERMINATED]), True),
        (status(phase="Running", containerStatuses=[TERMINATED, TERMINATED]), True),
        (status(phase="Running", containerStatuses=[TERMINATED, RUNNING]), False),
        (status(phase="Running", containerStatuses=[]), False),
        (status(phase="Pending"), False),
        (status(phase="Failed", reason="Evicted"), True),
        (status(phase="Succeeded"), True),
    ],
)
def test_a_pod_is_over_when_its_containers_are_or_it_says_so(pod: Pod, over: bool) -> None:
    assert is_terminated(pod) is over


def test_a_pod_is_scheduled_when_its_condition_says_so() -> None:
    at = "2023-04-20T12:00:09Z"
    pod = status(conditions=[{"type": "PodScheduled", "status": "True", "lastTransitionTime": at}])
    assert (is_scheduled(pod), scheduled_at(pod)) == (True, at)
    assert not is_scheduled(status(conditions=[{"type": "PodScheduled", "status": "False", "lastTransitionTime": at}]))
    assert not is_scheduled(driver_pod(spec={"nodeName": "n1"}))


def test_sizes_are_written_in_the_notation_they_were_read_in() -> None:
    annotations = ANNOTATIONS | {"spark-driver-mem": "2G", "spark-executor-cpu": "0.5", "spark-executor-mem": "1e9"}
    application = application_of(driver_pod(metadata={"annotations": annotations}))
    assert application.driver == {"cpu": "1", "memory": "2G", "nvidia.com/gpu": "0"}
    assert application.executor == {"cpu": "500m", "memory": "1e9", "nvidia.com/gpu": "0"}
    assert (application.sizes.minimum, application.sizes.maximum) == (4, 4)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({}, "annotation spark-driver-cpu is missing from driver"),
        (
            ANNOTATIONS | {"spark-driver-mem": "4 GB"},
            "annotation spark-driver-mem does not have a parseable value 4 GB",
        ),
    ],
)
def test_a_driver_without_readable_sizes_is_told_in_the_archived_words(
    annotations: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidSizeError) as caught:
        application_of(driver_pod(metadata={"annotations": annotations}))
    assert wrapped(SPARK_RESOURCES, caught.value.message) == f"failed to get spark resources: {message}"


def test_an_application_without_id_has_none() -> None:
    assert application_id(driver_pod()) == "app-1"
    assert application_id(driver_pod(metadata={"labels": {"spark-role": "driver"}})) == ""
