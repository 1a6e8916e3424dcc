"""One round: who is handed out next, given what became of those before.

The round works on heaps of its own, made from the standing orders of the places it gets to. Passing an application
moves only the places it waits in; starting one also changes what those hold, and so their ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from heapq import heapify, heappop, heapreplace

from muster.queueing.standing import Entry, Fork, Item, Line, Place, Ranked, Ranks, lowest_share, put_in_order
from muster.queueing.tree import QueueTree


class Turns:
    """One round in one node pool: each application is handed out at most once.

    Whoever leaves during the round is no longer handed out; whoever joins may have to wait for the next. What is
    charged during the round moves the queues of those that ``started``, and of no others.
    """

    def __init__(
        self, tree: QueueTree, root: Fork, ranks: Ranks, waiting: Container[str], refresh: Callable[[], None]
    ) -> None:
        self._tree = tree
        self._ranks = ranks
        self._waiting = waiting
        self._refresh = refresh
        self._root = self._begin_in(root, None)
        self._line: _LineTurn | None = None
        """Where the application stands that was handed out last and not answered."""
        self._closed_users: set[tuple[str, str]] = set()
        self._closed_groups: set[tuple[str, str]] = set()

    def next(self) -> str | None:
        """Key of the next application to try; ``None`` when the round is over. Not answering is passing."""
        if self._line is not None:
            self._go_on(self._line, moved=False)
        while self._root.heap:
            turn: _Turn = self._root
            while isinstance(turn, _ForkTurn) and turn.heap:
                turn = self._turn_of(turn, turn.heap[0][6])
            if isinstance(turn, _ForkTurn) or turn.position == len(turn.items):
                self._climb(turn, moved=False)  # all who waited there have left
                continue
            entry = turn.items[turn.position][3]
            if entry.key in self._waiting and not self._is_closed(entry):
                self._line = turn
                return entry.key
            self._go_on(turn, moved=False)
        return None

    def started(self, key: str) -> None:
        """The application handed out last was started, and its charge has been set: its queues stand anew."""
        line = self._answered(key)
        if line is not None:
            self._refresh()
            self._go_on(line, moved=True)

    def passed(self, key: str) -> None:
        """The application handed out last stays where it is; go on behind it."""
        line = self._answered(key)
        if line is not None:
            self._go_on(line, moved=False)

    def close(self, queue: str) -> None:
        """Nobody else at or below this queue in this round."""
        parent, turn = self._root, None
        for name in self._tree.path(queue):
            if turn is not None:
                assert isinstance(turn, _ForkTurn)
                parent = turn
            place = parent.child(name)
            if place is None:
                return
            turn = self._turn_of(parent, place)
        if turn is None:
            return
        if self._line is not None and queue in self._tree.path(self._line.line.name):
            self._line = None
        parent.remove(turn.place)
        if parent.place.scaled:
            parent.lowest = lowest_share(parent.heap)
        self._climb(parent, moved=True)

    def close_user(self, queue: str, user: str) -> None:
        """Nobody else of this user at or below this queue in this round."""
        self._closed_users.add((queue, user))

    def close_group(self, queue: str, group: str) -> None:
        """Nobody else who counts for this group (``QueueTree.group_of``) at or below this queue in this round."""
        self._closed_groups.add((queue, group))

    def _answered(self, key: str) -> _LineTurn | None:
        """The place of the application handed out last; ``None`` when it has been closed since."""
        line = self._line
        if line is not None and line.items[line.position][2] != key:
            raise ValueError(f"{key} was not handed out last, {line.items[line.position][2]} was")
        return line

    def _is_closed(self, entry: Entry) -> bool:
        if not self._closed_users and not self._closed_groups:
            return False
        group = self._tree.group_of(entry.queue, entry.groups) if self._closed_groups else ""
        return any(
            (queue, entry.user) in self._closed_users or (queue, group) in self._closed_groups
            for queue in self._tree.path(entry.queue)
        )

    def _go_on(self, line: _LineTurn, *, moved: bool) -> None:
        """Behind the application that stands first in this line."""
        self._line = None
        line.position += 1
        self._climb(line, moved=moved)

    def _climb(self, turn: _Turn, *, moved: bool) -> None:
        """Put this place, and those above it, where they stand now among their sisters; ``moved``: shares changed."""
        while (parent := turn.parent) is not None:
            first = turn.first()
            if first is None:
                parent.remove(turn.place)
                moved = True
            else:
                parent.replace(self._ranks.rank(parent.place, turn.place, turn.lowest, first))
            if moved and parent.place.scaled:
                parent.lowest = lowest_share(parent.heap)
            turn = parent

    def _turn_of(self, parent: _ForkTurn, child: Place) -> _Turn:
        turn = parent.turns.get(id(child))
        if turn is None:
            turn = self._begin_in(child, parent) if isinstance(child, Fork) else _LineTurn(child, parent)
            parent.turns[id(child)] = turn
        return turn

    def _begin_in(self, fork: Fork, parent: _ForkTurn | None) -> _ForkTurn:
        if fork.stale:
            self._refresh()
            put_in_order(fork, self._ranks)
        return _ForkTurn(fork, parent)


class _LineTurn:
    """How far a round has got in a line."""

    __slots__ = ("items", "line", "parent", "position")

    lowest = 0.0

    def __init__(self, line: Line, parent: _ForkTurn) -> None:
        line.shared = True
        self.line = line
        self.parent = parent
        self.items = line.items
        self.position = 0

    @property
    def place(self) -> Place:
        return self.line

    def first(self) -> Item | None:
        return self.items[self.position] if self.position < len(self.items) else None


class _ForkTurn:
    """How far a round has got in a fork: those of its children in which somebody is left, as a heap."""

    __slots__ = ("heap", "lowest", "parent", "place", "turns")

    def __init__(self, fork: Fork, parent: _ForkTurn | None) -> None:
        self.place = fork
        self.parent = parent
        self.heap: list[Ranked] = fork.order.copy()
        self.lowest = fork.lowest
        self.turns: dict[int, _Turn] = {}

    def first(self) -> Item | None:
        return self.heap[0][5] if self.heap else None

    def child(self, name: str) -> Place | None:
        """The child of this name in which somebody is left."""
        return next((ranked[6] for ranked in self.heap if ranked[6].name == name), None)

    def replace(self, ranked: Ranked) -> None:
        """A child stands anew."""
        heap = self.heap
        if heap[0][6] is ranked[6]:
            heapreplace(heap, ranked)
        else:
            heap[self._index(ranked[6])] = ranked
            heapify(heap)

    def remove(self, child: Place) -> None:
        """Nobody is left in a child."""
        heap = self.heap
        if heap[0][6] is child:
            heappop(heap)
        else:
            del heap[self._index(child)]
            heapify(heap)

    def _index(self, child: Place) -> int:
        return next(index for index, ranked in enumerate(self.heap) if ranked[6] is child)


_Turn = _LineTurn | _ForkTurn
