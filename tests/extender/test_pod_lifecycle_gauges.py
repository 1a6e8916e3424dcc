"""How long pods are queued, initialising and getting ready, as the archived scheduler's dashboards show it."""

from __future__ import annotations

from typing import Any

import pytest

from muster.control.extender.pod_lifecycle import Stage, StageKey, Start, percentile, stage_times, start_of, stuck_pods
from muster.kube.timestamps import format_time
from tests.extender.spark_objects import cases, driver_pod

CASE = cases("pod-lifecycle")["lifecycle/1"]
NOW = 1_681_992_000.0
CONDITIONS = {"scheduled": "PodScheduled", "initialized": "Initialized", "ready": "Ready"}


def start(role: str = "driver", **moments: float) -> Start:
    conditions = [
        {"type": CONDITIONS[name], "status": "True", "lastTransitionTime": format_time(NOW + seconds)}
        for name, seconds in moments.items()
        if name in CONDITIONS
    ]
    metadata = {"labels": {"spark-role": role}, "creationTimestamp": format_time(NOW + moments["created"])}
    selector = {"resource_channel": CASE["instance_group"]}
    pod = driver_pod(
        metadata=metadata, spec={"affinity": None, "nodeSelector": selector}, status={"conditions": conditions}
    )
    return start_of(pod, "resource_channel")


def test_the_recorded_queue() -> None:
    starts = [start(**each) for each in CASE["pods"]]
    times = stage_times(starts, NOW + CASE["now"])
    expected: dict[str, dict[str, Any]] = CASE["expected"]
    assert {f"{key.role}/{key.stage}": {"max_s": one.maximum, "count": one.count} for key, one in times.items()} == (
        expected
    )
    assert {key.instance_group for key in times} == {CASE["instance_group"]}


def test_transitions_count_for_a_minute() -> None:
    key = StageKey(CASE["instance_group"], "driver", Stage.QUEUED)
    one = start(created=-90, scheduled=-60)
    assert stage_times([one], NOW)[key].maximum == 30
    assert key not in stage_times([one], NOW + 1)


def test_a_pod_is_stuck_after_half_a_day_in_one_stage() -> None:
    starts = [
        start(created=-43_200),
        start(created=-50_000, scheduled=-43_000),
        start(created=-99_999, scheduled=-99_000),
    ]
    assert [(each.stage, each.seconds) for each in stuck_pods(starts, NOW)] == [
        (Stage.QUEUED, 43_200),
        (Stage.INITIALIZING, 99_000),
    ]


@pytest.mark.parametrize(
    ("ordered", "share", "expected"),
    [([7.0], 0.5, 7.0), ([1.0, 3.0], 0.5, 2.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5), ([1.0, 2.0], 0.95, 2.0)],
)
def test_percentiles_lie_between_samples(ordered: list[float], share: float, expected: float) -> None:
    assert percentile(ordered, share) == expected
