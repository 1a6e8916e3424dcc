"""Which limits of the queues would have to be higher, and by how much exactly, for an application to be allowed."""

from __future__ import annotations

import msgspec

from muster.cluster.resources import Resources
from muster.queueing.config import EVERYBODY, Limit, Maximum, QueueConfig, written
from muster.queueing.tree import QueueTree
from muster.queueing.usage import Claimant, QueueUsage, Refusal, RefusalKind

_MOST = 16
"""Limits that are raised together, at most."""


class LimitChange(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    queue: str
    field: str
    """As the ``Queue`` resource calls it: ``max``, ``maxApplications``, ``driverShare``, within ``limits`` too."""
    current: str
    needed: str
    """The least that is enough."""
    resource: str = ""
    user: str = ""
    """Whose limit it is in this queue; ``*``: that of every user without one of their own."""
    group: str = ""

    def who(self) -> str:
        """What is raised, for people."""
        of = f" of user {self.user}" if self.user else f" of group {self.group}" if self.group else ""
        return f"{self.field}{of} of queue {self.queue}" + (f" for {self.resource}" if self.resource else "")


def raise_limits(
    usage: QueueUsage, claimant: Claimant, used: Resources, driver: Resources, total: Resources
) -> tuple[QueueTree, tuple[LimitChange, ...]] | None:
    """The tree under which the claimant would just be allowed, and what differs there; ``None``: no limit allows it.

    ``used``, ``driver``, ``total``: see ``QueueUsage.refusal``.
    """
    tree = usage.tree
    changes: list[LimitChange] = []
    for _ in range(_MOST):
        refusal = usage.under(tree).refusal(claimant, used, driver, total, new=True)
        if refusal is None:
            return (tree, tuple(changes)) if changes else None
        raised = _raised(tree, refusal, claimant.user, total)
        if raised is None:
            return None
        config, change = raised
        others = [tree.config(name) for name in tree.names() if name != config.name]
        tree = QueueTree((*others, config))
        changes.append(change)
    return None


def _raised(tree: QueueTree, refusal: Refusal, user: str, total: Resources) -> tuple[QueueConfig, LimitChange] | None:
    config, needed = tree.config(refusal.queue), refusal.used + refusal.asked
    resource = refusal.resource
    match refusal.kind:
        case RefusalKind.QUEUE_MAX | RefusalKind.QUEUE_APPLICATIONS:
            own = _higher(Limit(max=config.max, max_applications=config.max_applications), resource, needed)
            changed = msgspec.structs.replace(config, max=own.max, max_applications=own.max_applications)
            return changed, _change(refusal, needed)
        case RefusalKind.DRIVER_SHARE:
            whole = tree.ceiling(config.name).get(resource, total.get(resource))
            share = -(-needed * 100 // whole)
            if share > 100:
                return None
            change = LimitChange(config.name, "driverShare", f"{config.driver_share}%", f"{share}%")
            return msgspec.structs.replace(config, driver_share=share), change
        case RefusalKind.USER_MAX | RefusalKind.USER_APPLICATIONS:
            named = user if any(user in limit.users for limit in config.limits) else EVERYBODY
            limits = [_higher(one, resource, needed) if named in one.users else one for one in config.limits]
            changed = msgspec.structs.replace(config, limits=tuple(limits))
            return changed, msgspec.structs.replace(_change(refusal, needed), user=named)
        case RefusalKind.GROUP_MAX | RefusalKind.GROUP_APPLICATIONS:
            limits = [_higher(one, resource, needed) if refusal.group in one.groups else one for one in config.limits]
            changed = msgspec.structs.replace(config, limits=tuple(limits))
            return changed, msgspec.structs.replace(_change(refusal, needed), group=refusal.group)


def _higher(limit: Limit, resource: str, needed: int) -> Limit:
    if not resource:
        return msgspec.structs.replace(limit, max_applications=needed)
    amounts = tuple([(name, needed if name == resource else amount) for name, amount in limit.max.amounts])
    return msgspec.structs.replace(limit, max=Maximum(amounts))


def _change(refusal: Refusal, needed: int) -> LimitChange:
    resource = refusal.resource
    return LimitChange(
        refusal.queue,
        "max" if resource else "maxApplications",
        written(resource, refusal.limit),
        written(resource, needed),
        resource,
    )
