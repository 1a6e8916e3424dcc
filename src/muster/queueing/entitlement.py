"""What is due to each queue as things are: the number that says who is over its share, and by how much.

YARN's *instantaneous fair share* (``FairScheduler``, ``ComputeFairShares``): the whole is split among the queues that
hold something or wait, by weight, no one getting less than its guarantee or more than its maximum; then within each of
them among its children. Here in parts of the cluster (of the dominant resource of a guarantee or maximum).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from muster.cluster.resources import Resources
from muster.queueing.config import Maximum
from muster.queueing.preemption import Standing, dominant_share
from muster.queueing.tree import ROOT
from muster.queueing.usage import QueueUsage

_ITERATIONS = 40
"""Of the search for the right ratio; each halves the error (YARN: 25)."""


class Bounds(msgspec.Struct, frozen=True):
    """What one of several queues may get of a whole."""

    weight: int
    least: float = 0.0
    most: float = 1.0


def standings(usage: QueueUsage, waiting: Collection[str], total: Resources) -> dict[str, Standing]:
    """Where every queue of the tree stands, by name. ``waiting``: leaves in which somebody waits."""
    tree = usage.tree
    active = {ROOT}
    for name in tree.leaves:
        if usage.accounts[name] or name in waiting:
            active.update(tree.path(name))
    shares = {ROOT: 1.0}
    for parent in (ROOT, *sorted(active - {ROOT}, key=lambda name: len(tree.path(name)))):
        siblings = [child for child in tree.children(parent) if child in active]
        if siblings:
            bounds = [_bounds(usage, child, total) for child in siblings]
            shares.update(zip(siblings, split(shares[parent], bounds), strict=True))
    found = {}
    for name in tree.names():
        config = tree.config(name)
        found[name] = Standing(
            usage.accounts[name].resources(),
            shares.get(name, 0.0),
            config.guaranteed,
            config.parent,
            config.preemption,
            config.min_runtime,
        )
    return found


def split(whole: float, bounds: Sequence[Bounds]) -> list[float]:
    """Parts of ``whole`` in proportion to the weights, within each one's bounds; least parts may add up to more."""

    def at(ratio: float) -> list[float]:
        return [min(one.most, max(one.least, ratio * one.weight)) for one in bounds]

    plain = at(whole / max(1, sum(one.weight for one in bounds)))
    if abs(sum(plain) - whole) <= 1e-12:
        return plain  # no bound is in the way
    low, high = 0.0, max(whole, 1e-9)
    while sum(at(high)) < min(whole, sum(one.most for one in bounds)):
        high *= 2
    for _ in range(_ITERATIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < whole else (low, middle)
    return at(high)


def _bounds(usage: QueueUsage, name: str, total: Resources) -> Bounds:
    config = usage.tree.config(name)
    least = dominant_share(config.guaranteed, total)
    return Bounds(config.weight, least, max(least, _most(config.max, total)))


def _most(maximum: Maximum, total: Resources) -> float:
    """The part of the cluster at which the first limit is reached."""
    limited = [amount / total.get(name) for name, amount in maximum.amounts if total.get(name) > 0]
    return min([1.0, *limited])
