"""A seeded tree of 500 queues with 2,000 waiting and 3,000 running applications: whose turn is it?"""

from __future__ import annotations

import random
import time

from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Policy, QueueConfig
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Charge

QUEUES = 504
WAITING, RUNNING, USERS = 2000, 3000, 50
_WIDTHS = (4, 5, 4, 5)
_GIB = 2**30
_CORE = Resources.of(cpu=1000, memory=4 * _GIB)
_TOTAL = _CORE.times(320_000)


class BusyQueues:
    """Four levels of ``fair`` queues over ``fifo`` leaves, with weights and limits; times are CPU nanoseconds."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._queues = Queues(QueueTree(_configs()))
        self._leaves = self._queues.tree.leaves
        for number in range(RUNNING):
            self._run(f"running/{number}")
        for number in range(WAITING):
            created, user = self._random.uniform(0, 86_400), self._random.randrange(USERS)
            self._queues.add(Entry(created, f"waiting/{number}", self._random.choice(self._leaves), f"user-{user}"))

    def passes_everybody(self) -> int:
        """An application has ended and another runs; then everybody who waits gets a turn, and nobody can start."""
        self._run(f"running/{self._random.randrange(RUNNING)}")
        before = time.thread_time_ns()
        turns, tried = self._queues.turns("", _TOTAL), 0
        while (key := turns.next()) is not None:
            turns.passed(key)
            tried += 1
        spent = time.thread_time_ns() - before
        assert tried == WAITING
        return spent

    def _run(self, key: str) -> None:
        cores = self._random.randint(2, 50)
        user, queue = self._random.randrange(USERS), self._random.choice(self._leaves)
        self._queues.charge(key, Charge(queue, f"user-{user}", used=_CORE.times(cores), driver=_CORE))


def _configs() -> list[QueueConfig]:
    configs: list[QueueConfig] = []
    above = [""]
    for depth, width in enumerate(_WIDTHS):
        leaf = depth == len(_WIDTHS) - 1
        level = [
            QueueConfig(
                name=f"{parent}-{number}" if parent else f"queue-{number}",
                parent=parent,
                policy=Policy.FIFO if leaf else Policy.FAIR,
                weight=1 + number,
                max=Maximum.of(cpu=10**9),
                limits=(Limit(users=("*",), max=Maximum.of(cpu=10**8)),) if leaf else (),
            )
            for parent in above
            for number in range(width)
        ]
        configs += level
        above = [config.name for config in level]
    assert len(configs) == QUEUES
    return configs
