"""Drivers that could never fit are marked, and only they."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muster.cluster.resources import CPU, GPU, MEMORY, Resources
from muster.control.extender.marker import CONDITION, scan
from muster.control.extender.pods import application_of
from muster.kube.objects import Pod
from muster.packing import Gang, find_packer
from tests.extender.spark_objects import ANNOTATIONS, cases, driver_pod

CASES = cases("unschedulable-marker")
CREATED = 1_681_992_000.0
"""2023-04-20T12:00:00Z, when the drivers here were created."""
LATER = CREATED + 601.0


def amounts(triple: list[int]) -> list[int]:
    cpu, memory, gpu = triple
    return [cpu * 1000, memory, gpu]


def fits(case: dict[str, Any], pod: Pod) -> bool:
    """The recorded nodes, empty, and the recorded packer."""
    sizes = application_of(pod).sizes
    assert sizes.driver is not None

    def vector(requests: Resources) -> np.ndarray:
        return np.array([requests.get(name) for name in (CPU, MEMORY, GPU)], dtype=np.int64)

    room = np.array([amounts(node["allocatable"]) for node in case["nodes"]], dtype=np.int64).T
    order = np.arange(len(case["nodes"]))
    zones = np.zeros(len(order), dtype=np.int64)
    driver, executor = vector(sizes.driver.requests), vector(sizes.executor.requests)
    gang = Gang(room, room, driver, executor, sizes.minimum, order, order, zones)
    return find_packer(case["algorithm"]).pack(gang) is not None


@pytest.mark.parametrize("name", sorted(CASES))
def test_only_what_exceeds_the_empty_cluster_is_marked(name: str) -> None:
    case = CASES[name]
    app = case["app"]
    annotations = {
        f"spark-{role}-{key}": str(value)
        for role in ("driver", "executor")
        for key, value in zip(("cpu", "mem", "nvidia.com/gpu"), app[role], strict=True)
    }
    pod = driver_pod(metadata={"annotations": {**annotations, "spark-executor-count": str(app["count"])}})
    [mark] = scan([pod], LATER, 600, lambda each: not fits(case, each)).marks
    assert mark.condition.status == ("True" if case["expected_exceeds_capacity"] else "False")


def marked(pod: Pod, *, exceeds: bool = True, now: float = LATER) -> list[str]:
    return [mark.condition.status for mark in scan([pod], now, 600, lambda each: exceeds).marks]


def test_a_driver_is_asked_about_after_its_time() -> None:
    assert marked(driver_pod(), now=CREATED + 600) == []
    assert marked(driver_pod(), now=CREATED + 600.5) == ["True"]
    assert marked(driver_pod(), exceeds=False) == ["False"]


@pytest.mark.parametrize(
    "pod",
    [
        driver_pod(spec={"nodeName": "n1"}),
        driver_pod(spec={"schedulerName": "default-scheduler"}),
        driver_pod(metadata={"labels": {"spark-role": "executor"}}),
        driver_pod(metadata={"deletionTimestamp": "2023-04-20T12:05:00Z"}),
        driver_pod(status={"phase": "Failed"}),
    ],
)
def test_others_are_not_asked_about(pod: Pod) -> None:
    assert marked(pod) == []


def test_a_condition_is_written_when_it_changes() -> None:
    def with_condition(status: str) -> Pod:
        return driver_pod(status={"conditions": [{"type": CONDITION, "status": status}]})

    assert marked(with_condition("True")) == []
    assert marked(with_condition("False"), exceeds=False) == []
    assert marked(with_condition("True"), exceeds=False) == ["False"]


def test_one_unreadable_driver_does_not_stop_the_scan() -> None:
    bad = driver_pod("bad", metadata={"annotations": ANNOTATIONS | {"spark-executor-count": "-1"}})
    good = driver_pod("good")
    found = scan([bad, good], LATER, 600, lambda pod: application_of(pod).sizes.minimum > 3)
    assert [mark.pod.metadata.name for mark in found.marks] == ["good"]
    [(pod, error)] = found.unreadable
    assert (pod.metadata.name, error.message) == ("bad", "annotation spark-executor-count is negative")


def test_the_patch_sets_one_condition() -> None:
    [mark] = scan([driver_pod()], LATER, 600, lambda pod: True).marks
    [condition] = mark.patch["status"]["conditions"]
    assert condition["type"] == "PodExceedsClusterCapacity"
    assert condition["lastTransitionTime"] == "2023-04-20T12:10:01Z"
