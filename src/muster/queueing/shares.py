"""How much of the cluster each queue has, for fairness: dominant shares, also over a tree.

A dominant share is the largest part of the cluster's total that somebody holds of any one resource (DRF; Ghodsi et al.,
NSDI 2011). Over a tree that alone starves: a child that wants only CPUs would wait because its sister fills all the
GPUs that nobody else wants. So a ``fair`` parent counts with all of its children cut down, or raised, to the smallest
weighted share among the children that can still be served (H-DRF; Bhattacharya et al., SoCC 2013). Unlike there, a
child that holds nothing counts as such, so that it need not wait for its sisters to grow.

With children's shares cut down alike, a parent's holding is that smallest share times the sum of the children's
``directions``: their holdings scaled to a dominant share of their weight. Those sums change only with the charges, and
are kept as integers (scaled by ``2**60``), so that nothing depends on the order of changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.cluster.resources import Resources
from muster.queueing.config import Policy
from muster.queueing.tree import QueueTree
from muster.queueing.usage import QueueAccount

_ONE = 2**60


class Shares:
    def __init__(self, tree: QueueTree, accounts: Mapping[str, QueueAccount]) -> None:
        names = tree.names()
        self._accounts = accounts
        self._scaled = frozenset(
            name for name in names if tree.config(name).policy is Policy.FAIR and not tree.leaf(name)
        )
        self._parents = {name: tree.config(name).parent for name in names if tree.config(name).parent in self._scaled}
        """Of those that count for the sum of their parent's directions."""
        self._weights = {name: tree.config(name).weight for name in self._parents}
        self._heights = {name: -len(tree.path(name)) for name in names}
        self._total: dict[str, int] = {}
        self._own: dict[str, float] = {}
        """Of a ``fair`` parent what its share is times ``lowest``, of all others their share."""
        self._directions: dict[str, dict[str, int]] = {}
        """Times the weight."""
        self._sums: dict[str, dict[str, int]] = {name: {} for name in self._scaled}
        self._changed: set[str] = set()

    def changed(self, queues: Iterable[str]) -> None:
        """What these queues hold has changed."""
        self._changed.update(queues)

    def refresh(self, total: Resources) -> bool:
        """Take account of all changes; True when the cluster's total is another one, and so every share."""
        anew = tuple(self._total.items()) != total.amounts
        if anew:
            self._total = dict(total.amounts)
            self._own.clear()
            self._directions.clear()
            self._sums = {name: {} for name in self._scaled}
            self._changed = {name for name in self._heights if self._accounts[name].used}
        if self._changed:
            for queue in sorted(self._changed, key=self._heights.__getitem__):  # children before their parents
                self._update(queue)
            self._changed.clear()
        return anew

    def share(self, queue: str, lowest: float) -> float:
        """Dominant share; ``lowest``: the smallest weighted share among the children of a ``fair`` parent."""
        own = self._own.get(queue, 0.0)
        return own * lowest if queue in self._scaled else own

    def of(self, used: Mapping[str, int]) -> float:
        """The dominant share of any holding."""
        total = self._total
        return max([held / total[name] for name, held in used.items() if name in total], default=0.0)

    def _update(self, queue: str) -> None:
        parent = self._parents.get(queue)
        if queue in self._scaled:
            sums = self._sums[queue]
            top = max(sums.values(), default=0)
            self._own[queue] = top / _ONE
            if parent is not None:
                self._count(queue, parent, {name: amount * _ONE // top for name, amount in sums.items()} if top else {})
        else:
            used = self._accounts[queue].used
            self._own[queue] = self.of(used)
            if parent is not None:
                self._count(queue, parent, self._direction(used))

    def _count(self, queue: str, parent: str, direction: Mapping[str, int]) -> None:
        sums, weight = self._sums[parent], self._weights[queue]
        for name, amount in self._directions.get(queue, {}).items():
            sums[name] -= amount
        self._directions[queue] = weighted = {name: amount * weight for name, amount in direction.items()}
        for name, amount in weighted.items():
            sums[name] = sums.get(name, 0) + amount

    def _direction(self, used: Mapping[str, int]) -> dict[str, int]:
        """The holding, scaled so that its dominant share is ``_ONE``."""
        held = [(used[name], self._total[name], name) for name in sorted(used) if name in self._total]
        if not held:
            return {}
        most, whole_of_most, _ = max(held, key=lambda one: one[0] / one[1])
        return {name: amount * whole_of_most * _ONE // (whole * most) for amount, whole, name in held}
