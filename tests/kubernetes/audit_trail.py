"""What the API server's audit log says that somebody did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from muster.devcluster.control_plane import ControlPlane

Manifest = Mapping[str, Any]


class Use(NamedTuple):
    """One call, in the words of RBAC."""

    verb: str
    group: str
    resource: str
    """Plural, with the subresource: ``gangs/status``."""
    namespace: str
    name: str
    """Empty for calls on a collection, and for creations (their authorization knows no name)."""
    code: int


class Permission(NamedTuple):
    """One verb on one resource of a role; ``namespace`` and ``names`` are empty when it is not restricted to any."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    names: tuple[str, ...] = ()

    def is_about(self, use: Use) -> bool:
        return (self.group, self.resource) == (use.group, use.resource)

    def allows(self, use: Use) -> bool:
        return (
            self.is_about(use)
            and self.verb == use.verb
            and self.namespace in ("", use.namespace)
            and (not self.names or use.name in self.names)
        )


def uses(log: Path, user: str) -> Iterator[Use]:
    """Every call of ``user``; a watch counts from the moment it was accepted."""
    whole, _, _ = log.read_text().rpartition("\n")  # the last line may be under way
    for line in whole.splitlines():
        event = json.loads(line)
        if event["user"]["username"] != user:
            continue
        about = event.get("objectRef", {})
        subresource = about.get("subresource", "")
        resource = about.get("resource", "") + (f"/{subresource}" if subresource else "")
        verb = event["verb"]
        yield Use(
            verb,
            about.get("apiGroup", ""),
            resource,
            about.get("namespace", ""),
            "" if verb == "create" and not subresource else about.get("name", ""),
            event.get("responseStatus", {}).get("code", 0),
        )


def bound_by_kube_scheduler(plane: ControlPlane) -> set[str]:
    """Names of the pods that it gave their node."""
    calls = uses(plane.audit_log, "system:kube-scheduler")
    return {call.name for call in calls if call.resource == "pods/binding" and call.code == 201}


def permissions(role: Manifest) -> list[Permission]:
    """Of a Role or ClusterRole."""
    return [
        Permission(verb, group, resource, role["metadata"].get("namespace", ""), tuple(rule.get("resourceNames", ())))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
