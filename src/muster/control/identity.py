"""Who created a driver: from the admission review to the pod's annotations, and back. Pure.

The API server says who asks (``userInfo``); what the pod says of itself counts only when the asker is trusted to create
drivers on behalf of others, as an operator is. An annotation can be changed later by whoever may change the pod: it is
read once, when the application is found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

from muster.kube.objects import UserInfo
from muster.spark import names

MOST_GROUPS = 100
LONGEST_GROUPS = 8192
"""Characters of the annotation; a pod's annotations may have 256 KiB in all."""
LONGEST_NAME = 1024
"""Of a user or group, as the schema of ``Gang`` has it. A longer one counts as unknown: cut, it could be another's."""
_SYSTEM = "system:"


def identity_notes(asker: UserInfo, annotations: Mapping[str, str], trusted: Collection[str] = ()) -> dict[str, str]:
    """The annotations that say who created a driver, to be written over those it has.

    ``trusted`` are users whose word counts: when such a one names a user, that user and the groups named with it
    stand, and nothing of the asker's own identity is mixed in.
    """
    if asker.username in trusted and annotations.get(names.USER_ANNOTATION):
        return {
            names.USER_ANNOTATION: annotations[names.USER_ANNOTATION],
            names.GROUPS_ANNOTATION: annotations.get(names.GROUPS_ANNOTATION, ""),
        }
    return {names.USER_ANNOTATION: asker.username, names.GROUPS_ANNOTATION: groups_text(asker.groups)}


def groups_text(groups: Sequence[str]) -> str:
    """Groups as an annotation has them, in order, without ``system:…`` ones: everybody is ``system:authenticated``.

    Cut after ``MOST_GROUPS`` and ``LONGEST_GROUPS``: a group that is left out allows nothing.
    """
    told = [_escaped(group) for group in groups if group and not group.startswith(_SYSTEM)][:MOST_GROUPS]
    while told and len(",".join(told)) > LONGEST_GROUPS:
        told.pop()
    return ",".join(told)


def user_of(annotations: Mapping[str, str]) -> str:
    """Who created the driver; "" when admission did not see it."""
    user = annotations.get(names.USER_ANNOTATION, "")
    return user if len(user) <= LONGEST_NAME else ""


def groups_of(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """That user's groups, at most ``MOST_GROUPS``."""
    told = (unquote(group.strip()) for group in annotations.get(names.GROUPS_ANNOTATION, "").split(","))
    return tuple(group for group in told if group and len(group) <= LONGEST_NAME)[:MOST_GROUPS]


def _escaped(group: str) -> str:
    """LDAP's distinguished names have commas."""
    return group.replace("%", "%25").replace(",", "%2C")
