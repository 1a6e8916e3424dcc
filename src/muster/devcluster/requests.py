"""What a request asks for, read from its path and query. Source: apiserver ``pkg/endpoints/request/requestinfo.go``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muster.devcluster.authentication import Identity
from muster.devcluster.errors import bad_request, no_such_path
from muster.devcluster.kinds import Kind, KindTable


class Target(msgspec.Struct, frozen=True):
    """Which object or collection a path names; ``namespace`` None is all namespaces (or cluster scope)."""

    kind: Kind
    namespace: str | None
    name: str
    subresource: str

    @property
    def space(self) -> str:
        """The namespace as the storage key has it."""
        return self.namespace or ""


class Request(msgspec.Struct, frozen=True):
    """One API request: who, what, on which target, with which query parameters."""

    verb: str
    target: Target
    user: Identity
    agent: str
    params: Mapping[str, str]

    @property
    def kind(self) -> Kind:
        return self.target.kind

    @property
    def dry_run(self) -> bool:
        value = self.params.get("dryRun", "")
        if value not in ("", "All"):
            raise bad_request(f'Invalid value: "{value}": supported values: "All" (dryRun)')
        return bool(value)

    @property
    def manager(self) -> str:
        """The field manager: as given, else the user agent's first word, as the API server does."""
        return self.params.get("fieldManager") or self.agent.split("/", 1)[0][:128] or "unknown"

    def flag(self, name: str) -> bool:
        return self.params.get(name, "").lower() in ("true", "1", "t")

    def integer(self, name: str) -> int | None:
        value = self.params.get(name)
        if not value:
            return None
        try:
            return int(value)
        except ValueError:
            raise bad_request(f'invalid query parameter {name}: "{value}" is not a number') from None


def find_target(path: str, kinds: KindTable) -> Target:
    """The target a path names. Raises 404 for a path that is not served."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise no_such_path()
    namespace: str | None = None
    in_namespace = rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize")
    if in_namespace:
        namespace, rest = rest[1], rest[2:]
    kind = kinds.find(group, version, rest[0])
    if kind is None or len(rest) > 3 or (in_namespace and not kind.namespaced):
        raise no_such_path()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if (name and kind.namespaced and namespace is None) or (subresource and subresource not in kind.subresources):
        raise no_such_path()
    return Target(kind, namespace, name, subresource)


def verb_of(method: str, target: Target, params: Mapping[str, str]) -> str:
    """The verb as RBAC and audit name it; empty when the method does not fit the target."""
    if method in ("GET", "HEAD"):
        if target.name:
            return "get"
        return "watch" if params.get("watch", "").lower() in ("true", "1") else "list"
    if method == "POST":
        return "create" if not target.name or target.subresource else ""
    if method == "DELETE":
        return "delete" if target.name else "deletecollection"
    if not target.name:
        return ""
    return {"PUT": "update", "PATCH": "patch"}.get(method, "")
