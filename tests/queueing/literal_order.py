"""The order of turns written down literally, from the definitions, with exact fractions and nothing remembered.

Slow on purpose: everything is worked out anew for every question, from the charges alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

from muster.cluster.resources import Resources
from muster.queueing.config import Policy, QueueConfig
from muster.queueing.standing import Entry
from muster.queueing.usage import Charge

Rank = tuple[int, Fraction, float, str]
Vector = Mapping[str, Fraction]


class LiteralOrder:
    """``waiting``: who can still be tried in this round; ``charges``: what is held now."""

    def __init__(
        self, configs: Sequence[QueueConfig], total: Resources, charges: Collection[Charge], waiting: Collection[Entry]
    ) -> None:
        self.configs = {"": QueueConfig(name="", policy=Policy.FAIR)} | {config.name: config for config in configs}
        self.total = dict(total.amounts)
        self.charges = charges
        self.waiting = waiting

    def first(self, queue: str = "") -> Entry | None:
        children = self.children(queue)
        if not children:
            return self._first_in_leaf(queue)
        firsts = [(child, self.first(child)) for child in children]
        ranked = [(self._rank(queue, child, first), first) for child, first in firsts if first is not None]
        return min(ranked)[1] if ranked else None

    def children(self, queue: str) -> list[str]:
        return [name for name, config in self.configs.items() if name and config.parent == queue]

    def _rank(self, parent: str, child: str, first: Entry) -> Rank:
        used, guaranteed = self.held(child), self.configs[child].guaranteed
        if guaranteed.amounts:
            part = max(Fraction(used.get(name, 0), amount) for name, amount in guaranteed.amounts)
            if part < 1:
                return (0, part, first.created, first.key)
        match self.configs[parent].policy:
            case Policy.FAIR:
                by = self.share(child) / self.configs[child].weight
            case Policy.PRIORITY:
                by = Fraction(-first.priority)
            case Policy.FIFO:
                by = Fraction(0)
        return (1, by, first.created, first.key)

    def _first_in_leaf(self, queue: str) -> Entry | None:
        here = [entry for entry in self.waiting if entry.queue == queue]
        match self.configs[queue].policy:
            case Policy.FIFO:
                return min(here, key=lambda entry: (entry.created, entry.key), default=None)
            case Policy.PRIORITY:
                return min(here, key=lambda entry: (-entry.priority, entry.created, entry.key), default=None)
            case Policy.FAIR:
                return min(
                    here,
                    key=lambda entry: (self._of_total(self.held(queue, entry.user)), entry.created, entry.key),
                    default=None,
                )

    def held(self, queue: str, user: str | None = None) -> dict[str, int]:
        held: dict[str, int] = {}
        for charge in self.charges:
            if self._is_below(charge.queue, queue) and user in (None, charge.user):
                for name, amount in charge.used.amounts:
                    held[name] = held.get(name, 0) + amount
        return held

    def _is_below(self, queue: str, above: str) -> bool:
        while queue and queue != above:
            queue = self.configs[queue].parent
        return queue == above

    def share(self, queue: str) -> Fraction:
        return max(self.consumption(queue).values(), default=Fraction(0))

    def _of_total(self, held: Mapping[str, int]) -> Fraction:
        return max((Fraction(amount, self.total[name]) for name, amount in held.items()), default=Fraction(0))

    def consumption(self, queue: str) -> Vector:
        """Parts of the total; of a fair parent: its children's, rescaled to the lowest of those that can be served."""
        children = self.children(queue)
        if not children or self.configs[queue].policy is not Policy.FAIR:
            return {name: Fraction(amount, self.total[name]) for name, amount in self.held(queue).items()}
        served = [child for child in children if self.first(child) is not None]
        lowest = min((self.share(child) / self.configs[child].weight for child in served), default=Fraction(1))
        result: dict[str, Fraction] = {}
        for child in children:
            consumption, weight = self.direction(child), self.configs[child].weight
            for name, part in consumption.items():
                result[name] = result.get(name, Fraction(0)) + part * lowest * weight
        return result

    def direction(self, queue: str) -> Vector:
        """The consumption scaled to a dominant share of 1; that of a parent does not depend on the lowest share."""
        children = self.children(queue)
        if not children or self.configs[queue].policy is not Policy.FAIR:
            parts = {name: Fraction(amount, self.total[name]) for name, amount in self.held(queue).items()}
        else:
            parts = {}
            for child in children:
                for name, part in self.direction(child).items():
                    parts[name] = parts.get(name, Fraction(0)) + part * self.configs[child].weight
        most = max(parts.values(), default=Fraction(0))
        return {name: part / most for name, part in parts.items()} if most else {}
