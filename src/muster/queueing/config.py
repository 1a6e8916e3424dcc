"""What can be said of a queue: the values of a ``Queue`` resource or an entry of ``queues.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from muster.cluster.resources import Resources

DEFAULT = "default"
"""The queue of applications that name none; it is there unless a queue of this name is configured."""
EVERYBODY = "*"
DRIVER_SHARE_OFF = 100


class Policy(StrEnum):
    """Who goes next among the applications of a leaf, or among the children of a parent."""

    FIFO = "fifo"
    FAIR = "fair"
    PRIORITY = "priority"


class Preemption(StrEnum):
    """What of a queue may be taken back for others."""

    NEVER = "never"
    EXTRAS = "extras"
    APPLICATIONS = "applications"


class Maximum(msgspec.Struct, frozen=True):
    """The most of some resources. A name without an entry is unlimited; unlike in ``Resources``, 0 is kept: none."""

    amounts: tuple[tuple[str, int], ...] = ()
    """By name, in base units of ``cluster.resources``."""

    @classmethod
    def parse(cls, quantities: Mapping[str, str | int]) -> Maximum:
        """From a mapping of resource names to Kubernetes quantities.

        Raises:
            QuantityError: a value that is no quantity, naming the resource and the text.
        """
        return cls(tuple(sorted((name, Resources.parse({name: text}).get(name)) for name, text in quantities.items())))

    @classmethod
    def of(cls, **amounts: int) -> Maximum:
        """From amounts in base units."""
        return cls(tuple(sorted(amounts.items())))


class Limit(msgspec.Struct, frozen=True):
    """What each of these users, and each of these groups, may hold at or below a queue (YuniKorn's ``limits``).

    ``*`` stands alone in its list. Among users it means every user without a limit of their own in this queue, each by
    themselves; among groups it means all applications together that count for none of the groups named in this queue.
    """

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    max: Maximum = Maximum()
    max_applications: int | None = None


class Submitters(msgspec.Struct, frozen=True):
    """Who may submit: anybody named in any list, ``*`` is everybody; all lists empty: everybody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    """``<namespace>/<name>``, or a name alone for that of any namespace."""


class QueueConfig(msgspec.Struct, frozen=True):
    name: str
    parent: str = ""
    """"" is the root."""
    node_pools: tuple[str, ...] = ()
    """Empty: all that its parent may use. "" is the pool of applications that name none."""
    policy: Policy = Policy.FIFO
    guaranteed: Resources = Resources()
    max: Maximum = Maximum()
    weight: int = 1
    limits: tuple[Limit, ...] = ()
    max_applications: int | None = None
    """Applications that hold something at or below it, at once."""
    driver_share: int = DRIVER_SHARE_OFF
    """Percent of its maximum that drivers may hold (YARN's ``maximum-am-resource-percent``)."""
    preemption: Preemption = Preemption.EXTRAS
    min_runtime: float = 600.0
    """Seconds for which an application is safe from preemption."""
    submitters: Submitters = Submitters()


def written(resource: str, amount: int) -> str:
    """An amount in base units as Kubernetes writes it; plain numbers of applications too."""
    return Resources(((resource, amount),)).quantities()[resource]


class QueueConfigError(ValueError):
    """A configuration that cannot be used: which queue, which field (as written in YAML), and what is allowed."""

    def __init__(self, queue: str, field: str, message: str) -> None:
        self.queue = queue
        self.field = field
        self.message = message
        super().__init__(f'queue "{queue}": {field}: {message}')
