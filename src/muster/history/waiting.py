"""When a waiting application starts: the queue before it, played forward over the expected ends of the others. Pure.

Room is counted in executors of one size, which is coarse; the scheduler itself knows the nodes. What history adds are
the run times, and with them an early and a late answer beside the expected one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import inf

import msgspec


class RunTime(msgspec.Struct, frozen=True, gc=False):
    """How long something runs, seconds: ``Estimate``'s ``low``, ``median`` and ``seconds``; ``inf`` when not known."""

    early: float
    expected: float
    late: float


UNKNOWN = RunTime(inf, inf, inf)


class Holder(msgspec.Struct, frozen=True, gc=False):
    """Somebody who runs, and whose end makes room."""

    since: float
    """When it began to hold its room, Unix seconds."""
    room: int
    run: RunTime = UNKNOWN


class Waiter(msgspec.Struct, frozen=True, gc=False):
    """Somebody who waits for so much room, and how long it will then hold it."""

    room: int
    run: RunTime = UNKNOWN


class Eta(msgspec.Struct, frozen=True, rename="camel"):
    """Unix seconds; ``None``: nobody knows, since too much of what must end first has no estimate."""

    early: float | None
    """If all run as short as the shortest tenth of their runs."""
    expected: float | None
    late: float | None
    """If all run as long as their estimates."""


def wait_eta(now: float, free: int, running: Sequence[Holder], ahead: Sequence[Waiter], room: int) -> Eta:
    """When ``room`` is there for one that waits behind ``ahead``, who start in this order and go first.

    Raises ``ValueError`` for a negative amount of room.
    """
    if min(room, *(one.room for one in running), *(one.room for one in ahead), room) < 0:
        raise ValueError("room must not be negative")
    return Eta(
        *(
            _start(
                now,
                free,
                [(one.since, getattr(one.run, case), one.room) for one in running],
                [(getattr(one.run, case), one.room) for one in ahead],
                room,
            )
            for case in ("early", "expected", "late")
        )
    )


def _start(
    now: float,
    free: int,
    running: Sequence[tuple[float, float, int]],
    ahead: Sequence[tuple[float, int]],
    room: int,
) -> float | None:
    """One that has run longer than expected already is taken to end now."""
    ends = [(max(now, since + seconds), amount) for since, seconds, amount in running]
    heapq.heapify(ends)
    at = now
    for seconds, amount in (*ahead, (inf, room)):
        while free < amount:
            if not ends or ends[0][0] == inf:
                return None
            at, freed = heapq.heappop(ends)
            free += freed
        free -= amount
        heapq.heappush(ends, (at + seconds, amount))
    return at
