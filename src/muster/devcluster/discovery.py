"""Discovery documents: plain (``APIResourceList``) and aggregated (``APIGroupDiscoveryList`` v2)."""

from __future__ import annotations

from typing import Any

from muster.devcluster.errors import no_such_path
from muster.devcluster.kinds import Kind, KindTable

VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0+muster",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
# group, version, kind of subresources whose body is not the parent's kind
SUBRESOURCE_KINDS = {
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}
SUBRESOURCE_VERBS = {
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
    "log": ("get",),
    "finalize": ("update",),
}


def verbs_of(kind: Kind) -> tuple[str, ...]:
    return ("create",) if kind.create_only else ALL_VERBS


def core_versions(address: str) -> dict[str, Any]:
    pairs = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": pairs}


def group_list(kinds: KindTable) -> dict[str, Any]:
    groups = [_group(group, versions) for group, versions in kinds.group_versions().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(kinds: KindTable, name: str) -> dict[str, Any]:
    """One API group. Raises 404."""
    versions = kinds.group_versions().get(name)
    if versions is None:
        raise no_such_path()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def resource_list(kinds: KindTable, group_name: str, version: str) -> dict[str, Any]:
    """The resources of one group and version. Raises 404."""
    members = kinds.in_group(group_name, version)
    if not members:
        raise no_such_path()
    resources: list[dict[str, Any]] = []
    for kind in members:
        entry = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(verbs_of(kind)),
        }
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        resources.append(entry)
        for subresource in kind.subresources:
            group_of, version_of, kind_of = SUBRESOURCE_KINDS.get(subresource, (kind.group, kind.version, kind.kind))
            sub = {
                "name": f"{kind.plural}/{subresource}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind_of,
                "verbs": list(SUBRESOURCE_VERBS.get(subresource, ("get", "patch", "update"))),
            }
            if (group_of, version_of) != (kind.group, kind.version):
                sub |= {"group": group_of, "version": version_of}
            resources.append(sub)
    group_version = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def aggregated(kinds: KindTable, *, core: bool) -> dict[str, Any]:
    """All groups (or the core group alone) in one document."""
    groups = {"": ["v1"]} if core else kinds.group_versions()
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_aggregated_kind(kind) for kind in kinds.in_group(name, version)],
                }
                for version in versions
            ],
        }
        for name, versions in groups.items()
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_kind(kind: Kind) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(verbs_of(kind)),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    subresources = []
    for subresource in kind.subresources:
        group_of, version_of, kind_of = SUBRESOURCE_KINDS.get(subresource, (kind.group, kind.version, kind.kind))
        response = {"group": group_of, "version": version_of, "kind": kind_of}
        verbs = list(SUBRESOURCE_VERBS.get(subresource, ("get", "patch", "update")))
        subresources.append({"subresource": subresource, "responseKind": response, "verbs": verbs})
    if subresources:
        entry["subresources"] = subresources
    return entry
