"""The volumes of a pod as folders: which objects they need, and which files those become. Pure.

Sources: Kubernetes ``pkg/volume/{configmap,secret,projected,downwardapi}``. Unlike the kubelet, ``subPath`` mounts and
file owners are not followed, and a claim is a folder of the machine, made on first use.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Object = Mapping[str, Any]

SERVICE_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
"""Life of a projected token by default (``kube-api-access`` volumes)."""


class UnsupportedVolumeError(Exception):
    """A kind of volume that this kubelet cannot give; the text names it."""


class ObjectKey(msgspec.Struct, frozen=True, order=True):
    """An object of the pod's namespace that a volume needs."""

    kind: str
    """``ConfigMap`` or ``Secret``."""
    name: str
    optional: bool = False


class TokenKey(msgspec.Struct, frozen=True, order=True):
    """A token that a projected volume needs."""

    audience: str = ""
    seconds: int = TOKEN_SECONDS


class Sources(msgspec.Struct, frozen=True):
    """What was fetched: contents by kind and name (``None``: optional and absent), tokens by request."""

    objects: dict[tuple[str, str], dict[str, bytes] | None] = {}
    tokens: dict[TokenKey, bytes] = {}


def contents(kind: str, obj: Object) -> dict[str, bytes]:
    """The data of a ConfigMap or Secret by key."""
    data = obj.get("data") or {}
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in data.items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in data.items()} | binary


def needed_objects(pod: Object) -> list[ObjectKey]:
    """Every ConfigMap and Secret that the pod's volumes, ``envFrom`` and ``valueFrom`` name."""
    keys = {key for volume in pod["spec"].get("volumes") or () for key in _volume_objects(volume)}
    for container in pod["spec"]["containers"]:
        keys |= set(_environment_objects(container))
    return sorted(keys)


def needed_tokens(pod: Object) -> list[TokenKey]:
    return sorted(
        {
            _token_key(source["serviceAccountToken"])
            for volume in pod["spec"].get("volumes") or ()
            for source in (volume.get("projected") or {}).get("sources") or ()
            if "serviceAccountToken" in source
        }
    )


def files_of(volume: Object, pod: Object, sources: Sources) -> dict[str, bytes] | None:
    """Relative path → content of a volume; ``None`` for one that is an empty or existing folder.

    Raises ``KeyError`` for a key that its ConfigMap or Secret does not hold, ``UnsupportedVolumeError``.
    """
    if (source := volume.get("configMap")) is not None:
        return _selected(source, "ConfigMap", source["name"], sources)
    if (source := volume.get("secret")) is not None:
        return _selected(source, "Secret", source["secretName"], sources)
    if (source := volume.get("downwardAPI")) is not None:
        return _downward(source, pod)
    if (source := volume.get("projected")) is not None:
        files: dict[str, bytes] = {}
        for part in source.get("sources") or ():
            files |= _projected(part, pod, sources)
        return files
    if any(kind in volume for kind in ("emptyDir", "hostPath", "persistentVolumeClaim", "ephemeral")):
        return None
    kinds = ", ".join(key for key in volume if key != "name")
    raise UnsupportedVolumeError(f"volume {volume['name']!r} is of kind {kinds}, which processes cannot be given")


def field(pod: Object, path: str) -> str:
    """The value of a ``fieldRef`` (``pkg/fieldpath``). Raises ``ValueError`` for a path that Kubernetes knows not."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    plain = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    if path in plain:
        return str(plain[path])
    for name in ("labels", "annotations"):
        values: dict[str, str] = metadata.get(name) or {}
        if path == f"metadata.{name}":
            return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
        if path.startswith(f"metadata.{name}['") and path.endswith("']"):
            return values.get(path[len(f"metadata.{name}['") : -2], "")
    raise ValueError(f"fieldRef {path!r} is no field that pods can refer to")


def _volume_objects(volume: Object) -> Iterator[ObjectKey]:
    if (source := volume.get("configMap")) is not None:
        yield ObjectKey("ConfigMap", source["name"], bool(source.get("optional")))
    elif (source := volume.get("secret")) is not None:
        yield ObjectKey("Secret", source["secretName"], bool(source.get("optional")))
    for part in (volume.get("projected") or {}).get("sources") or ():
        for field_name, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if (source := part.get(field_name)) is not None:
                yield ObjectKey(kind, source["name"], bool(source.get("optional")))


def _environment_objects(container: Object) -> Iterator[ObjectKey]:
    for entry in container.get("envFrom") or ():
        for field_name, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if (source := entry.get(field_name)) is not None:
                yield ObjectKey(kind, source["name"], bool(source.get("optional")))
    for entry in container.get("env") or ():
        for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if (source := (entry.get("valueFrom") or {}).get(field_name)) is not None:
                yield ObjectKey(kind, source["name"], bool(source.get("optional")))


def _token_key(source: Object) -> TokenKey:
    return TokenKey(source.get("audience", ""), int(source.get("expirationSeconds", TOKEN_SECONDS)))


def _selected(source: Object, kind: str, name: str, sources: Sources) -> dict[str, bytes]:
    """All keys, or the ``items`` under their paths."""
    data = sources.objects[kind, name]
    if data is None:
        return {}
    if not (items := source.get("items")):
        return dict(data)
    files = {}
    for item in items:
        if item["key"] in data:
            files[_inside(item["path"])] = data[item["key"]]
        elif not source.get("optional"):
            raise KeyError(f"{kind} {name!r} has no key {item['key']!r}")
    return files


def _projected(part: Object, pod: Object, sources: Sources) -> dict[str, bytes]:
    if (source := part.get("serviceAccountToken")) is not None:
        return {_inside(source["path"]): sources.tokens[_token_key(source)]}
    if (source := part.get("configMap")) is not None:
        return _selected(source, "ConfigMap", source["name"], sources)
    if (source := part.get("secret")) is not None:
        return _selected(source, "Secret", source["name"], sources)
    if (source := part.get("downwardAPI")) is not None:
        return _downward(source, pod)
    raise UnsupportedVolumeError(f"projected source {', '.join(part)} cannot be given to processes")


def _downward(source: Object, pod: Object) -> dict[str, bytes]:
    return {
        _inside(item["path"]): field(pod, item["fieldRef"]["fieldPath"]).encode()
        for item in source.get("items") or ()
        if item.get("fieldRef")
    }


def _inside(path: str) -> str:
    """The path, if it stays in its volume, as the API server's validation demands."""
    if path.startswith("/") or ".." in path.split("/"):
        raise UnsupportedVolumeError(f"path {path!r} leads out of its volume")
    return path
