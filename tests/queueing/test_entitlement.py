"""What is due to a queue: by weight among those that hold or wait, within guarantees and maxima."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.resources import Resources
from muster.queueing.config import Maximum, Preemption, QueueConfig
from muster.queueing.entitlement import Bounds, split, standings
from muster.queueing.preemption import Standing
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge, QueueUsage

TOTAL = Resources.of(cpu=100_000)


def standing(*queues: QueueConfig, held: dict[str, int], waiting: tuple[str, ...] = ()) -> dict[str, Standing]:
    usage = QueueUsage(QueueTree(queues))
    for queue, cores in held.items():
        usage.set_charge(f"team/{queue}", Charge(queue, used=Resources.of(cpu=cores * 1000)))
    return standings(usage, waiting, TOTAL)


def shares(found: dict[str, Standing]) -> dict[str, float]:
    return {name: round(one.fair_share, 6) for name, one in found.items() if one.fair_share}


def test_a_queue_that_is_alone_may_have_everything() -> None:
    assert shares(standing(held={"default": 10})) == {"default": 1.0}


def test_queues_share_by_weight_and_those_that_neither_hold_nor_wait_count_for_nothing() -> None:
    found = standing(
        QueueConfig("a", weight=3), QueueConfig("b"), QueueConfig("idle", weight=9), held={"a": 80}, waiting=("b",)
    )
    assert shares(found) == {"a": 0.75, "b": 0.25}


def test_children_share_what_their_parent_has() -> None:
    found = standing(
        QueueConfig("team"),
        QueueConfig("x", parent="team"),
        QueueConfig("y", parent="team", weight=4),
        QueueConfig("other"),
        held={"x": 10, "y": 10, "other": 10},
    )
    assert shares(found) == {"team": 0.5, "other": 0.5, "x": 0.1, "y": 0.4}


def test_a_guarantee_is_the_least_and_a_maximum_the_most() -> None:
    found = standing(
        QueueConfig("sure", guaranteed=Resources.of(cpu=50_000)),
        QueueConfig("small", max=Maximum.of(cpu=10_000)),
        QueueConfig("rest"),
        held={"sure": 1, "small": 1, "rest": 1},
    )
    assert shares(found) == {"sure": 0.5, "small": 0.1, "rest": 0.4}


def test_a_standing_tells_what_the_plan_has_to_respect() -> None:
    guaranteed = Resources.of(cpu=5000)
    found = standing(
        QueueConfig("team"),
        QueueConfig("a", "team", guaranteed=guaranteed, preemption=Preemption.NEVER, min_runtime=60.0),
        held={"a": 7},
    )
    assert found["a"] == Standing(Resources.of(cpu=7000), 1.0, guaranteed, "team", Preemption.NEVER, 60.0)
    assert found["team"].used == Resources.of(cpu=7000)


def bounds() -> st.SearchStrategy[Bounds]:
    parts = st.floats(0, 1)
    return st.tuples(st.integers(1, 9), parts, parts).map(lambda one: Bounds(one[0], min(one[1:]), max(one[1:])))


@given(st.floats(0, 1), st.lists(bounds(), min_size=1, max_size=6))
def test_the_whole_is_given_away_and_nobody_gets_more_for_its_weight_unless_a_bound_says_so(
    whole: float, queues: list[Bounds]
) -> None:
    parts = split(whole, queues)
    least, most = sum(one.least for one in queues), sum(one.most for one in queues)
    assert sum(parts) == pytest.approx(min(max(whole, least), most), abs=1e-6)
    assert all(one.least <= part <= one.most for one, part in zip(queues, parts, strict=True))
    for one, part in zip(queues, parts, strict=True):
        for other, others in zip(queues, parts, strict=True):
            if part > one.least and others < other.most:
                assert part / one.weight <= others / other.weight + 1e-6
