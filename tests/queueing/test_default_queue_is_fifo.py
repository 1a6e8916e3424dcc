"""Without any configuration there is one queue, and it is first in, first out, pool by pool."""

from __future__ import annotations

from muster.cluster.resources import Resources
from muster.queueing.config import DEFAULT
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge

TOTAL = Resources.of(cpu=100_000, memory=2**40)


def waiting(created: float, key: str, pool: str = "") -> Entry:
    return Entry(created, key, DEFAULT, user=f"user of {key}", priority=int(created), pool=pool)


def test_oldest_first_ties_by_key_whatever_is_held() -> None:
    queues = Queues(QueueTree())
    queues.charge("a/running", Charge(DEFAULT, used=Resources.of(cpu=90_000)))
    for entry in (waiting(3, "a/x"), waiting(1, "b/y"), waiting(1, "a/z")):
        queues.add(entry)

    turns = queues.turns("", TOTAL)
    order = []
    while (key := turns.next()) is not None:
        order.append(key)
        turns.passed(key)

    assert order == ["a/z", "b/y", "a/x"]
    assert queues.position("a/x", TOTAL) == (3, ["a/z", "b/y"])


def test_pools_are_apart() -> None:
    queues = Queues(QueueTree())
    queues.add(waiting(1, "a/x", pool="gpu"))
    queues.add(waiting(2, "a/y"))

    assert queues.pools() == ["", "gpu"]
    assert queues.turns("gpu", TOTAL).next() == "a/x"
    assert queues.turns("none", TOTAL).next() is None


def test_joining_twice_is_joining_once_and_leaving_twice_is_leaving_once() -> None:
    queues = Queues(QueueTree())
    queues.add(waiting(1, "a/x"))
    queues.add(waiting(1, "a/x"))
    assert len(queues) == 1

    queues.discard("a/x")
    queues.discard("a/x")

    assert len(queues) == 0
    assert queues.pools() == []
    assert queues.waiting("") == ()


def test_who_started_or_left_is_not_handed_out_again() -> None:
    queues = Queues(QueueTree())
    for entry in (waiting(1, "a/x"), waiting(2, "a/y"), waiting(3, "a/z")):
        queues.add(entry)

    turns = queues.turns("", TOTAL)
    assert turns.next() == "a/x"
    queues.discard("a/x")
    queues.charge("a/x", Charge(DEFAULT, used=Resources.of(cpu=1000)))
    turns.started("a/x")
    queues.discard("a/y")

    assert turns.next() == "a/z"
    assert turns.next() is None
