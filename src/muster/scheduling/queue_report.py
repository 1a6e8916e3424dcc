"""What queues hold and who waits in them, for people: amounts as Kubernetes writes them, beside their limits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import msgspec

from muster.cluster.resources import Resources
from muster.queueing.config import Limit, written
from muster.queueing.order import Queues
from muster.queueing.standing import Entry
from muster.queueing.tree import ROOT, QueueTree
from muster.queueing.usage import Charge

Quantities = Mapping[str, str]


class QueueReport(msgspec.Struct, frozen=True, rename="camel"):
    """One queue with all that are below it."""

    name: str
    parent: str
    """"" at the top."""
    leaf: bool
    """Whether applications wait in it; else in those below it."""
    policy: str
    weight: int
    guaranteed: Quantities
    max: Quantities
    used: Quantities
    drivers: Quantities
    """The drivers' part of ``used``."""
    running: int
    """Applications that hold something."""
    waiting: int
    share: float
    """Of the cluster: the largest part it holds of any one resource (its dominant share), 0 to 1."""
    max_applications: int | None
    driver_share: int
    """Percent."""
    preemption: str
    node_pools: Sequence[str]


class LimitReport(msgspec.Struct, frozen=True, rename="camel"):
    users: Sequence[str]
    groups: Sequence[str]
    max: Quantities
    max_applications: int | None


class UserReport(msgspec.Struct, frozen=True, rename="camel"):
    """What one user holds in a queue and those below it."""

    user: str
    """"" for those whose user is not known."""
    running: int
    waiting: int
    used: Quantities


class WaitingReport(msgspec.Struct, frozen=True, rename="camel"):
    """One that waits."""

    position: int
    """From 1, among those of its node pool, whatever their queue."""
    application: str
    """``<namespace>/<id>``"""
    name: str
    queue: str
    pool: str
    user: str
    priority: int
    created: float
    """Seconds since the epoch."""
    reason: str
    message: str


class QueueDetails(msgspec.Struct, frozen=True, rename="camel"):
    queue: QueueReport
    path: Sequence[str]
    """From the top down to it."""
    children: Sequence[str]
    limits: Sequence[LimitReport]
    submitters: Mapping[str, Sequence[str]]
    """Who may submit, ancestors apart; empty: everybody."""
    min_runtime_seconds: float
    users: Sequence[UserReport]
    """Who holds or waits, by name."""
    waiting: Sequence[WaitingReport]
    """In the order in which they would be tried if none started, node pool by node pool."""


Told = tuple[str, str, str]
"""Of an application that waits: its name, reason and message."""


def report_queues(queues: Queues, total: Resources) -> list[QueueReport]:
    """Every queue, parents before children, sisters by name. ``total`` is what the cluster has."""
    waiting = _waiting_by_queue(queues)
    return [_report(queues, name, total, waiting[name]) for name in _from_the_top(queues.tree)]


def report_queue(queues: Queues, name: str, total: Resources, told: Callable[[str], Told]) -> QueueDetails | None:
    """One queue with who is in it; ``None``: there is no such queue. ``told`` knows applications by their keys."""
    tree = queues.tree
    if name == ROOT or name not in tree:
        return None
    config = tree.config(name)
    inside = {one for one in tree.names() if name in tree.path(one)}
    entries = [entry for pool in queues.pools() for entry in queues.waiting(pool) if entry.queue in inside]
    submitters = {
        "users": config.submitters.users,
        "groups": config.submitters.groups,
        "serviceAccounts": config.submitters.service_accounts,
    }
    return QueueDetails(
        queue=_report(queues, name, total, len(entries)),
        path=tree.path(name),
        children=tree.children(name),
        limits=[_limit(limit) for limit in config.limits],
        submitters={kind: who for kind, who in submitters.items() if who},
        min_runtime_seconds=config.min_runtime,
        users=_users([c for c in queues.usage.charges.values() if c.queue in inside], entries),
        waiting=_in_order(queues, total, {entry.key: entry for entry in entries}, told),
    )


def _report(queues: Queues, name: str, total: Resources, waiting: int) -> QueueReport:
    config, account = queues.tree.config(name), queues.usage.accounts[name]
    return QueueReport(
        name=name,
        parent=config.parent,
        leaf=queues.tree.leaf(name),
        policy=config.policy.value,
        weight=config.weight,
        guaranteed=_quantities(config.guaranteed.amounts),
        max=_quantities(config.max.amounts),
        used=_quantities(tuple(sorted(account.used.items()))),
        drivers=_quantities(tuple(sorted(account.drivers.items()))),
        running=account.applications,
        waiting=waiting,
        share=_dominant_share(account.used, total),
        max_applications=config.max_applications,
        driver_share=config.driver_share,
        preemption=config.preemption.value,
        node_pools=config.node_pools,
    )


def _waiting_by_queue(queues: Queues) -> Counter[str]:
    """Those below a queue count for it too."""
    leaves = Counter(entry.queue for pool in queues.pools() for entry in queues.waiting(pool))
    counts: Counter[str] = Counter()
    for leaf, count in leaves.items():
        if leaf in queues.tree:
            for name in queues.tree.path(leaf):
                counts[name] += count
    return counts


def _from_the_top(tree: QueueTree) -> list[str]:
    names: list[str] = []
    stack = list(reversed(tree.children(ROOT)))
    while stack:
        name = stack.pop()
        names.append(name)
        stack.extend(reversed(tree.children(name)))
    return names


def _in_order(
    queues: Queues, total: Resources, wanted: Mapping[str, Entry], told: Callable[[str], Told]
) -> list[WaitingReport]:
    found: list[WaitingReport] = []
    for pool in queues.pools():
        turns = queues.turns(pool, total)
        position = 0
        while (key := turns.next()) is not None:
            position += 1
            entry = wanted.get(key)
            if entry is not None:
                name, reason, message = told(key)
                found.append(
                    WaitingReport(
                        position,
                        key,
                        name,
                        entry.queue,
                        pool,
                        entry.user,
                        entry.priority,
                        entry.created,
                        reason,
                        message,
                    )
                )
    return found


def _users(charges: Sequence[Charge], entries: Sequence[Entry]) -> list[UserReport]:
    running: Counter[str] = Counter(charge.user for charge in charges)
    waiting: Counter[str] = Counter(entry.user for entry in entries)
    used: dict[str, Resources] = {}
    for charge in charges:
        used[charge.user] = used.get(charge.user, Resources()) + charge.used
    return [
        UserReport(user, running[user], waiting[user], used.get(user, Resources()).quantities())
        for user in sorted(running.keys() | waiting.keys())
    ]


def _limit(limit: Limit) -> LimitReport:
    return LimitReport(limit.users, limit.groups, _quantities(limit.max.amounts), limit.max_applications)


def _dominant_share(used: Mapping[str, int], total: Resources) -> float:
    whole = dict(total.amounts)
    return round(max((held / whole[name] for name, held in used.items() if whole.get(name)), default=0.0), 4)


@lru_cache(4096)
def _quantities(amounts: tuple[tuple[str, int], ...]) -> Quantities:
    """With what is 0, which is not the same as no maximum. Shared: not to be changed."""
    return {name: written(name, amount) for name, amount in amounts}
