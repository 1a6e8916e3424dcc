"""Any tree, any history: the order is that of the literal definitions, and has no memory of how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.cluster.resources import Resources
from muster.queueing.config import DEFAULT, Policy, QueueConfig
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge
from tests.queueing.literal_order import LiteralOrder
from tests.queueing.round_of_turns import order_of

TOTAL = Resources.of(cpu=60, memory=48, gpu=12)
NAMES = ("a", "b", "c", "d", "e", "f", "g")
USERS = ("sue", "bob", "eve")

amounts = st.builds(
    lambda cpu, memory, gpu: Resources.of(cpu=cpu, memory=memory, gpu=gpu),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([0, 0, 0, 1, 3]),
)


@st.composite
def trees(draw: st.DrawFn) -> list[QueueConfig]:
    configs = [
        QueueConfig(
            name=name,
            parent=draw(st.sampled_from(["", *NAMES[:index]])),
            policy=draw(st.sampled_from(list(Policy))),
            weight=draw(st.integers(1, 3)),
            guaranteed=draw(st.one_of(st.just(Resources()), amounts)),
        )
        for index, name in enumerate(NAMES[: draw(st.integers(1, len(NAMES)))])
    ]
    return [*configs, QueueConfig(name=DEFAULT)]


def leaves_of(configs: Sequence[QueueConfig]) -> list[str]:
    parents = {config.parent for config in configs}
    return [config.name for config in configs if config.name not in parents]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[QueueConfig], list[Charge], list[Entry]]:
    configs = draw(trees())
    queues, users = st.sampled_from(leaves_of(configs)), st.sampled_from(USERS)
    charges = draw(st.lists(st.builds(Charge, queues, users, used=amounts), max_size=8))
    ages = st.integers(0, 6).map(float)
    drawn = draw(st.lists(st.tuples(ages, queues, users, st.integers(0, 2)), max_size=14))
    entries = [
        Entry(created, f"app-{number}", queue, user, priority=priority)
        for number, (created, queue, user, priority) in enumerate(drawn)
    ]
    return configs, charges, entries


def queues_of(configs: Sequence[QueueConfig], charges: Sequence[Charge], entries: Sequence[Entry]) -> Queues:
    queues = Queues(QueueTree(configs))
    for number, charge in enumerate(charges):
        queues.charge(f"running-{number}", charge)
    for entry in entries:
        queues.add(entry)
    return queues


@settings(max_examples=150)
@given(situations(), st.data())
def test_each_turn_is_the_one_the_definitions_give(situation: Any, data: st.DataObject) -> None:
    configs, charges, entries = situation
    queues, held = queues_of(configs, charges, entries), list(charges)
    left = {entry.key: entry for entry in entries}
    turns = queues.turns("", TOTAL)
    closed: set[tuple[str, str]] = set()

    while True:
        key = turns.next()
        expected = LiteralOrder(configs, TOTAL, held, left.values()).first()
        while expected is not None and any(
            (queue, expected.user) in closed for queue in queues.tree.path(expected.queue)
        ):
            del left[expected.key]  # skipped when their turn comes
            expected = LiteralOrder(configs, TOTAL, held, left.values()).first()
        assert key == (expected.key if expected is not None else None)
        if key is None:
            break
        entry = left.pop(key)
        match data.draw(st.sampled_from(["started", "passed", "passed", "close", "close_user"])):
            case "started":
                charge = Charge(entry.queue, entry.user, used=data.draw(amounts))
                held.append(charge)
                queues.discard(key)
                queues.charge(key, charge)
                turns.started(key)
            case "passed":
                turns.passed(key)
            case "close":
                queue = data.draw(st.sampled_from(queues.tree.path(entry.queue)))
                turns.close(queue)
                left = {one.key: one for one in left.values() if queue not in queues.tree.path(one.queue)}
            case "close_user":
                queue = data.draw(st.sampled_from(queues.tree.path(entry.queue)))
                turns.close_user(queue, entry.user)
                closed.add((queue, entry.user))


@given(situations(), st.randoms(use_true_random=False))
def test_order_is_a_permutation_that_depends_on_no_history(situation: Any, random: Any) -> None:
    configs, charges, entries = situation
    order = order_of(queues_of(configs, charges, entries), TOTAL)

    assert sorted(order) == sorted(entry.key for entry in entries)

    queues = Queues(QueueTree())
    for number in random.sample(range(len(charges)), len(charges)):
        queues.charge(f"running-{number}", Charge(random.choice(NAMES), used=Resources.of(cpu=7)))
    for entry in random.sample(entries, len(entries)):
        queues.add(entry)
        order_of(queues, TOTAL)
    queues.replace(QueueTree(random.sample(configs, len(configs))))
    order_of(queues, Resources.of(cpu=1))
    for number in random.sample(range(len(charges)), len(charges)):
        queues.charge(f"running-{number}", charges[number])
        order_of(queues, TOTAL)

    assert order_of(queues, TOTAL) == order


@given(situations())
def test_position_is_the_place_in_the_order(situation: Any) -> None:
    configs, charges, entries = situation
    queues = queues_of(configs, charges, entries)
    order = order_of(queues, TOTAL)

    for index, key in enumerate(order):
        assert queues.position(key, TOTAL) == (index + 1, order[:index])
