"""One round: who is handed out next, given what became of those before.

The round works on heaps of its own, made from the standing orders of the places it gets to. Passing an application
moves only the places it waits in; starting one also changes what those hold, and so their ranks. While a line stays
first in everything above it, its applications are handed out without moving anything.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from heapq import heapify, heappop, heapreplace

from muster.queueing.standing import Entry, Fork, Item, Line, Place, Ranked, Ranks, lowest_share, put_in_order
from muster.queueing.tree import QueueTree

Age = tuple[float, str]
"""Creation and key."""
_NEVER: Age = (float("-inf"), "")
_ALWAYS: Age = (float("inf"), "")


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
        """The line in which the application stands first that was handed out last."""
        self._until = _NEVER
        """``_line`` stays first in everything above it while its applications are older than this."""
        self._closed: set[tuple[str, str, str]] = set()
        """("queue", queue, ""), ("user", queue, user), ("group", queue, group): skipped when their turn comes."""

    def next(self) -> str | None:
        """Key of the next application to try; ``None`` when the round is over. Not answering is passing."""
        line = self._line
        if line is not None:
            items, until = line.items, self._until
            for position in range(line.position + 1, len(items)):
                item = items[position]
                line.position = position
                if (item[1], item[2]) >= until:
                    break
                if item[2] in self._waiting and not (self._closed and self._is_closed(item[3])):
                    return item[2]
            else:
                line.position = len(items)
            self._line, self._until = None, _NEVER
            self._climb(line, line.first(), moved=False)
        while (line := self._first_line()) is not None:
            item = line.items[line.position]
            if item[2] in self._waiting and not (self._closed and self._is_closed(item[3])):
                self._line, self._until = line, _stays_first_until(line)
                return item[2]
            line.position += 1
            self._climb(line, line.first(), moved=False)
        return None

    def started(self, key: str) -> None:
        """The application handed out last was started, and its charge has been set: its queues stand anew."""
        line = self._answered(key)
        if line is not None:
            self._refresh()
            line.position += 1
            self._line, self._until = None, _NEVER
            self._climb(line, line.first(), moved=True)

    def passed(self, key: str) -> None:
        """The application handed out last stays where it is; what comes next is behind it."""
        self._answered(key)

    def close(self, queue: str) -> None:
        """Nobody else at or below this queue in this round."""
        if self._line is not None:
            self._climb(self._line, self._line.first(), moved=False)
            self._until = _NEVER
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
                if self._line is not None and turn.holds(self._line):
                    self._line = None
                self._climb(turn, None, moved=True)
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
        """The line of the application handed out last; ``None`` when it has been closed since."""
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

    def _first_line(self) -> _LineTurn | None:
        """Whose first application is the next one; ``None`` when nobody is left."""
        while self._root.heap:
            turn: _Turn = self._root
            while isinstance(turn, _ForkTurn) and turn.heap:
                child = turn.heap[0][6]
                turn = turn.turns.get(child) or self._begin(child, turn)
            if isinstance(turn, _LineTurn) and turn.position < len(turn.items):
                return turn
            self._climb(turn, None, moved=False)  # all who waited there have left
        return None

    def _climb(self, turn: _Turn, first: Item | None, *, moved: bool) -> None:
        """Put a place, whose first is another one now, and all above it where they stand now among their sisters.

        ``moved``: what they hold has changed as well; else most of a rank stays as it was.
        """
        rank = self._ranks.rank
        changed = moved
        while (parent := turn.parent) is not None:
            heap, place, fork = parent.heap, turn.place, parent.place
            top = heap[0]
            if top[6] is not place:  # something was closed, which brought another to the top
                index = next(index for index, ranked in enumerate(heap) if ranked[6] is place)
                if first is None:
                    del heap[index]
                else:
                    heap[index] = rank(fork, place, turn.lowest, first)
                heapify(heap)
            elif first is None:
                heappop(heap)
            elif changed:
                heapreplace(heap, rank(fork, place, turn.lowest, first))
            else:
                by = -first[3].priority if fork.by_priority and top[0] else top[1]
                heapreplace(heap, (top[0], by, first[1], first[2], top[4], first, place))
            changed = moved
            if fork.scaled:
                lowest = heap[0][4] if heap and heap[0][0] else lowest_share(heap)
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

    def holds(self, line: _LineTurn) -> bool:
        """Whether this line is below."""
        above: _ForkTurn | None = line.parent
        while above is not None and above is not self:
            above = above.parent
        return above is self


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

    def first(self) -> Item | None:
        return self.items[self.position] if self.position < len(self.items) else None

    def holds(self, line: _LineTurn) -> bool:
        return line is self


_Turn = _LineTurn | _ForkTurn


def _stays_first_until(line: _LineTurn) -> Age:
    """Up to which age of its applications a line that is first in everything above it stays so."""
    following = line.position + 1
    if following == len(line.items):
        return _NEVER
    _, created, key, _ = line.items[following]
    until = _ALWAYS
    above: _ForkTurn | None = line.parent
    while above is not None:
        heap = above.heap
        if len(heap) > 1:
            top, second = heap[0], heap[1]
            if len(heap) > 2 and heap[2] < second:
                second = heap[2]
            if above.place.by_priority and top[0]:
                return _NEVER
            if second[1] == top[1] and second[0] == top[0]:
                if (second[2], second[3]) <= (created, key):
                    return _NEVER
                until = min(until, (second[2], second[3]))
        above = above.parent
    return until
