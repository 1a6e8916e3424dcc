"""Every packer against the recorded answers of the archived scheduler's library."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muster.cluster.resources import CPU, GPU, MEMORY, Resources
from muster.packing.capacity import UNLIMITED, beside_driver, beside_driver_on, capacities
from muster.packing.efficiency import average_efficiency, cluster_efficiency, node_efficiencies
from muster.packing.model import Gang, Packing
from muster.packing.registry import find_packer

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "golden.json").read_text())
SCENARIOS = json.loads((DATA / "scenarios.json").read_text())


def amounts(triple: list[Any]) -> list[int]:
    resources = Resources.parse(dict(zip((CPU, MEMORY, GPU), map(str, triple), strict=True)))
    return [resources.get(CPU), resources.get(MEMORY), resources.get(GPU)]


def columns(triples: list[list[Any]]) -> np.ndarray:
    return np.array([amounts(triple) for triple in triples], dtype=np.int64).reshape(-1, 3).T


def vector(triple: list[Any]) -> np.ndarray:
    return np.array(amounts(triple), dtype=np.int64)


def schedulable(node: dict[str, Any]) -> list[int]:
    given = node["schedulable"]
    return [UNLIMITED] * 3 if given == "unbounded" else amounts(given or [0, 0, 0])


def merged_runs(packing: Packing, names: list[str]) -> list[list[Any]]:
    placed = [(names[row], count) for row, count in packing.runs()]
    return [[name, sum(count for _, count in run)] for name, run in groupby(placed, key=lambda pair: pair[0])]


@pytest.mark.parametrize("case", range(len(GOLDEN["binpack"])))
@pytest.mark.parametrize("name", sorted(GOLDEN["binpack"][0]["expected"]))
def test_packs_random_gangs_like_the_original(name: str, case: int) -> None:
    data = GOLDEN["binpack"][case]
    names = [node[0] for node in data["nodes"]]
    zones = sorted({node[1] for node in data["nodes"]})
    gang = Gang(
        available=columns([node[2] for node in data["nodes"]]),
        schedulable=columns([node[3] for node in data["nodes"]]),
        driver=vector(data["driver"]),
        executor=vector(data["executor"]),
        count=data["count"],
        driver_order=np.array([names.index(n) for n in data["dorder"] if n in names], dtype=np.int64),
        executor_order=np.array([names.index(n) for n in data["eorder"] if n in names], dtype=np.int64),
        zones=np.array([zones.index(node[1]) for node in data["nodes"]]),
    )
    expected = data["expected"][name]
    packer = find_packer(name)

    packing = packer.pack(gang)

    if expected is None:
        assert packing is None
        return
    assert packing is not None
    driver, runs, averages = expected
    assert names[packing.driver_row] == driver
    assert merged_runs(packing, names) == runs
    efficiency = cluster_efficiency(
        gang, packing, np.arange(len(names)), charge_executors=not packer.minimal_fragmentation
    )
    assert [round(share, 6) for share in efficiency] == averages


@pytest.mark.parametrize("case", SCENARIOS["binpack"], ids=lambda case: case["id"])
def test_packs_the_originals_own_scenarios(case: dict[str, Any]) -> None:
    names = [node["name"] for node in case["nodes"]]
    zones = sorted({node["zone"] for node in case["nodes"]})
    gang = Gang(
        available=columns([node["available"] for node in case["nodes"]]),
        schedulable=np.array([schedulable(node) for node in case["nodes"]], dtype=np.int64).T,
        driver=vector(case["driver"]),
        executor=vector(case["executor"]),
        count=case["executor_count"],
        driver_order=np.array([names.index(n) for n in case["driver_order"]]),
        executor_order=np.array([names.index(n) for n in case["executor_order"]]),
        zones=np.array([zones.index(node["zone"]) for node in case["nodes"]]),
    )
    expected = case["expected"]

    packing = find_packer(case["algorithm"]).pack(gang)

    assert (packing is not None) == expected["fits"]
    if packing is None:
        return
    if expected.get("driver_node") is not None:
        assert names[packing.driver_row] == expected["driver_node"]
    if expected.get("executor_counts") is not None:
        placed = {names[row]: count for row, count in zip(packing.rows.tolist(), packing.counts.tolist(), strict=True)}
        assert placed == expected["executor_counts"]


@pytest.mark.parametrize("case", GOLDEN["capacity"], ids=str)
def test_counts_executors_like_the_original(case: list[Any]) -> None:
    available, reserved, executor, expected = case
    left = columns([available]) - columns([reserved])
    assert capacities(left, vector(executor)).tolist() == [expected]


@pytest.mark.parametrize("case", SCENARIOS["capacity"], ids=lambda case: case["id"])
def test_counts_executors_in_the_originals_own_scenarios(case: dict[str, Any]) -> None:
    expected = UNLIMITED if case["expected"] == "max-int" else case["expected"]
    if "required" in case:
        left = np.array([[case["available"] - case["reserved"]]])
        assert capacities(left, np.array([case["required"]])).tolist() == [expected]
        return
    left = columns([case["available"]]) - columns([case["reserved"]])
    assert capacities(left, vector(case["executor"])).tolist() == [expected]


@pytest.mark.parametrize("case", SCENARIOS["packing_efficiency"], ids=lambda case: case["id"])
def test_measures_efficiency_like_the_original(case: dict[str, Any]) -> None:
    reservations = case.get("new_reservation") or case["new_reservation_quantities"]
    nodes = case["nodes"]
    total = columns([node["schedulable"] for node in nodes])
    shares = node_efficiencies(
        columns([node["available"] for node in nodes]), total, columns([reservations[node["name"]] for node in nodes])
    )
    for position, node in enumerate(nodes):
        for resource, expected in case.get("expected_per_node", {}).get(node["name"], {}).items():
            measured = [*shares[:, position], shares[:, position].max()]
            assert measured[("cpu", "memory", "gpu", "max").index(resource)] == pytest.approx(expected, abs=1e-4)
    if "expected_average" in case:
        averages = average_efficiency(shares, total[2] != 0)
        expected = case["expected_average"]
        assert averages == pytest.approx([expected[key] for key in ("cpu", "memory", "gpu", "max")], abs=1e-4)


@pytest.mark.parametrize("case", GOLDEN["capacity"], ids=str)
def test_counts_executors_beside_a_driver_like_the_original(case: list[Any]) -> None:
    available, driver, executor, expected = case
    amounts_there = columns([available])
    gang = Gang(amounts_there, amounts_there, None, vector(executor), 1, *[np.array([0])] * 3)
    assert beside_driver(gang, vector(driver), np.array([0])).tolist() == [expected]
    assert beside_driver_on(gang, vector(driver), 0) == expected


def test_a_node_without_gpus_uses_none() -> None:
    shares = node_efficiencies(np.array([[0], [0], [-1]]), np.array([[1000], [2], [0]]), np.array([[0], [0], [0]]))
    assert shares[:, 0].tolist() == [1.0, 1.0, 0.0]
