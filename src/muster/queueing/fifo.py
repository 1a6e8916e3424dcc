"""First in, first out, per node pool: the order of waiting applications and who may block whom.

Source: palantir/k8s-spark-scheduler, ``fifo`` and ``enforce-after-pod-age``; there ties within a second and pods
without a pool had no order, here the application's key decides ties and "no pool" is a pool of its own.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec


class Waiting(msgspec.Struct, frozen=True, order=True):
    """One place in a queue; compares as the queue is ordered."""

    created: float
    """Creation of the driver pod, seconds."""
    key: str
    """The application, ``<namespace>/<id>``."""


class FifoPolicy(msgspec.Struct, frozen=True):
    """Whether older applications block younger ones of their pool, and from which age on."""

    enabled: bool = True
    enforce_after: float = 0.0
    """Seconds; 0: from the start."""
    enforce_after_by_pool: Mapping[str, float] = MappingProxyType({})

    def enforced(self, pool: str, created: float, at: float) -> bool:
        """Whether an application of this age, if it cannot start, blocks the younger ones of its pool."""
        return self.enabled and at - created >= self.enforce_after_by_pool.get(pool, self.enforce_after)


class FifoQueues:
    """The waiting applications of every pool, oldest first."""

    def __init__(self) -> None:
        self._queues: dict[str, list[Waiting]] = {}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, pool: str, waiting: Waiting) -> None:
        """Join the queue of a pool; joining twice is joining once."""
        queue = self._queues.setdefault(pool, [])
        position = bisect_left(queue, waiting)
        if position == len(queue) or queue[position] != waiting:
            insort(queue, waiting)

    def discard(self, pool: str, waiting: Waiting) -> None:
        """Leave the queue, if in it."""
        queue = self._queues.get(pool, [])
        position = bisect_left(queue, waiting)
        if position < len(queue) and queue[position] == waiting:
            del queue[position]
            if not queue:
                del self._queues[pool]

    def pools(self) -> Sequence[str]:
        """Pools in which somebody waits, by name."""
        return sorted(self._queues)

    def waiting(self, pool: str) -> Sequence[Waiting]:
        """Everybody in the queue of a pool, oldest first; a copy, so that it may be left while looking at it."""
        return tuple(self._queues.get(pool, ()))
