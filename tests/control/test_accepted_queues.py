"""Which queues are in force when one of them is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from muster.cluster.resources import Resources
from muster.control.queues import Acceptance, accept, merge
from muster.kube.resources import QueueSpec
from muster.queueing.config import Maximum, QueueConfig
from muster.queueing.tree import QueueTree


def queue(name: str, parent: str = "", *, guaranteed: int = 0, most: int | None = None, **more: Any) -> QueueConfig:
    """Amounts in cores."""
    limit = Maximum() if most is None else Maximum.of(cpu=most * 1000)
    return QueueConfig(name, parent, guaranteed=Resources.of(cpu=guaranteed * 1000), max=limit, **more)


def told(wanted: list[QueueConfig], previous: list[QueueConfig] = [], **problems: str) -> Acceptance:  # noqa: B006
    return accept({one.name: one for one in wanted}, problems, {one.name: one for one in previous})


def names(acceptance: Acceptance) -> set[str]:
    return set(acceptance.queues)


def test_sound_queues_are_all_accepted() -> None:
    queues = [queue("company", most=100), queue("a", "company", guaranteed=60), queue("b", "company", guaranteed=40)]
    acceptance = told(queues)
    assert (names(acceptance), acceptance.problems) == ({"company", "a", "b"}, {})


def test_a_new_queue_that_is_wrong_does_not_exist_and_harms_nobody() -> None:
    acceptance = told([queue("a"), queue("b", "nowhere")], [queue("a")])
    assert names(acceptance) == {"a"}
    assert list(acceptance.problems) == ["b"]
    assert 'there is no queue "nowhere"' in acceptance.problems["b"]


def test_a_changed_queue_that_is_wrong_stays_as_it_was() -> None:
    before = [queue("a", most=10), queue("b", most=10)]
    acceptance = told([queue("a", most=5, guaranteed=7), queue("b", most=20)], before)
    assert acceptance.queues == {"a": queue("a", most=10), "b": queue("b", most=20)}
    assert list(acceptance.problems) == ["a"]


def test_a_value_that_could_not_be_read_leaves_the_queue_as_it_was() -> None:
    acceptance = told([queue("b")], [queue("a", most=10)], a="max: 'x' is not a usable quantity")
    assert acceptance.queues == {"a": queue("a", most=10), "b": queue("b")}


def test_a_child_that_asks_too_much_is_the_one_to_blame_not_its_parent() -> None:
    """The tree finds the fault at the parent, whose maximum is too small; but the child is what changed."""
    company, b = queue("company", most=100), queue("b", "company", guaranteed=40)
    before = [company, queue("a", "company", guaranteed=60), b]
    acceptance = told([company, queue("a", "company", guaranteed=61), b], before)
    assert acceptance.queues == {one.name: one for one in before}
    assert list(acceptance.problems) == ["a"]
    assert "queue company: max" in acceptance.problems["a"]


def test_a_deleted_queue_stays_while_there_are_queues_below_it() -> None:
    before = [queue("company", most=100), queue("division", "company"), queue("a", "division")]
    acceptance = told([queue("a", "division")], before)
    assert (names(acceptance), acceptance.problems) == ({"company", "division", "a"}, {})
    assert names(told([], before)) == set()


def test_queues_below_one_that_is_wrong_from_the_start_are_not_there_either() -> None:
    acceptance = told([queue("top", guaranteed=2, most=1), queue("middle", "top"), queue("leaf", "middle"), queue("x")])
    assert names(acceptance) == {"x"}
    assert acceptance.problems["leaf"] == 'parent: queue "middle" is not accepted'


def test_a_queue_that_moves_below_one_with_a_mistake_stays_where_it_was() -> None:
    before = [queue("a"), queue("below", "a")]
    acceptance = told([queue("a", "new"), queue("below", "a"), queue("new", "nowhere")], before)
    assert acceptance.queues == {one.name: one for one in before}
    assert acceptance.problems["a"] == 'parent: queue "new" is not accepted'
    assert set(acceptance.problems) == {"a", "new"}


def test_queues_in_a_circle_leave_the_others_alone() -> None:
    acceptance = told([queue("a", "b"), queue("b", "a"), queue("x")])
    assert names(acceptance) == {"x"}
    assert set(acceptance.problems) == {"a", "b"}


def test_a_change_that_closes_a_circle_is_undone() -> None:
    before = [queue("a"), queue("b", "a"), queue("c", "b")]
    acceptance = told([queue("a", "c"), queue("b", "a"), queue("c", "b")], before)
    assert acceptance.queues == {one.name: one for one in before}
    assert list(acceptance.problems) == ["a"]


def test_a_name_in_both_sources_is_an_error_that_names_it() -> None:
    acceptance = merge({"a": QueueSpec(), "b": QueueSpec()}, {"a": QueueSpec(weight=2), "c": QueueSpec()}, {})
    assert names(acceptance) == {"b", "c"}
    assert acceptance.problems == {"a": "is both in queues.yaml and a Queue object; one of them has to go"}
    before = {"a": QueueConfig("a", weight=7)}
    assert merge({"a": QueueSpec()}, {"a": QueueSpec()}, before).queues == before


@pytest.mark.parametrize("seed", range(20))
def test_what_is_accepted_is_always_a_sound_tree(seed: int) -> None:
    """Random changes, many of them wrong; whatever is accepted, scheduling takes it."""
    import random

    draw = random.Random(seed)
    previous: dict[str, QueueConfig] = {}
    every = [f"q{number}" for number in range(12)]
    for _ in range(30):
        wanted = {
            name: queue(
                name,
                draw.choice(["", "", *every]),
                guaranteed=draw.choice([0, 0, 3]),
                most=draw.choice([None, None, 4]),
            )
            for name in draw.sample(every, 8)
        }
        acceptance = accept(wanted, {}, previous)
        QueueTree(acceptance.queues.values())
        assert wanted.keys() & previous.keys() <= acceptance.queues.keys(), "nothing that was in force gets lost"
        assert all(acceptance.queues[name] == wanted[name] for name in wanted.keys() - acceptance.problems.keys())
        previous = dict(acceptance.queues)
