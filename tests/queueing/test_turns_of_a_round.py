"""One round: policies, closing, leaving, and a configuration that changes while applications wait and run."""

from __future__ import annotations

import pytest

from muster.cluster.resources import Resources
from muster.queueing.config import DEFAULT, Limit, Maximum, Policy, QueueConfig
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge
from tests.queueing.round_of_turns import order_of

TOTAL = Resources.of(cpu=100, memory=100)


def queues_with(*configs: QueueConfig, waiting: str) -> Queues:
    """``waiting``: "queue@created queue@created!priority …"; keys are "<queue><created>"."""
    queues = Queues(QueueTree(configs))
    for word in waiting.split():
        queue, _, rest = word.partition("@")
        created, _, priority = rest.partition("!")
        queues.add(Entry(float(created), f"{queue}{created}", queue, priority=int(priority or 0)))
    return queues


def test_fifo_parent_goes_by_the_age_of_what_each_child_would_try_next() -> None:
    parent, a = QueueConfig(name="p"), QueueConfig(name="a", parent="p", policy=Policy.PRIORITY)
    queues = queues_with(parent, a, QueueConfig(name="b", parent="p"), waiting="a@1 a@4!9 b@2 b@3")

    assert order_of(queues, TOTAL) == ["b2", "b3", "a4", "a1"]


def test_priority_parent_goes_by_priority_then_age() -> None:
    parent = QueueConfig(name="p", policy=Policy.PRIORITY)
    children = [QueueConfig(name=name, parent="p", policy=Policy.PRIORITY) for name in ("a", "b")]
    queues = queues_with(parent, *children, waiting="a@1 a@2!5 b@3!5 b@4!7")

    assert order_of(queues, TOTAL) == ["b4", "a2", "b3", "a1"]


def test_the_least_served_part_of_a_guarantee_goes_first_whatever_the_policy() -> None:
    children = [
        QueueConfig(name=name, parent="p", guaranteed=Resources.of(cpu=cpu)) for name, cpu in (("a", 10), ("b", 40))
    ]
    queues = queues_with(QueueConfig(name="p"), *children, QueueConfig(name="c", parent="p"), waiting="c@1 a@2 b@3")
    queues.charge("running/a", Charge("a", used=Resources.of(cpu=5)))
    queues.charge("running/b", Charge("b", used=Resources.of(cpu=10)))

    assert order_of(queues, TOTAL) == ["b3", "a2", "c1"]

    queues.charge("running/b", Charge("b", used=Resources.of(cpu=40)))

    assert order_of(queues, TOTAL) == ["a2", "c1", "b3"]


def test_closing_a_queue_leaves_the_others() -> None:
    parent, children = QueueConfig(name="p"), [QueueConfig(name=name, parent="p") for name in ("a", "b")]
    queues = queues_with(parent, *children, waiting="a@1 a@3 b@2 b@4 default@5")
    turns = queues.turns("", TOTAL)

    assert turns.next() == "a1"
    turns.close("a")
    assert turns.next() == "b2"
    turns.close("p")
    assert turns.next() == "default5"
    assert turns.next() is None


def test_closing_a_user_or_a_group_leaves_the_others() -> None:
    one = Maximum.of(cpu=1)
    limits = (Limit(groups=("dev",), max=one), Limit(groups=("*",), max=one))
    queues = Queues(QueueTree([QueueConfig(name="etl", limits=limits), QueueConfig(name="nightly", parent="etl")]))
    for number, (user, groups) in enumerate(
        [("sue", ()), ("sue", ("dev",)), ("bob", ("dev",)), ("eve", ("ops",)), ("joe", ())]
    ):
        queues.add(Entry(float(number), f"app{number}", "nightly", user, groups))
    turns = queues.turns("", TOTAL)

    assert turns.next() == "app0"
    turns.close_user("etl", "sue")
    assert turns.next() == "app2"
    turns.close_group("etl", "*")
    assert turns.next() == "app4"
    assert turns.next() is None


def test_an_answer_about_somebody_else_is_a_mistake() -> None:
    queues = queues_with(waiting="default@1 default@2")
    turns = queues.turns("", TOTAL)
    turns.next()

    with pytest.raises(ValueError, match="default2 was not handed out last, default1 was"):
        turns.passed("default2")


def test_shares_are_of_the_total_of_this_round() -> None:
    queues = queues_with(QueueConfig(name="a"), QueueConfig(name="b"), waiting="a@1 b@2")
    queues.charge("running/a", Charge("a", used=Resources.of(cpu=50)))
    queues.charge("running/b", Charge("b", used=Resources.of(memory=50)))

    assert order_of(queues, Resources.of(cpu=100, memory=200)) == ["b2", "a1"]
    assert order_of(queues, Resources.of(cpu=200, memory=100)) == ["a1", "b2"]
    assert order_of(queues, Resources()) == ["a1", "b2"]


def fair_parent_of(*children: str) -> list[QueueConfig]:
    return [QueueConfig(name="p", policy=Policy.FAIR), *[QueueConfig(name=name, parent="p") for name in children]]


def test_parent_counts_with_the_lowest_share_of_the_children_that_are_left() -> None:
    """x and y, rescaled to x's 10 %, make 20 % of p; when x has had its turn, to y's 50 %, they make 100 %."""
    queues = queues_with(*fair_parent_of("x", "y"), QueueConfig(name="q"), waiting="y@1 x@2 q@3 q@4")
    for name, cpu in (("x", 10), ("y", 50), ("q", 30)):
        queues.charge(f"running/{name}", Charge(name, used=Resources.of(cpu=cpu)))

    assert order_of(queues, TOTAL) == ["x2", "q3", "q4", "y1"]


def test_what_was_held_before_leaves_no_trace_in_the_share_of_a_parent() -> None:
    queues = queues_with(*fair_parent_of("x"), QueueConfig(name="q"), waiting="x@1 q@2")
    queues.charge("running/q", Charge("q", used=Resources.of(cpu=40)))

    for cpu in (10, 20, 30):
        queues.charge("running/x", Charge("x", used=Resources.of(cpu=cpu)))
        assert order_of(queues, TOTAL) == ["x1", "q2"]
    queues.charge("running/x", Charge("x", used=Resources.of(cpu=50)))
    assert order_of(queues, TOTAL) == ["q2", "x1"]


def test_two_rounds_do_not_disturb_each_other() -> None:
    queues = queues_with(QueueConfig(name="a"), waiting="a@1 a@2 default@3")
    turns = queues.turns("", TOTAL)

    assert turns.next() == "a1"
    assert order_of(queues, TOTAL) == ["a1", "a2", "default3"]
    assert queues.position("default3", TOTAL) == (3, ["a1", "a2"])
    queues.discard("a2")
    queues.add(Entry(0.0, "a0", "a"))
    assert turns.next() == "default3"
    assert order_of(queues, TOTAL) == ["a0", "a1", "default3"]


def test_joining_or_leaving_during_a_round_hands_nobody_out_twice_and_skips_nobody() -> None:
    queues = queues_with(waiting="default@2 default@3 default@4")
    turns = queues.turns("", TOTAL)

    assert turns.next() == "default2"
    queues.add(Entry(1.0, "default1", DEFAULT))
    assert turns.next() == "default3"

    turns = queues.turns("", TOTAL)
    assert turns.next() == "default1"
    queues.discard("default1")
    assert turns.next() == "default2"


def test_joining_anew_with_another_queue_moves_an_application() -> None:
    queues = queues_with(QueueConfig(name="a"), waiting="a@1 a@2")

    queues.add(Entry(1.0, "a1", DEFAULT, pool="spot"))

    assert order_of(queues, TOTAL) == ["a2"]
    assert order_of(queues, TOTAL, "spot") == ["a1"]
    assert len(queues) == 2


def test_whose_queue_vanishes_keeps_waiting_and_goes_on_when_it_is_back() -> None:
    configs = (QueueConfig(name="a", max=Maximum.of(cpu=10)), QueueConfig(name="b"))
    queues = queues_with(*configs, waiting="a@1 b@2")
    queues.charge("running/a", Charge("a", used=Resources.of(cpu=10)))
    asking = Charge("a", used=Resources.of(cpu=1))

    queues.replace(QueueTree(configs[1:]))

    assert queues.homeless() == ["a1", "running/a"]
    assert [entry.key for entry in queues.waiting("")] == ["a1", "b2"]
    assert order_of(queues, TOTAL) == ["b2"]
    assert queues.position("a1", TOTAL) == (0, ())
    assert queues.refusal(asking, asking.used, asking.driver, TOTAL, new=True) is None

    queues.replace(QueueTree([*configs, QueueConfig(name="c", parent="b")]))

    assert queues.homeless() == ["b2"], "b holds no applications now, its child does"
    assert order_of(queues, TOTAL) == ["a1"]
    assert queues.refusal(asking, asking.used, asking.driver, TOTAL, new=True) is not None


def test_whoever_joins_a_queue_below_a_parent_that_was_empty_is_handed_out() -> None:
    parent = QueueConfig(name="p", policy=Policy.FAIR)
    queues = queues_with(parent, QueueConfig(name="a", parent="p"), QueueConfig(name="b"), waiting="a@1 b@2")
    queues.discard("a1")
    assert order_of(queues, TOTAL) == ["b2"]

    queues.add(Entry(3.0, "a3", "a"))

    assert order_of(queues, TOTAL) == ["b2", "a3"]


def test_what_was_tried_leaves_no_trace() -> None:
    parent = QueueConfig(name="p", policy=Policy.FAIR, max=Maximum.of(cpu=10))
    children = [QueueConfig(name=name, parent="p") for name in ("a", "b")]
    queues = queues_with(parent, *children, waiting="a@1 a@3 b@2")
    queues.charge("running", Charge("a", used=Resources.of(cpu=10)))
    higher = QueueTree([QueueConfig(name="p", policy=Policy.FAIR, max=Maximum.of(cpu=11)), *children])
    one = Resources.of(cpu=1)
    entry = Entry(2.0, "b2", "b")
    assert queues.refusal(entry, one, Resources(), TOTAL, new=True) is not None

    with pytest.raises(KeyError), queues.on_trial(higher):
        assert queues.refusal(entry, one, Resources(), TOTAL, new=True) is None
        queues.discard("b2")
        queues.charge("b2", Charge("b", used=one))
        queues.charge("running", None)
        queues.add(Entry(0.0, "a0", "a"))
        assert order_of(queues, TOTAL) == ["a0", "a1", "a3"]
        raise KeyError("whatever happens")

    assert order_of(queues, TOTAL) == ["b2", "a1", "a3"]
    assert queues.usage.charges == {"running": Charge("a", used=Resources.of(cpu=10))}
    assert queues.refusal(entry, one, Resources(), TOTAL, new=True) is not None
    with pytest.raises(RuntimeError), queues.on_trial(), queues.on_trial():
        pass
