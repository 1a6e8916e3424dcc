"""The vectorised packers give what their definition, taken literally, gives."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.packing.capacity import UNLIMITED, capacities
from muster.packing.model import NO_DRIVER, Gang, Packing, UnknownPackerError
from muster.packing.registry import PACKERS, find_packer
from tests.packing.literal_packers import Nodes, Placement, pack, pack_by_zone

LITERAL = {
    "tightly-pack": lambda *question: pack("tightly", *question),
    "distribute-evenly": lambda *question: pack("evenly", *question),
    "minimal-fragmentation": lambda *question: pack("least", *question),
    "single-az-tightly-pack": lambda *question: pack_by_zone("tightly", *question),
    "single-az-minimal-fragmentation": lambda *question: pack_by_zone("least", *question),
    "az-aware-tightly-pack": lambda *question: pack_by_zone("tightly", *question) or pack("tightly", *question),
}


@st.composite
def questions(draw: st.DrawFn) -> tuple[Nodes, list[int] | None, list[int], int, list[int], list[int]]:
    size = draw(st.integers(1, 9))
    node = st.tuples(st.integers(-1, 16).map(lambda c: c * 500), st.integers(-1, 20), st.integers(-1, 3))
    available = [list(draw(node)) for _ in range(size)]
    schedulable = [
        [max(0, amount) + extra for amount, extra in zip(row, draw(st.tuples(*[st.integers(0, 2)] * 3)), strict=True)]
        for row in available
    ]
    zones = [draw(st.integers(0, 2)) for _ in range(size)]
    vector = st.tuples(st.sampled_from([0, 250, 500, 1000, 2000]), st.integers(0, 4), st.integers(0, 1)).map(list)
    rows = st.permutations(range(size))
    drivers = draw(rows)[: draw(st.integers(0, size))]
    executors = draw(rows)[: draw(st.integers(0, size))]
    driver = draw(st.one_of(st.none(), vector, vector, vector))
    count = draw(st.one_of(st.integers(0, 8), st.integers(0, 60)))
    return Nodes(available, schedulable, zones), driver, draw(vector), count, drivers, executors


def gang_of(question: tuple[Any, ...]) -> Gang:
    nodes, driver, executor, count, drivers, executors = question
    return Gang(
        available=np.array(nodes.available, dtype=np.int64).T,
        schedulable=np.array(nodes.schedulable, dtype=np.int64).T,
        driver=None if driver is None else np.array(driver, dtype=np.int64),
        executor=np.array(executor, dtype=np.int64),
        count=count,
        driver_order=np.array(drivers, dtype=np.int64),
        executor_order=np.array(executors, dtype=np.int64),
        zones=np.array(nodes.zones, dtype=np.int64),
    )


def executor_by_executor(packing: Packing | None) -> Placement | None:
    if packing is None:
        return None
    return packing.driver_row, [row for row, run in packing.runs() for _ in range(run)]


@pytest.mark.parametrize("name", sorted(PACKERS))
@settings(max_examples=150, deadline=None)
@given(question=questions())
def test_places_every_executor_where_the_definition_does(name: str, question: tuple[Any, ...]) -> None:
    packing = find_packer(name).pack(gang_of(question))

    assert executor_by_executor(packing) == LITERAL[name](*question)
    if packing is not None:
        assert len(set(packing.rows.tolist())) == len(packing.rows)
        assert (packing.counts > 0).all()


@pytest.mark.parametrize("name", sorted(PACKERS))
@settings(max_examples=40, deadline=None)
@given(question=questions())
def test_a_capacity_known_beforehand_changes_nothing(name: str, question: tuple[Any, ...]) -> None:
    gang = gang_of(question)
    known = msgspec.structs.replace(gang, capacity=capacities(gang.available, gang.executor))
    assert known.capacity is not None
    before = known.capacity.copy()

    packing = find_packer(name).pack(known)

    assert executor_by_executor(packing) == executor_by_executor(find_packer(name).pack(gang))
    assert np.array_equal(known.capacity, before)


@pytest.mark.parametrize("driver_rows", [[0], [1, 0]])
def test_a_row_closed_to_executors_may_still_take_the_driver(driver_rows: list[int]) -> None:
    amounts = np.array([[4000, 2000, 2000], [4, 2, 2], [0, 0, 0]])
    each, rows = np.array([1000, 1, 0]), np.arange(3)
    closed = Gang(amounts, amounts, each, each, 4, np.array(driver_rows), rows, rows * 0, np.array([0, 2, 2]))
    for name in PACKERS:
        packing = find_packer(name).pack(closed)
        assert packing is not None
        assert packing.driver_row == 0
        assert sorted(zip(packing.rows.tolist(), packing.counts.tolist(), strict=True)) == [(1, 2), (2, 2)]


def test_a_hundred_thousand_executors_are_counted_not_listed() -> None:
    nodes = 5_000
    amounts = np.array([[64_000], [256 << 30], [0]]) * np.ones(nodes, dtype=np.int64)
    rows = np.arange(nodes)
    for name in PACKERS:
        gang = Gang(amounts, amounts, None, np.array([1000, 4 << 30, 0]), 100_000, rows, rows, rows % 1)
        packing = find_packer(name).pack(gang)
        assert packing is not None
        assert int(packing.counts.sum()) == 100_000
        assert len(packing.rows) == (5_000 if name == "distribute-evenly" else 1_563)


def test_rounds_are_told_one_executor_at_a_time_until_one_node_is_left() -> None:
    packing = Packing(NO_DRIVER, np.array([4, 7]), np.array([1, 4]), interleaved=True)
    assert [(row, len(list(run))) for row, run in groupby(packing.runs())] == [((4, 1), 1), ((7, 1), 1), ((7, 3), 1)]


def test_pods_that_ask_for_nothing_fit_without_limit() -> None:
    assert capacities(np.array([[0, 5, -1]]), np.array([0])).tolist() == [UNLIMITED, UNLIMITED, 0]


def test_resources_the_vector_does_not_name_limit_nothing_unless_overdrawn() -> None:
    assert capacities(np.array([[4, 4], [0, -1]]), np.array([2])).tolist() == [2, 0]


def test_an_unknown_packer_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownPackerError, match=r"tight-pack.*allowed are az-aware-tightly-pack, distribute-evenly"):
        find_packer("tight-pack")


def test_one_more_executor_goes_to_the_first_node_with_room() -> None:
    capacity, used = np.array([0, 2, 1, 5]), np.array([False, False, False, True])
    assert find_packer("tightly-pack").one_more(capacity, np.array([0, 3, 2, 1]), used) == 3
    assert find_packer("tightly-pack").one_more(capacity, np.array([0]), used) is None
    assert find_packer("tightly-pack").one_more(capacity, np.array([], dtype=np.int64), used) is None


def test_one_more_executor_stays_with_its_application_under_minimal_fragmentation() -> None:
    capacity, order = np.array([0, 2, 1, 1, 5]), np.array([1, 3, 2, 0, 4])
    packer = find_packer("single-az-minimal-fragmentation")
    nowhere = np.zeros(5, dtype=np.bool_)
    assert packer.one_more(capacity, order, nowhere) == 3
    assert packer.one_more(capacity, order, np.array([True, True, False, False, True])) == 1
    assert packer.one_more(capacity, np.array([0]), nowhere) is None
