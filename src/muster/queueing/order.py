"""Whose turn it is: all that wait, in the order that the tree of queues and what each of them holds gives them.

Within one node pool, from the root down: children below their guarantee first, the one that has least of it; then by
the parent's policy: ``fair`` by dominant share over weight (``shares``), ``priority`` and ``fifo`` by the priority and
the age of the application that each child would try next. In a leaf: ``fifo`` by age; ``priority`` by priority, then
age; ``fair`` the user who has least in this leaf, then age. The root is ``fair``. All ties go by age, then by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from muster.cluster.resources import Resources
from muster.queueing.shares import Shares
from muster.queueing.standing import Entry, Ranks, Standing
from muster.queueing.tree import QueueTree
from muster.queueing.turns import Turns
from muster.queueing.usage import Charge, Claimant, QueueUsage, Refusal


class Queues:
    """The tree, what is held, and who waits."""

    def __init__(self, tree: QueueTree) -> None:
        self.usage = QueueUsage(tree)
        self._entries: dict[str, Entry] = {}
        self._undo: list[Callable[[], None]] | None = None
        """While something is tried out: what takes each change back."""
        self._begin()

    @contextmanager
    def on_trial(self, limits: QueueTree | None = None) -> Iterator[None]:
        """Whatever joins, leaves or is charged meanwhile is taken back at the end, also when that comes by an error.

        ``limits``: a tree of the same queues under which that happens; they may differ in limits and in nothing else.

        Raises:
            RuntimeError: something is being tried out already.
        """
        if self._undo is not None:
            raise RuntimeError("one trial at a time")
        usage = self.usage
        undo: list[Callable[[], None]] = []
        self._undo = undo
        if limits is not None:
            self.usage = usage.under(limits)
        try:
            yield
        finally:
            self._undo = None
            while undo:
                undo.pop()()
            self.usage = usage

    def replace(self, tree: QueueTree) -> None:
        """Go on under another configuration: everybody keeps waiting, and everything stays charged."""
        self.usage.replace(tree)
        self._begin()
        for entry in self._entries.values():
            self._standing(entry.pool).add(entry)

    def _begin(self) -> None:
        tree, accounts = self.usage.tree, self.usage.accounts
        self._shares = Shares(tree, accounts)
        self._ranks = Ranks(tree, accounts, self._shares)
        self._standings: dict[str, Standing] = {}

    @property
    def tree(self) -> QueueTree:
        return self.usage.tree

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def add(self, entry: Entry) -> None:
        """Wait; an application that waits already goes on with this entry instead."""
        before = self._entries.get(entry.key)
        if before == entry:
            return
        if before is not None:
            self.discard(entry.key)
        self._entries[entry.key] = entry
        self._standing(entry.pool).add(entry)
        if self._undo is not None:
            self._undo.append(lambda: self.discard(entry.key))

    def discard(self, key: str) -> None:
        """Wait no more; nothing happens to who does not wait."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            standing = self._standings[entry.pool]
            standing.discard(entry)
            if not standing.entries:
                del self._standings[entry.pool]
            if self._undo is not None:
                self._undo.append(lambda: self.add(entry))

    def pools(self) -> Sequence[str]:
        """Node pools in which somebody waits, by name."""
        return sorted(self._standings)

    def waiting(self, pool: str) -> Sequence[Entry]:
        """Everybody who waits in a pool, oldest first, whatever their queue; a copy."""
        standing = self._standings.get(pool)
        return tuple(standing.entries) if standing is not None else ()

    def homeless(self) -> Sequence[str]:
        """Keys of all that wait in, or hold something in, a queue that is no leaf of the tree; by name."""
        leaf = self.tree.leaf
        waiting = {key for key, entry in self._entries.items() if not leaf(entry.queue)}
        return sorted(waiting | {key for key, charge in self.usage.charges.items() if not leaf(charge.queue)})

    def charge(self, key: str, charge: Charge | None) -> None:
        """Set all that an application holds; ``None``: nothing any more."""
        if self._undo is not None:
            before = self.usage.charges.get(key)
            self._undo.append(lambda: self.charge(key, before))
        changed = self.usage.set_charge(key, charge)
        if changed:
            self._shares.changed(changed)
            for standing in self._standings.values():
                standing.spoil(changed)

    def refusal(
        self, claimant: Claimant, used: Resources, driver: Resources, total: Resources, *, new: bool
    ) -> Refusal | None:
        """See ``QueueUsage.refusal``."""
        return self.usage.refusal(claimant, used, driver, total, new=new)

    def never(self, claimant: Claimant, used: Resources, driver: Resources, total: Resources) -> Refusal | None:
        """See ``QueueUsage.never``."""
        return self.usage.never(claimant, used, driver, total)

    def allows(self, queue: str, pool: str) -> bool:
        """Whether applications of this queue may use this node pool."""
        return self.tree.allows(queue, pool)

    def turns(self, pool: str, total: Resources) -> Turns:
        """Begin a round among those that wait in the leaves of the tree; ``total`` is what the whole cluster has."""
        standing = self._standings.get(pool) or Standing(self.tree)
        self._refresh(total)
        return Turns(self.tree, standing.root, self._ranks, self._entries, lambda: self._refresh(total))

    def position(self, key: str, total: Resources) -> tuple[int, Sequence[str]]:
        """Its position in its pool, from 1, and the keys ahead, in the order they would be tried if none started.

        (0, ()) for who does not wait in a leaf of the tree.
        """
        entry = self._entries.get(key)
        if entry is None or not self.tree.leaf(entry.queue):
            return 0, ()
        turns = self.turns(entry.pool, total)
        ahead: list[str] = []
        while (other := turns.next()) is not None and other != key:
            ahead.append(other)
        return len(ahead) + 1, ahead

    def _standing(self, pool: str) -> Standing:
        standing = self._standings.get(pool)
        if standing is None:
            standing = self._standings[pool] = Standing(self.tree)
        return standing

    def _refresh(self, total: Resources) -> None:
        if self._shares.refresh(total):
            for standing in self._standings.values():
                standing.spoil_all()
