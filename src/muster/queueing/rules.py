"""Which queue an application goes to, and whether whoever created it may send it there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

import msgspec

from muster.queueing.config import DEFAULT, EVERYBODY, Submitters
from muster.queueing.tree import QueueTree

QUEUE_KEY = "muster.dev/queue"
YUNIKORN_KEYS = ("queue", "yunikorn.apache.org/queue")
"""YuniKorn's own; the value is a path like ``root.etl.nightly``, of which the last part counts."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SERVICE_ACCOUNT = "system:serviceaccount:"
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Submission(msgspec.Struct, frozen=True):
    """What is known of a driver and of its creator."""

    namespace: str
    service_account: str = ""
    """That the driver runs as (``spec.serviceAccountName``)."""
    user: str = ""
    """Kubernetes user that created it; "" when unknown."""
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = _NOTHING
    annotations: Mapping[str, str] = _NOTHING


class Rule(msgspec.Struct, frozen=True):
    """Sends what matches all of its patterns to a queue. Patterns are globs (``*``, ``?``, ``[ab]``); "" is all."""

    queue: str
    """May hold ``{namespace}`` and ``{user}``; a rule with ``{user}`` matches nobody whose user is unknown."""
    namespace: str = ""
    service_account: str = ""
    user: str = ""
    group: str = ""
    """Matches whoever is in at least one such group."""
    label: Mapping[str, str] = _NOTHING
    """Every label must be there, with a value that matches."""

    def matches(self, submission: Submission) -> bool:
        return (
            _like(submission.namespace, self.namespace)
            and _like(submission.service_account, self.service_account)
            and _like(submission.user, self.user)
            and (not self.group or any(fnmatchcase(group, self.group) for group in submission.groups))
            and all(
                key in submission.labels and fnmatchcase(submission.labels[key], pattern)
                for key, pattern in self.label.items()
            )
            and ("{user}" not in self.queue or bool(submission.user))
        )


class RuleError(ValueError):
    """A rule that cannot be used: which one, counted from 0, which field, and what is allowed."""

    def __init__(self, index: int, field: str, message: str) -> None:
        self.index = index
        self.field = field
        self.message = message
        super().__init__(f"rules[{index}].{field}: {message}")


def check_rules(rules: Sequence[Rule]) -> None:
    """Raises RuleError: no queue, or a placeholder that does not exist."""
    for index, rule in enumerate(rules):
        if not rule.queue:
            raise RuleError(index, "queue", "is empty; a rule names the queue that its applications go to")
        for placeholder in _PLACEHOLDER.findall(rule.queue):
            if placeholder not in ("namespace", "user"):
                raise RuleError(
                    index, "queue", f'"{{{placeholder}}}" is unknown; there are "{{namespace}}", "{{user}}"'
                )


def queue_of(submission: Submission, rules: Sequence[Rule]) -> str:
    """The queue that an application asks for, or that the first matching rule gives it, or ``default``.

    What the driver says comes first: annotation and label ``muster.dev/queue``, then YuniKorn's labels and annotations.
    Whether there is such a queue is not looked at.
    """
    for source in (submission.annotations, submission.labels):
        if source.get(QUEUE_KEY):
            return source[QUEUE_KEY]
    for key in YUNIKORN_KEYS:
        for source in (submission.labels, submission.annotations):
            name = source.get(key, "").rpartition(".")[2]
            if name:
                return name
    for rule in rules:
        if rule.matches(submission):
            return rule.queue.replace("{namespace}", submission.namespace).replace("{user}", submission.user)
    return DEFAULT


class Denial(msgspec.Struct, frozen=True):
    """A queue on the way that does not take applications from this creator."""

    queue: str
    user: str
    submitters: Submitters

    def message(self) -> str:
        """One sentence for people."""
        lists = {
            "users": self.submitters.users,
            "groups": self.submitters.groups,
            "service accounts": self.submitters.service_accounts,
        }
        allowed = "; ".join(f"{what} {', '.join(names)}" for what, names in lists.items() if names)
        creator = f'user "{self.user}"' if self.user else "nobody known"
        return f'queue "{self.queue}" takes applications of {allowed}; this one was created by {creator}'


def denial(tree: QueueTree, queue: str, user: str, groups: Sequence[str]) -> Denial | None:
    """The first queue from the root down that refuses this creator; ``None``: may submit. KeyError: no such queue."""
    for name in tree.path(queue):
        submitters = tree.config(name).submitters
        if not _takes(submitters, user, groups):
            return Denial(name, user, submitters)
    return None


def _takes(submitters: Submitters, user: str, groups: Sequence[str]) -> bool:
    lists = (submitters.users, submitters.groups, submitters.service_accounts)
    if not any(lists) or any(EVERYBODY in names for names in lists):
        return True
    if (user and user in submitters.users) or any(group in submitters.groups for group in groups):
        return True
    if user.startswith(_SERVICE_ACCOUNT):
        namespace, _, name = user.removeprefix(_SERVICE_ACCOUNT).partition(":")
        return name in submitters.service_accounts or f"{namespace}/{name}" in submitters.service_accounts
    return False


def _like(text: str, pattern: str) -> bool:
    return not pattern or fnmatchcase(text, pattern)
