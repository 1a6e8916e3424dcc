"""Who stands where: the waiting applications of one node pool, as the tree of queues that they wait in.

A ``Line`` is a list of applications in the order of their leaf; a ``Fork`` is a queue with children, or a ``fair``
leaf with a line per user. A queue under which all are ``fifo``, or all ``priority``, and no descendant has a guarantee
is one line: as a single leaf it would have the same order. What stands first in a fork is decided by ``Ranks.rank``;
the order is worked out when asked for, and kept until something below changes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

import msgspec

from muster.queueing.config import Policy
from muster.queueing.shares import Shares
from muster.queueing.tree import ROOT, QueueTree
from muster.queueing.usage import QueueAccount

_DIGITS = 12
"""Shares that differ only beyond these decimals are equal: ties are decided by age, not by the last bit of a float."""


class Entry(msgspec.Struct, frozen=True, order=True):
    """An application that waits; compares by creation, then by key."""

    created: float
    """Creation of the driver pod, seconds."""
    key: str
    """The application, ``<namespace>/<id>``."""
    queue: str
    user: str = ""
    groups: tuple[str, ...] = ()
    priority: int = 0
    pool: str = ""


Item = tuple[int, float, str, Entry]
"""(0, or minus the priority in a ``priority`` leaf; creation; key; the entry): compares as a line is ordered."""

Ranked = tuple[int, float, float, str, float, Item, "Place"]
"""A child in its fork's order: (0 below its guarantee, else 1; what the policy goes by; creation and key of its first
application; its weighted share; that application; the child). Keys differ, so that comparing never gets beyond them."""


class Line:
    """Applications one behind the other: of a leaf, of one user of a ``fair`` leaf, of a queue that is one line."""

    __slots__ = ("items", "name", "parent", "shared", "user")

    def __init__(self, name: str, parent: Fork, user: str = "") -> None:
        self.name = name
        self.parent = parent
        self.user = user
        self.items: list[Item] = []
        self.shared = False
        """A round reads ``items``: the next change goes to a copy."""

    def add(self, item: Item) -> None:
        insort(self._own(), item)

    def discard(self, item: Item) -> None:
        items = self._own()
        del items[bisect_left(items, item)]

    def _own(self) -> list[Item]:
        if self.shared:
            self.items, self.shared = self.items.copy(), False
        return self.items


class Fork:
    """Lines or further forks, of which one goes first."""

    __slots__ = ("by_priority", "children", "lowest", "name", "order", "parent", "scaled", "stale", "users")

    def __init__(self, name: str, parent: Fork | None, policy: Policy, *, users: bool = False) -> None:
        self.name = name
        self.parent = parent
        self.users = users
        """Its children are the users of one leaf."""
        self.by_priority = policy is Policy.PRIORITY
        self.scaled = policy is Policy.FAIR and not users and parent is not None
        """Its share depends on the lowest one among its children (``Shares.share``)."""
        self.children: dict[str, Place] = {}
        self.stale = True
        self.order: list[Ranked] = []
        self.lowest = 0.0
        """The smallest weighted share among the children, where ``scaled``."""


Place = Line | Fork


class Ranks:
    """How the children of a fork are compared."""

    def __init__(self, tree: QueueTree, accounts: Mapping[str, QueueAccount], shares: Shares) -> None:
        self._accounts = accounts
        self._shares = shares
        names = (ROOT, *tree.names())
        self._policies = {name: tree.config(name).policy for name in names}
        self._weights = {name: tree.config(name).weight for name in names}
        self._guaranteed = {name: tree.config(name).guaranteed.amounts for name in names}

    def rank(self, fork: Fork, child: Place, lowest: float, first: Item) -> Ranked:
        """Below its guarantee first, the one that has least of it; then by the fork's policy; ties by age."""
        _, created, key, entry = first
        name = child.name
        if fork.users:
            account = self._accounts[name].users.get(entry.user)
            share = self._shares.of(account.used) if account is not None else 0.0
            return (1, round(share, _DIGITS), created, key, share, first, child)
        policy = self._policies[fork.name]
        share = self._shares.share(name, lowest) / self._weights[name]
        guaranteed = self._guaranteed[name]
        if guaranteed:
            used = self._accounts[name].used
            part = max(used.get(resource, 0) / amount for resource, amount in guaranteed)
            if part < 1:
                return (0, part, created, key, share, first, child)
        if policy is Policy.FAIR:
            return (1, round(share, _DIGITS), created, key, share, first, child)
        return (1, -entry.priority if policy is Policy.PRIORITY else 0, created, key, share, first, child)


class Standing:
    """All that wait in one node pool."""

    def __init__(self, tree: QueueTree) -> None:
        self._tree = tree
        self._lines = {leaf: _line_of(tree, leaf) for leaf in tree.leaves}
        self.root = Fork(ROOT, None, tree.config(ROOT).policy)
        self.entries: list[Entry] = []
        """Everybody by age, also those whose queue is no leaf of the tree."""
        self._places: dict[str, Place] = {ROOT: self.root}

    def add(self, entry: Entry) -> None:
        insort(self.entries, entry)
        if self._tree.leaf(entry.queue):
            line = self._line(entry)
            line.add(self._item(entry))
            _spoil(line.parent)

    def discard(self, entry: Entry) -> None:
        del self.entries[bisect_left(self.entries, entry)]
        if self._tree.leaf(entry.queue):
            line = self._line(entry)
            line.discard(self._item(entry))
            _spoil(line.parent)
            if not line.items:
                self._leave(line)

    def spoil(self, queues: Sequence[str]) -> None:
        """What these queues hold has changed, and so may where they stand."""
        for queue in queues:
            place = self._places.get(queue)
            if place is not None:
                _spoil(place if isinstance(place, Fork) else place.parent)

    def spoil_all(self) -> None:
        for place in self._places.values():
            if isinstance(place, Fork):
                place.stale = True

    def _item(self, entry: Entry) -> Item:
        by_priority = self._tree.config(entry.queue).policy is Policy.PRIORITY
        return (-entry.priority if by_priority else 0, entry.created, entry.key, entry)

    def _line(self, entry: Entry) -> Line:
        name = self._lines[entry.queue]
        fork = self.root
        for above in self._tree.path(name)[:-1]:
            fork = self._fork(fork, above)
        if self._tree.config(name).policy is not Policy.FAIR:
            line = fork.children.get(name)
            if line is None:
                line = fork.children[name] = self._places[name] = Line(name, fork)
        else:
            fork = self._fork(fork, name)
            line = fork.children.get(entry.user)
            if line is None:
                line = fork.children[entry.user] = Line(name, fork, entry.user)
        assert isinstance(line, Line)
        return line

    def _fork(self, parent: Fork, name: str) -> Fork:
        fork = parent.children.get(name)
        if fork is None:
            fork = Fork(name, parent, self._tree.config(name).policy, users=self._tree.leaf(name))
            parent.children[name] = self._places[name] = fork
            _spoil(parent)  # the new one is stale already, which would end the climb below it
        assert isinstance(fork, Fork)
        return fork

    def _leave(self, place: Place) -> None:
        """Take away a place where nobody waits any more, and what that leaves empty above."""
        parent = place.parent
        if parent is None:
            return
        if parent.users:
            assert isinstance(place, Line)
            del parent.children[place.user]
        else:
            del parent.children[place.name]
            del self._places[place.name]
        if not parent.children:
            self._leave(parent)


def _line_of(tree: QueueTree, leaf: str) -> str:
    """The highest queue above a leaf that is one line, or the leaf itself."""
    path = tree.path(leaf)
    return next((name for name in path if _is_line(tree, name)), leaf)


def _is_line(tree: QueueTree, name: str) -> bool:
    policy = tree.config(name).policy
    return policy is not Policy.FAIR and all(
        tree.config(child).policy is policy and not tree.config(child).guaranteed.amounts and _is_line(tree, child)
        for child in tree.children(name)
    )


def put_in_order(fork: Fork, ranks: Ranks) -> None:
    """Work out the order of a fork and of all below it, where they are no longer true."""
    if not fork.stale:
        return
    order: list[Ranked] = []
    for child in fork.children.values():
        if isinstance(child, Fork):
            put_in_order(child, ranks)
            order.append(ranks.rank(fork, child, child.lowest, child.order[0][5]))
        else:
            order.append(ranks.rank(fork, child, 0.0, child.items[0]))
    order.sort()
    fork.order = order
    if fork.scaled:
        fork.lowest = lowest_share(order)
    fork.stale = False


def lowest_share(order: Sequence[Ranked]) -> float:
    """The smallest weighted share among the children of a ``fair`` fork, given as a heap; 0 when there are none."""
    if not order:
        return 0.0
    if order[0][0]:  # nobody below its guarantee: the first has the least
        return order[0][4]
    return min(ranked[4] for ranked in order)


def _spoil(fork: Fork | None) -> None:
    while fork is not None and not fork.stale:
        fork.stale = True
        fork = fork.parent
