"""What the tests of the order share: a cluster without nodes, in which gangs of one size each are tried in turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from muster.cluster.resources import Resources
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.usage import Charge


def order_of(queues: Queues, total: Resources, pool: str = "") -> list[str]:
    """Everybody in the order they would be tried, if nobody could start."""
    turns, order = queues.turns(pool, total), []
    while (key := turns.next()) is not None:
        order.append(key)
        turns.passed(key)
    return order


def fill(
    queues: Queues, total: Resources, tasks: Iterable[tuple[Entry, Resources]], most: int | None = None
) -> Mapping[str, int]:
    """Start whatever fits into the total, ``most`` at most, in one round: how many started, per user or queue."""
    waiting = {entry.key: (entry, used) for entry, used in tasks}
    for entry, _ in waiting.values():
        queues.add(entry)
    free, started = dict(total.amounts), dict[str, int]()
    turns = queues.turns("", total)
    while sum(started.values()) != most and (key := turns.next()) is not None:
        entry, used = waiting[key]
        if any(amount > free.get(name, 0) for name, amount in used.amounts):
            turns.passed(key)
            continue
        for name, amount in used.amounts:
            free[name] -= amount
        queues.discard(key)
        queues.charge(key, Charge(entry.queue, entry.user, used=used))
        turns.started(key)
        who = entry.user or entry.queue
        started[who] = started.get(who, 0) + 1
    return started


def tasks(
    queue: str, count: int, used: Resources, user: str = "", created: float = 0.0
) -> list[tuple[Entry, Resources]]:
    return [(Entry(created, f"{queue}/{user}{number}", queue, user), used) for number in range(count)]
