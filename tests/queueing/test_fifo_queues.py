"""First in, first out per pool, ties by key; who is old enough to block."""

from __future__ import annotations

import pytest

from muster.queueing.fifo import FifoPolicy, FifoQueues, Waiting


def test_older_ones_come_first_and_ties_are_decided_by_key() -> None:
    queues = FifoQueues()
    for waiting in (Waiting(3, "a/x"), Waiting(1, "b/y"), Waiting(1, "a/z")):
        queues.add("", waiting)

    assert [waiting.key for waiting in queues.waiting("")] == ["a/z", "b/y", "a/x"]


def test_pools_are_apart() -> None:
    queues = FifoQueues()
    queues.add("gpu", Waiting(1, "a/x"))
    queues.add("", Waiting(2, "a/y"))

    assert queues.pools() == ["", "gpu"]
    assert [waiting.key for waiting in queues.waiting("gpu")] == ["a/x"]


def test_joining_twice_is_joining_once_and_leaving_twice_is_leaving_once() -> None:
    queues = FifoQueues()
    queues.add("", Waiting(1, "a/x"))
    queues.add("", Waiting(1, "a/x"))
    assert len(queues) == 1

    queues.discard("", Waiting(1, "a/x"))
    queues.discard("", Waiting(1, "a/x"))

    assert len(queues) == 0
    assert queues.pools() == []


@pytest.mark.parametrize(
    ("policy", "pool", "age", "blocks"),
    [
        (FifoPolicy(), "", 0, True),
        (FifoPolicy(enabled=False), "", 1e9, False),
        (FifoPolicy(enforce_after=60), "", 59, False),
        (FifoPolicy(enforce_after=60), "", 60, True),
        (FifoPolicy(enforce_after=60, enforce_after_by_pool={"gpu": 10}), "gpu", 10, True),
        (FifoPolicy(enforce_after=60, enforce_after_by_pool={"gpu": 10}), "", 10, False),
    ],
)
def test_the_age_from_which_on_an_application_blocks(policy: FifoPolicy, pool: str, age: float, blocks: bool) -> None:
    assert policy.enforced(pool, created=100, at=100 + age) is blocks
