"""What queues, users and groups hold, kept up to date by each change; and which limit would be broken next.

Amounts are exact integers, so the order of changes leaves no trace. Charges of queues that are not in the tree are
remembered, and count nowhere until a tree has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from enum import StrEnum
from typing import Protocol

import msgspec

from muster.cluster.resources import Resources
from muster.queueing.config import DRIVER_SHARE_OFF, EVERYBODY, Limit, Policy, written
from muster.queueing.tree import ROOT, QueueTree

NOTHING = Resources()


class Claimant(Protocol):
    """Whoever asks on behalf of an application: ``Entry``, ``Charge``, the scheduler's own ``Application``."""

    @property
    def queue(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def groups(self) -> Sequence[str]: ...


class Charge(msgspec.Struct, frozen=True):
    """All that one application holds."""

    queue: str
    user: str = ""
    groups: tuple[str, ...] = ()
    used: Resources = NOTHING
    """Its driver and its slots, filled or not, and its extras."""
    driver: Resources = NOTHING
    """The driver's part of ``used``."""


class RefusalKind(StrEnum):
    QUEUE_MAX = "QueueMax"
    QUEUE_APPLICATIONS = "QueueApplications"
    DRIVER_SHARE = "DriverShare"
    USER_MAX = "UserMax"
    USER_APPLICATIONS = "UserApplications"
    GROUP_MAX = "GroupMax"
    GROUP_APPLICATIONS = "GroupApplications"


class Refusal(msgspec.Struct, frozen=True):
    """The limit that would be broken."""

    kind: RefusalKind
    queue: str
    """Whose limit it is: the application's queue or one above it."""
    resource: str
    """"" where applications are counted."""
    limit: int
    used: int
    asked: int
    user: str = ""
    group: str = ""

    def message(self) -> str:
        """One sentence for people; amounts as Kubernetes writes them."""
        limit, used, asked = (written(self.resource, amount) for amount in (self.limit, self.used, self.asked))
        if not self.resource:
            return f"{self._who()} may run {limit} application(s) at once, and runs {used}"
        held = f"asks for {asked} alone" if self.asked > self.limit else f"holds {used}, and {asked} more is asked for"
        return f"{self._who()} may hold {self.resource} {limit}, {held}"

    def _who(self) -> str:
        queue = f'queue "{self.queue}"'
        match self.kind:
            case RefusalKind.DRIVER_SHARE:
                return f"the drivers of {queue} together"
            case RefusalKind.USER_MAX | RefusalKind.USER_APPLICATIONS:
                return f'user "{self.user}" in {queue}' if self.user else f"each unknown user in {queue}"
            case RefusalKind.GROUP_MAX | RefusalKind.GROUP_APPLICATIONS:
                others = "everybody in none of the groups its limits name"
                return f"{others}, in {queue}," if self.group == EVERYBODY else f'group "{self.group}" in {queue}'
            case _:
                return queue


class Account:
    """What somebody holds."""

    __slots__ = ("applications", "used")

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.applications = 0

    def __bool__(self) -> bool:
        return bool(self.applications or self.used)

    def add(self, amounts: Sequence[tuple[str, int]], applications: int) -> None:
        _add(self.used, amounts)
        self.applications += applications

    def resources(self) -> Resources:
        return Resources(tuple(sorted(self.used.items())))


class QueueAccount(Account):
    """What is held at and below one queue. Users and groups are counted only where something asks for them."""

    __slots__ = ("drivers", "groups", "users")

    def __init__(self) -> None:
        super().__init__()
        self.drivers: dict[str, int] = {}
        self.users: dict[str, Account] = {}
        self.groups: dict[str, Account] = {}


class QueueUsage:
    def __init__(self, tree: QueueTree) -> None:
        self._charges: dict[str, Charge] = {}
        self._counted: dict[str, _Counted] = {}
        self._begin(tree)

    def replace(self, tree: QueueTree) -> None:
        """Count everything anew under another tree."""
        charges = self._charges
        self._charges, self._counted = {}, {}
        self._begin(tree)
        for key, charge in charges.items():
            self.set_charge(key, charge)

    def under(self, limits: QueueTree) -> QueueUsage:
        """The same books, looked at under a tree that differs in limits and in nothing else: to try those limits."""
        other = copy(self)
        other.tree, other._guards = limits, {}
        return other

    def _begin(self, tree: QueueTree) -> None:
        self.tree = tree
        self.accounts: dict[str, QueueAccount] = {name: QueueAccount() for name in (ROOT, *tree.names())}
        self._counts_users = {
            name: tree.limits_users(name) or (tree.leaf(name) and tree.config(name).policy is Policy.FAIR)
            for name in tree.names()
        }
        self._guards: dict[str, Sequence[_Guard]] = {}
        """Per queue, from itself up to the root."""

    @property
    def charges(self) -> Mapping[str, Charge]:
        return self._charges

    def set_charge(self, key: str, charge: Charge | None) -> Sequence[str]:
        """Set what an application holds, all of it; ``None``: nothing any more. Answers the queues this changed."""
        before = self._charges.get(key)
        if charge == before:
            return ()
        counted = self._counted.get(key)
        if charge is None:
            del self._charges[key]
        else:
            self._charges[key] = charge
        if charge is not None and counted is not None and before is not None and _alike(charge, before):
            self._count(counted, (charge.used - before.used).amounts, (charge.driver - before.driver).amounts, 0)
            return counted.path
        changed: tuple[str, ...] = ()
        if counted is not None and before is not None:
            self._count(counted, before.used.times(-1).amounts, before.driver.times(-1).amounts, -1)
            del self._counted[key]
            changed = counted.path
        if charge is not None and charge.queue in self.tree:
            group = self.tree.group_of(charge.queue, charge.groups)
            counted = _Counted(tuple(self.tree.path(charge.queue)), charge.user, group)
            self._counted[key] = counted
            self._count(counted, charge.used.amounts, charge.driver.amounts, 1)
            changed += counted.path
        return changed

    def _count(
        self,
        counted: _Counted,
        used: Sequence[tuple[str, int]],
        driver: Sequence[tuple[str, int]],
        applications: int,
    ) -> None:
        self.accounts[ROOT].add(used, applications)
        for queue in counted.path:
            account = self.accounts[queue]
            account.add(used, applications)
            _add(account.drivers, driver)
            if self._counts_users[queue]:
                _add_to(account.users, counted.user, used, applications)
            if counted.group:
                _add_to(account.groups, counted.group, used, applications)

    def refusal(
        self, claimant: Claimant, used: Resources, driver: Resources, total: Resources, *, new: bool
    ) -> Refusal | None:
        """The first limit that would be broken if this were held as well, from the leaf up to the root.

        ``driver`` is the driver's part of ``used``; ``new`` counts one more application; ``total`` is what the cluster
        has, for driver shares. A limit counts as broken only by what is asked of it: who asks for no GPU is not refused
        because GPUs are overdrawn. A first driver may always start, however small the share (as in YARN,
        ``LeafQueue.activateApplications``).
        """
        return self._refusal(claimant, used, driver, total, new=new, anew=False)

    def never(self, claimant: Claimant, used: Resources, driver: Resources, total: Resources) -> Refusal | None:
        """The first limit that would be broken even if nothing else ran."""
        return self._refusal(claimant, used, driver, total, new=True, anew=True)

    def _refusal(
        self, claimant: Claimant, used: Resources, driver: Resources, total: Resources, *, new: bool, anew: bool
    ) -> Refusal | None:
        """``anew``: as if nothing were held."""
        guards = self._guards.get(claimant.queue)
        if guards is None:
            guards = self._guards[claimant.queue] = self._find_guards(claimant.queue)
        if not guards:
            return None
        wanted, user = dict(used.amounts), claimant.user
        group = self.tree.group_of(claimant.queue, claimant.groups)
        for guard in guards:
            queue, account = guard.queue, _NOTHING_HELD if anew else guard.account
            if broken := _broken(guard.limit, account, wanted, new):
                kind = RefusalKind.QUEUE_MAX if broken[0] else RefusalKind.QUEUE_APPLICATIONS
                return Refusal(kind, queue, *broken)
            if guard.ceiling is not None and (broken := _over_share(guard, account.drivers, driver, total)):
                return Refusal(RefusalKind.DRIVER_SHARE, queue, *broken)
            if guard.users:
                limit = self.tree.user_limit(queue, user)
                if limit is not None and (broken := _broken(limit, account.users.get(user, _NOBODY), wanted, new)):
                    kind = RefusalKind.USER_MAX if broken[0] else RefusalKind.USER_APPLICATIONS
                    return Refusal(kind, queue, *broken, user=user)
            if group:
                limit = self.tree.group_limit(queue, group)
                if limit is not None and (broken := _broken(limit, account.groups.get(group, _NOBODY), wanted, new)):
                    kind = RefusalKind.GROUP_MAX if broken[0] else RefusalKind.GROUP_APPLICATIONS
                    return Refusal(kind, queue, *broken, group=group)
        return None

    def _find_guards(self, name: str) -> Sequence[_Guard]:
        if name not in self.tree:
            return ()
        guards = []
        for queue in reversed(self.tree.path(name)):
            config = self.tree.config(queue)
            limited = config.max.amounts or config.max_applications is not None or config.limits
            if limited or config.driver_share < DRIVER_SHARE_OFF:
                guards.append(
                    _Guard(
                        queue=queue,
                        account=self.accounts[queue],
                        limit=Limit(max=config.max, max_applications=config.max_applications),
                        users=self.tree.limits_users(queue),
                        ceiling=self.tree.ceiling(queue) if config.driver_share < DRIVER_SHARE_OFF else None,
                        driver_share=config.driver_share,
                    )
                )
        return guards


class _Guard(msgspec.Struct, frozen=True, eq=False):
    """A queue on the way that limits anything."""

    queue: str
    account: QueueAccount
    limit: Limit
    """That of the queue itself."""
    users: bool
    """Limits users."""
    ceiling: Mapping[str, int] | None
    """What the driver share is a share of, as far as any maximum says; ``None``: there is no driver share."""
    driver_share: int


class _Counted(msgspec.Struct, frozen=True):
    """Where a charge has been counted."""

    path: tuple[str, ...]
    user: str
    group: str


_NOBODY = Account()
_NOTHING_HELD = QueueAccount()


def _alike(one: Charge, other: Charge) -> bool:
    return (one.queue, one.user, one.groups) == (other.queue, other.user, other.groups)


Broken = tuple[str, int, int, int]
"""(resource, limit, held, asked); resource "" where applications are counted."""


def _broken(limit: Limit, holder: Account, wanted: Mapping[str, int], new: bool) -> Broken | None:
    """What would exceed the limit if this were held as well."""
    if new and limit.max_applications is not None and holder.applications >= limit.max_applications:
        return "", limit.max_applications, holder.applications, 1
    for resource, most in limit.max.amounts:
        asked = wanted.get(resource, 0)
        if asked > 0:
            held = holder.used.get(resource, 0)
            if held + asked > most:
                return resource, most, held, asked
    return None


def _over_share(guard: _Guard, drivers: Mapping[str, int], driver: Resources, total: Resources) -> Broken | None:
    """What drivers would hold too much of; a first driver may always start, and what nobody has is not shared."""
    if not drivers or guard.ceiling is None:
        return None
    for resource, asked in driver.amounts:
        whole, held = guard.ceiling.get(resource, total.get(resource)), drivers.get(resource, 0)
        if whole and (held + asked) * 100 > whole * guard.driver_share:
            return resource, whole * guard.driver_share // 100, held, asked
    return None


def _add(sums: dict[str, int], amounts: Sequence[tuple[str, int]]) -> None:
    for name, amount in amounts:
        total = sums.get(name, 0) + amount
        if total:
            sums[name] = total
        else:
            del sums[name]


def _add_to(accounts: dict[str, Account], name: str, amounts: Sequence[tuple[str, int]], applications: int) -> None:
    account = accounts.get(name)
    if account is None:
        account = accounts[name] = Account()
    account.add(amounts, applications)
    if not account:
        del accounts[name]
