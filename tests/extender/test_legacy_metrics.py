"""Dashboards of the archived scheduler find its metrics: names, tags and values."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from muster.control.extender.legacy_metrics import METRICS, Kind, LegacyMetrics, clean_tag
from muster.control.extender.outcomes import Outcome
from muster.control.extender.placement_metrics import Collocation, initial_placement, zone_traffic
from muster.control.extender.waste import Wait, waste
from tests.extender.spark_objects import DATA

DOCUMENT = (DATA.parents[2] / "docs" / "migrating-from-palantir.md").read_text()


def scraped(registry: CollectorRegistry, metrics: LegacyMetrics) -> list[str]:
    text = generate_latest(registry) + metrics.render()
    return [line for line in text.decode().splitlines() if not line.startswith("#")]


def test_a_metric_is_scraped_under_its_name_with_its_tags() -> None:
    registry = CollectorRegistry()
    metrics = LegacyMetrics(registry)
    metrics.count("requests", "driver", Outcome.FAILURE_FIT, "Batch Medium")
    metrics.set("packingefficiency", 0.5, "tightly-pack", "batch", "nvidia.com/gpu")
    metrics.observe("wait.time", 3e9, "executor", "", "batch")
    metrics.set("softreservation.count", 3)
    metrics.set("resource.usage.nvidia.com/gpu", 2, "node-1", "batch")
    lines = scraped(registry, metrics)
    prefix = "foundry_spark_scheduler_"
    assert (
        f'{prefix}requests_total{{instance_group="batch_medium",outcome="failure-fit",sparkrole="driver"}} 1.0' in lines
    )
    assert (
        f'{prefix}packingefficiency{{{prefix}packing_resource="nvidia.com/gpu",'
        f'{prefix}packingfunction="tightly-pack",instance_group="batch"}} 0.5'
    ) in lines
    assert (
        f'{prefix}wait_time_bucket{{instance_group="batch",le="5e+09",outcome="unspecified",sparkrole="executor"}} 1.0'
    ) in lines
    assert f"{prefix}softreservation_count 3.0" in lines
    assert f'{prefix}resource_usage_nvidia_com_gpu{{instance_group="batch",nodename="node-1"}} 2.0' in lines


def test_gauges_forget_what_is_not_told_of_any_more() -> None:
    registry = CollectorRegistry()
    metrics = LegacyMetrics(registry)
    name, roles = "pod.lifecycle.count", ("driver", "executor")
    metrics.replace(name, [(("batch", role, "ready"), 1) for role in roles])
    metrics.replace(name, [(("batch", "driver", "ready"), 3)])
    metrics.set("resource.usage.cpu", 1, "n1", "batch")
    metrics.set("resource.usage.cpu", 2, "n2", "batch")
    metrics.drop("resource.usage.cpu", "n1", "batch")
    told = [line for line in scraped(registry, metrics) if "lifecycle_count" in line or "resource_usage_cpu" in line]
    assert told == [
        'foundry_spark_scheduler_pod_lifecycle_count{instance_group="batch",lifecycle="ready",sparkrole="driver"} 3.0',
        'foundry_spark_scheduler_resource_usage_cpu{instance_group="batch",nodename="n2"} 2.0',
    ]


def test_unknown_metrics_and_missing_tags_are_mistakes() -> None:
    metrics = LegacyMetrics(CollectorRegistry())
    with pytest.raises(KeyError):
        metrics.count("request")
    with pytest.raises(ValueError, match="label"):
        metrics.count("requests", "driver")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("failure-fit", "failure-fit"),
        ("Batch Medium", "batch_medium"),
        ("a/b:c.d_e-1", "a/b:c.d_e-1"),
        ("größe", "gr__e"),
        ("", "unspecified"),
        ("x" * 201, "unspecified"),
    ],
)
def test_tags_are_cleaned(value: str, expected: str) -> None:
    assert clean_tag(value) == expected


def test_prometheus_names_are_valid_and_different() -> None:
    names = [metric.prometheus_name for metric in METRICS.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert all(metric.buckets for metric in METRICS.values() if metric.kind is Kind.HISTOGRAM)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_documentation_maps_each_metric(name: str) -> None:
    assert f"| `{name}` | `{METRICS[name].prometheus_name}` |" in DOCUMENT


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (Wait(0), {"total-time-no-demand": 100}),
        (Wait(0, demanded=10), {"before-demand-creation": 10}),
        (
            Wait(0, demanded=10, fulfilled=40),
            {"before-demand-creation": 10, "after-demand-fulfilled": 60, "after-demand-fulfilled-no-failures": 60},
        ),
        (
            Wait(0, demanded=10, fulfilled=40, failed=20),
            {"before-demand-creation": 10, "after-demand-fulfilled": 60, "after-demand-fulfilled-no-failures": 60},
        ),
        (
            Wait(0, demanded=10, fulfilled=40, failed=70, outcome=Outcome.FAILURE_EARLIER_DRIVER),
            {
                "before-demand-creation": 10,
                "after-demand-fulfilled": 60,
                "after-demand-fulfilled-failure-failure-earlier-driver": 30,
                "after-demand-fulfilled-since-last-failure": 30,
            },
        ),
    ],
)
def test_a_wait_is_divided_by_what_it_was_for(wait: Wait, expected: dict[str, float]) -> None:
    assert dict(waste(wait, 100)) == expected


def test_a_gang_is_measured_by_its_nodes() -> None:
    placement = initial_placement("n1", {"n1": 2, "n2": 3, "n3": 0})
    assert (placement.collocation, placement.executor_nodes, placement.executors_per_node) == (Collocation.SOME, 2, 2)
    assert initial_placement("n1", {"n1": 2}).collocation == Collocation.ALL
    assert initial_placement("n1", {"n2": 2}).collocation == Collocation.NONE
    alone = initial_placement("n1", {})
    assert (alone.collocation, alone.executor_nodes, alone.executors_per_node) == (Collocation.NONE, 0, 0)


@pytest.mark.parametrize(
    ("counts", "cross", "total"), [([5], 0, 10), ([1, 1], 1, 1), ([3, 3], 9, 15), ([2, 3], 6, 10), ([], 0, 0)]
)
def test_traffic_between_zones_is_pairs_of_pods(counts: list[int], cross: int, total: int) -> None:
    traffic = zone_traffic(counts)
    assert (traffic.cross_zone, traffic.total) == (cross, total)
