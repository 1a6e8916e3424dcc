"""The queues as a checked tree: who is above whom, who holds applications, which limits speak of whom.

The root has no name and no limits; applications wait in leaves only. Never changes: a new configuration is a new tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from muster.queueing.config import (
    DEFAULT,
    DRIVER_SHARE_OFF,
    EVERYBODY,
    Limit,
    Policy,
    QueueConfig,
    QueueConfigError,
    written,
)

ROOT = ""
"""Its children share by ``fair``, as YARN and YuniKorn share between queues."""


DEEPEST = 32
"""Levels of queues below the root, far beyond any organisation: whoever walks the tree may do so by recursion."""


class QueueTree:
    """A checked configuration. ``ROOT`` may be asked for like a queue.

    Raises:
        QueueConfigError: naming the queue, the field, its value and what is allowed.
    """

    def __init__(self, configs: Iterable[QueueConfig] = ()) -> None:
        self._configs = _by_name(configs)
        self._configs.setdefault(DEFAULT, QueueConfig(name=DEFAULT))
        self._configs[ROOT] = QueueConfig(name=ROOT, policy=Policy.FAIR)
        self._children = _children(self._configs)
        self._paths = self._find_paths()
        self.leaves: Sequence[str] = tuple(sorted(name for name in self._paths if not self._children[name]))
        self._users = {name: _named(config.limits, "users") for name, config in self._configs.items()}
        self._groups = {name: _named(config.limits, "groups") for name, config in self._configs.items()}
        self._limits_groups = any(self._groups.values())
        self._limited = {
            name for name, path in self._paths.items() if any(_limits(self._configs[queue]) for queue in path)
        }
        for name in self._paths:
            _check(self._configs[name])
            self._check_against_parents(name)
        self._check_guarantees(ROOT)

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def leaf(self, name: str) -> bool:
        """Whether there is a queue of this name that applications may wait in."""
        return name in self._paths and not self._children[name]

    def limited(self, name: str) -> bool:
        """Whether this queue, or one above it, sets any limit at all."""
        return name in self._limited

    def config(self, name: str) -> QueueConfig:
        """What was configured. KeyError: no such queue."""
        return self._configs[name]

    def path(self, name: str) -> Sequence[str]:
        """The queues from below the root down to this one, which is the last. KeyError: no such queue."""
        return self._paths[name]

    def children(self, name: str) -> Sequence[str]:
        """By name. KeyError: no such queue."""
        return self._children[name]

    def names(self) -> Sequence[str]:
        """Every queue without the root, by name."""
        return sorted(self._paths)

    def allows(self, name: str, pool: str) -> bool:
        """Whether applications of this queue may use this node pool; ``nodePools`` of ancestors hold as well."""
        return name in self._paths and all(
            not self._configs[one].node_pools or pool in self._configs[one].node_pools for one in self._paths[name]
        )

    def user_limit(self, name: str, user: str) -> Limit | None:
        """The limit of one queue that speaks of this user: the one that names them, else that of ``*``."""
        limits = self._users[name]
        return limits.get(user) or limits.get(EVERYBODY)

    def limits_users(self, name: str) -> bool:
        return bool(self._users[name])

    def group_limit(self, name: str, group: str) -> Limit | None:
        """The limit of one queue for what ``group_of`` answered."""
        return self._groups[name].get(group)

    def group_of(self, name: str, groups: Sequence[str]) -> str:
        """The one group that an application in this queue counts for, everywhere on its path; "" is none.

        As YuniKorn (``ugm.Manager.ensureGroupInternal``): from the leaf to the root, the first group that a queue's
        limits name and the user is in; a queue that has a limit for ``*`` ends the search with ``*``.
        """
        if not (self._limits_groups and groups and name in self._paths):
            return ""
        for queue in reversed(self._paths[name]):
            limits = self._groups[queue]
            for group in limits:
                if group != EVERYBODY and group in groups:
                    return group
            if EVERYBODY in limits:
                return EVERYBODY
        return ""

    def ceiling(self, name: str) -> Mapping[str, int]:
        """The smallest ``max`` of each resource on the way from the root to this queue."""
        smallest: dict[str, int] = {}
        for queue in self._paths[name]:
            for resource, most in self._configs[queue].max.amounts:
                smallest[resource] = min(most, smallest.get(resource, most))
        return smallest

    def _find_paths(self) -> dict[str, tuple[str, ...]]:
        """Every queue that hangs below the root, parents before children; cycles are what does not."""
        paths: dict[str, tuple[str, ...]] = {}
        below = [(child, ()) for child in reversed(self._children[ROOT])]
        stack: list[tuple[str, tuple[str, ...]]] = list(below)
        while stack:
            name, above = stack.pop()
            if len(above) == DEEPEST:
                raise QueueConfigError(
                    name, "parent", f'below "{above[-1]}" it is more than {DEEPEST} levels deep, which is the most'
                )
            paths[name] = (*above, name)
            stack.extend((child, paths[name]) for child in reversed(self._children[name]))
        for name in sorted(self._configs.keys() - paths.keys() - {ROOT}):
            raise QueueConfigError(name, "parent", f"is below itself: {' -> '.join(self._cycle(name))}")
        return paths

    def _cycle(self, name: str) -> list[str]:
        seen: list[str] = []
        while name not in seen:
            seen.append(name)
            name = self._configs[name].parent
        return [*seen[seen.index(name) :], name]

    def _check_against_parents(self, name: str) -> None:
        config = self._configs[name]
        for above in self._paths[name][:-1]:
            allowed = self._configs[above].node_pools
            strangers = sorted(set(config.node_pools) - set(allowed)) if allowed else []
            if strangers:
                raise QueueConfigError(
                    name, "nodePools", f'"{strangers[0]}" is not among those of "{above}" above it: {_listed(allowed)}'
                )

    def _check_guarantees(self, name: str) -> dict[str, int]:
        """The guarantee that a queue needs, for itself or for those below it, whichever is more."""
        needed: dict[str, int] = {}
        for child in self._children[name]:
            for resource, amount in self._check_guarantees(child).items():
                needed[resource] = needed.get(resource, 0) + amount
        config = self._configs[name]
        own, most = dict(config.guaranteed.amounts), dict(config.max.amounts)
        for resource, amount in own.items():
            if amount > most.get(resource, amount):
                raise QueueConfigError(
                    name,
                    "guaranteed",
                    f"{resource}: {written(resource, amount)} is more than max, "
                    f"which is {written(resource, most[resource])}",
                )
        for resource, amount in needed.items():
            if amount > most.get(resource, amount):
                raise QueueConfigError(
                    name,
                    "max",
                    f"{resource}: {written(resource, most[resource])} is less than what is guaranteed to the queues "
                    f"below it, which is {written(resource, amount)} together",
                )
        return {resource: max(needed.get(resource, 0), own.get(resource, 0)) for resource in needed | own}


def _by_name(configs: Iterable[QueueConfig]) -> dict[str, QueueConfig]:
    found: dict[str, QueueConfig] = {}
    for config in configs:
        if not config.name:
            raise QueueConfigError("", "name", "is empty; every queue needs a name of its own")
        if config.name in found:
            raise QueueConfigError(config.name, "name", "is used twice; names are unique in the whole tree")
        found[config.name] = config
    return found


def _children(configs: Mapping[str, QueueConfig]) -> dict[str, Sequence[str]]:
    children: dict[str, list[str]] = {name: [] for name in sorted(configs)}
    for name in children:
        if name == ROOT:
            continue
        parent = configs[name].parent
        if parent not in children:
            known = [one for one in children if one not in (ROOT, name)]
            raise QueueConfigError(
                name, "parent", f'there is no queue "{parent}"; there are {_listed(known)} and "" for the root'
            )
        children[parent].append(name)
    return {name: tuple(below) for name, below in children.items()}


def _limits(config: QueueConfig) -> bool:
    return bool(
        config.max.amounts
        or config.max_applications is not None
        or config.limits
        or config.driver_share < DRIVER_SHARE_OFF
    )


def _check(config: QueueConfig) -> None:
    """What a queue says by itself."""
    name = config.name
    _at_least(name, "weight", config.weight, 1)
    _at_least(name, "maxApplications", config.max_applications, 1)
    _at_least(name, "minRuntimeSeconds", config.min_runtime, 0)
    if not 1 <= config.driver_share <= 100:
        raise QueueConfigError(name, "driverShare", f"{config.driver_share} is not a percentage from 1 to 100")
    _not_negative(name, "guaranteed", config.guaranteed.amounts)
    _not_negative(name, "max", config.max.amounts)
    for index, limit in enumerate(config.limits):
        field = f"limits[{index}]"
        if not limit.users and not limit.groups:
            raise QueueConfigError(name, field, "speaks of nobody; it needs users or groups")
        if not limit.max.amounts and limit.max_applications is None:
            raise QueueConfigError(name, field, "limits nothing; it needs max or maxApplications")
        _at_least(name, f"{field}.maxApplications", limit.max_applications, 1)
        _not_negative(name, f"{field}.max", limit.max.amounts)
    _check_names(name, "users", [limit.users for limit in config.limits])
    groups = [limit.groups for limit in config.limits]
    _check_names(name, "groups", groups)
    if (EVERYBODY,) in groups and not any(one != (EVERYBODY,) for one in groups if one):
        raise QueueConfigError(
            name, "limits", 'a limit for the groups "*" needs one for a named group beside it; alone, use max'
        )


def _check_names(queue: str, field: str, lists: Sequence[Sequence[str]]) -> None:
    seen: dict[str, int] = {}
    for index, names in enumerate(lists):
        if EVERYBODY in names and len(names) > 1:
            raise QueueConfigError(queue, f"limits[{index}].{field}", f'"*" stands alone; here are {_listed(names)}')
        for name in names:
            if seen.setdefault(name, index) != index:
                raise QueueConfigError(
                    queue, f"limits[{index}].{field}", f'"{name}" has a limit already, in limits[{seen[name]}]'
                )


def _not_negative(queue: str, field: str, amounts: Iterable[tuple[str, int]]) -> None:
    for resource, amount in amounts:
        if amount < 0:
            raise QueueConfigError(
                queue, field, f"{resource}: {written(resource, amount)} is not allowed; the least is 0"
            )


def _at_least(queue: str, field: str, value: float | None, least: int) -> None:
    if value is not None and not value >= least:
        raise QueueConfigError(queue, field, f"{value} is not allowed; the least is {least}")


def _named(limits: Sequence[Limit], field: str) -> dict[str, Limit]:
    return {name: limit for limit in limits for name in getattr(limit, field)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in _first(names, 20)) or "none"


def _first(names: Iterable[str], count: int) -> Iterator[str]:
    for index, name in enumerate(names):
        if index == count:
            yield "…"
            return
        yield name
