"""Just enough OpenAPI for kubectl: which kinds there are, and that PATCH knows ``dryRun`` and ``fieldValidation``.

kubectl asks for the OpenAPI v2 document as protobuf; an empty document makes it fall back to what it has compiled in.
"""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web

from muster.devcluster.errors import no_such_path
from muster.devcluster.kinds import Kind, KindTable
from muster.devcluster.storage import encode

_TITLE, _RELEASE = "Kubernetes", "v1.36.0"
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def v2(accept: str) -> web.Response:
    """The empty Swagger 2.0 document, as JSON or in gnostic's protobuf form."""
    if "protobuf" in accept:
        info = _field(1, _TITLE.encode()) + _field(2, _RELEASE.encode())
        document = _field(1, b"2.0") + _field(2, info) + _field(8, b"")
        return web.Response(body=document, headers={"Content-Type": _PROTOBUF})
    info_json = {"title": _TITLE, "version": _RELEASE}
    body = encode({"swagger": "2.0", "info": info_json, "paths": {}, "definitions": {}})
    return web.Response(body=body, headers={"Content-Type": "application/json"})


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field; everything here is shorter than 128 bytes."""
    return bytes((number << 3 | 2, len(data))) + data


def v3_index(kinds: KindTable) -> dict[str, Any]:
    paths = ["api/v1", *(f"apis/{g}/{v}" for g, versions in kinds.group_versions().items() for v in versions)]
    digest = hashlib.sha256(f"{kinds.revision}".encode()).hexdigest()[:16]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"} for path in paths}}


def v3(kinds: KindTable, path: str) -> dict[str, Any]:
    """The document of one group and version. Raises 404."""
    parts = path.split("/")
    group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2]) if len(parts) > 2 else ("", "")
    members = kinds.in_group(group, version)
    if not members:
        raise no_such_path()
    paths = {_path(kind, path): _operations(kind) for kind in members}
    return {"openapi": "3.0.0", "info": {"title": _TITLE, "version": _RELEASE}, "paths": paths}


def _path(kind: Kind, prefix: str) -> str:
    scope = "namespaces/{namespace}/" if kind.namespaced else ""
    return f"/{prefix}/{scope}{kind.plural}/{{name}}"


def _operations(kind: Kind) -> dict[str, Any]:
    type_name = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    names = ("dryRun", "fieldManager", "fieldValidation", "force")
    parameters = [{"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in names]
    patch = {
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": type_name,
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    }
    return {"patch": patch}
