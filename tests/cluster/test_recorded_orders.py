"""The order of nodes against the recorded answers of the archived scheduler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muster.cluster.nodes import ZONE_LABELS, Node, NodeTable
from muster.cluster.ordering import LabelPriority
from muster.cluster.resources import CPU, GPU, MEMORY, Resources

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "golden.json").read_text())["sorting"]
SCENARIOS = json.loads((DATA / "scenarios.json").read_text())


def priority(config: dict[str, Any] | None) -> LabelPriority | None:
    if config is None:
        return None
    return LabelPriority(config["label-name"], tuple(config["label-values-descending-priority"]))


def named(table: NodeTable, rows: np.ndarray) -> list[str]:
    return [table.names[row] for row in rows.tolist()]


def table_of(amounts: dict[str, list[Any]], labels: dict[str, dict[str, str]]) -> NodeTable:
    table = NodeTable()
    for name, given in amounts.items():
        resources = Resources.parse(dict(zip((CPU, MEMORY, GPU), map(str, given), strict=False)))
        table.upsert(Node(name, resources, labels.get(name, {})))
    return table


@pytest.mark.parametrize("zone_label", ZONE_LABELS)
@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_orders_random_nodes_like_the_original(case: dict[str, Any], zone_label: str) -> None:
    table = NodeTable()
    for name, zone, available, labels, ready, unschedulable in case["nodes"]:
        resources = Resources.parse(dict(zip((CPU, MEMORY, GPU), available, strict=True)))
        table.upsert(Node(name, resources, {**labels, zone_label: zone}, (), ready, unschedulable))
    candidates = [table.index[name] for name in case["candidates"]]

    drivers = table.order(table.present, priority(case["dlabel"]))
    executors = table.order(table.present, priority(case["elabel"]))

    assert [
        named(table, drivers[np.isin(drivers, candidates)]),
        named(table, executors[table.usable.take(executors)]),
    ] == case["expected"]


def scenario(identity: str) -> dict[str, Any]:
    return next(case for case in SCENARIOS["node_sorting"] if case["id"] == identity)


@pytest.mark.parametrize("identity", ["sort/resources/memory-first", "sort/resources/cpu-second"])
def test_memory_decides_before_cpu(identity: str) -> None:
    case = scenario(identity)
    table = table_of({"a-more": case["more"], "b-less": case["less"]}, {})
    assert named(table, table.order()) == ["b-less", "a-more"]


@pytest.mark.parametrize("identity", ["sort/context/az-rank", "sort/context/resources", "sort/context/name"])
def test_zone_rank_decides_first_and_the_name_last(identity: str) -> None:
    case = scenario(identity)
    nodes = (case["a"], case["b"])
    labels = {node["name"]: {ZONE_LABELS[0]: f"z{node['az_rank']}"} for node in nodes}
    table = table_of({node["name"]: node["available"] for node in nodes}, labels)
    assert named(table, table.order()) == [node["name"] for node in nodes]


@pytest.mark.parametrize("identity", ["sort/az-aware", "sort/no-zone-label"])
def test_the_fullest_zone_comes_first(identity: str) -> None:
    case = scenario(identity)
    labels = {node["name"]: {ZONE_LABELS[0]: node["zone"]} if node["zone"] else {} for node in case["nodes"]}
    table = table_of({node["name"]: node["available"] for node in case["nodes"]}, labels)
    assert named(table, table.order()) == case["expected_order"]


@pytest.mark.parametrize(
    "identity", ["sort/label/unknown-value-last", "sort/label/missing-label-last", "sort/label/all-known"]
)
def test_label_priority_comes_on_top_of_the_order(identity: str) -> None:
    case = scenario(identity)
    amounts = {name: [1, position] for position, name in enumerate(case["input_order"], 1)}
    labels = {name: {case["label"]: value} for name, value in case["node_labels"].items() if value is not None}
    table = table_of(amounts, labels)
    assert named(table, table.order()) == case["input_order"]
    wanted = LabelPriority(case["label"], tuple(case["descending"]))
    assert named(table, table.order(priority=wanted)) == case["expected_order"]


@pytest.mark.parametrize("case", SCENARIOS["node_resource_maps"], ids=lambda case: case["id"])
def test_resources_add_and_subtract_by_node(case: dict[str, Any]) -> None:
    def resources(amounts: dict[str, list[int]], name: str) -> Resources:
        cpu, memory, gpu = amounts.get(name, [0, 0, 0])
        return Resources.of(**{CPU: cpu, MEMORY: memory, GPU: gpu})

    for name in case["first"] | case["second"]:
        first, second = resources(case["first"], name), resources(case["second"], name)
        result = first - second if case["op"].startswith("sub") else first + second
        assert result == resources(case["expected"], name)


def test_zones_of_equal_room_come_by_name() -> None:
    table = NodeTable()
    for name, zone in (("n1", "z9"), ("n2", "z10"), ("n3", "a")):
        table.upsert(Node(name, Resources.of(cpu=1000, memory=1), {ZONE_LABELS[0]: zone}))
    assert named(table, table.order()) == ["n3", "n2", "n1"]


def test_the_current_zone_label_wins_over_the_deprecated_one() -> None:
    labels = {ZONE_LABELS[0]: "new", ZONE_LABELS[1]: "old"}
    assert Node("n", Resources(), labels).zone == "new"
    assert Node("n", Resources(), {ZONE_LABELS[1]: "old"}).zone == "old"
    assert Node("n", Resources()).zone == "default"


def test_zones_are_ranked_by_the_nodes_in_question_alone() -> None:
    table = NodeTable()
    for name, zone, memory in (("a", "z1", 5), ("b", "z1", 100), ("c", "z2", 20)):
        table.upsert(Node(name, Resources.of(memory=memory), {ZONE_LABELS[0]: zone}))
    assert named(table, table.order()) == ["c", "a", "b"]
    assert named(table, table.order(np.array([True, False, True]))) == ["a", "c"]
