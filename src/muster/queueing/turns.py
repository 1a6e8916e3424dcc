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
        self._root = _ForkTurn(self._in_order(root), None)
        self._line: _LineTurn | None = None
        """Where the application stands that was handed out last and not answered."""
        self._closed: set[tuple[str, str, str]] = set()
        """("queue", queue, ""), ("user", queue, user), ("group", queue, group): skipped when their turn comes."""

    def next(self) -> str | None:
        """Key of the next application to try; ``None`` when the round is over. Not answering is passing."""
        if self._line is not None:
            self._go_on(self._line, moved=False)
        while self._root.heap:
            turn: _Turn = self._root
            while isinstance(turn, _ForkTurn) and turn.heap:
                child = turn.heap[0][6]
                turn = turn.turns.get(child) or self._begin(child, turn)
            if isinstance(turn, _ForkTurn) or turn.position == len(turn.items):
                self._climb(turn, None, moved=False)  # all who waited there have left
                continue
            entry = turn.items[turn.position][3]
            if entry.key in self._waiting and not (self._closed and self._is_closed(entry)):
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
        parent = self._root
        for name in self._tree.path(queue):
            child = parent.child(name)
            if child is None:
                return
            if isinstance(child, Line) and name != queue:
                self._closed.add(("queue", queue, ""))
                return
            turn = parent.turns.get(child) or self._begin(child, parent)
            if name == queue:
                self._take_away(turn)
            else:
                assert isinstance(turn, _ForkTurn)
                parent = turn

    def close_user(self, queue: str, user: str) -> None:
        """Nobody else of this user at or below this queue in this round; they are skipped when their turn comes."""
        self._closed.add(("user", queue, user))

    def close_group(self, queue: str, group: str) -> None:
        """Nobody else who counts for this group (``QueueTree.group_of``) at or below this queue in this round."""
        self._closed.add(("group", queue, group))

    def _answered(self, key: str) -> _LineTurn | None:
        """The place of the application handed out last; ``None`` when it has been closed since."""
        line = self._line
        if line is not None and line.items[line.position][2] != key:
            raise ValueError(f"{key} was not handed out last, {line.items[line.position][2]} was")
        return line

    def _is_closed(self, entry: Entry) -> bool:
        group = self._tree.group_of(entry.queue, entry.groups)
        return any(
            ("queue", queue, "") in self._closed
            or ("user", queue, entry.user) in self._closed
            or ("group", queue, group) in self._closed
            for queue in self._tree.path(entry.queue)
        )

    def _go_on(self, line: _LineTurn, *, moved: bool) -> None:
        """Behind the application that stands first in this line."""
        self._line = None
        line.position = position = line.position + 1
        self._climb(line, line.items[position] if position < len(line.items) else None, moved=moved)

    def _take_away(self, turn: _Turn) -> None:
        at: _Turn | None = self._line
        while at is not None:
            if at is turn:
                self._line = None
            at = at.parent
        self._climb(turn, None, moved=True)

    def _climb(self, turn: _Turn, first: Item | None, *, moved: bool) -> None:
        """Put a place, whose first is another one now, and all above it where they stand now among their sisters.

        ``moved``: what they hold has changed as well; else most of a rank stays as it was.
        """
        rank = self._ranks.rank
        changed = moved
        while (parent := turn.parent) is not None:
            heap, place = parent.heap, turn.place
            top = heap[0]
            if top[6] is not place:  # something was closed, which brought another to the top
                index = next(index for index, ranked in enumerate(heap) if ranked[6] is place)
                if first is None:
                    del heap[index]
                else:
                    heap[index] = rank(parent.place, place, turn.lowest, first)
                heapify(heap)
            elif first is None:
                heappop(heap)
            elif changed or parent.place.by_priority:
                heapreplace(heap, rank(parent.place, place, turn.lowest, first))
            else:
                heapreplace(heap, (top[0], top[1], first[1], first[2], top[4], first, place))
            changed = moved
            if parent.place.scaled:
                lowest = lowest_share(heap)
                if lowest != parent.lowest:
                    parent.lowest = lowest
                    changed = True
            first = heap[0][5] if heap else None
            turn = parent

    def _begin(self, child: Place, parent: _ForkTurn) -> _Turn:
        turn = _LineTurn(child, parent) if isinstance(child, Line) else _ForkTurn(self._in_order(child), parent)
        parent.turns[child] = turn
        return turn

    def _in_order(self, fork: Fork) -> Fork:
        if fork.stale:
            self._refresh()
            put_in_order(fork, self._ranks)
        return fork


class _LineTurn:
    """How far a round has got in a line."""

    __slots__ = ("items", "parent", "place", "position")

    lowest = 0.0

    def __init__(self, line: Line, parent: _ForkTurn) -> None:
        line.shared = True
        self.place = line
        self.parent = parent
        self.items = line.items
        self.position = 0


class _ForkTurn:
    """How far a round has got in a fork: those of its children in which somebody is left, as a heap."""

    __slots__ = ("heap", "lowest", "parent", "place", "turns")

    def __init__(self, fork: Fork, parent: _ForkTurn | None) -> None:
        self.place = fork
        self.parent = parent
        self.heap: list[Ranked] = fork.order.copy()
        self.lowest = fork.lowest
        self.turns: dict[Place, _Turn] = {}

    def child(self, name: str) -> Place | None:
        """The child of this name in which somebody is left."""
        return next((ranked[6] for ranked in self.heap if ranked[6].name == name), None)


_Turn = _LineTurn | _ForkTurn
