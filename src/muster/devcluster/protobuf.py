"""Protobuf request bodies, for the kinds that kubectl's typed commands send that way.

``kubectl create namespace|configmap|secret|serviceaccount|token``, ``kubectl drain`` and ``kubectl auth can-i`` know no
JSON. Field numbers are those of ``generated.proto`` in ``k8s.io/api`` and apimachinery; answers are always JSON.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from muster.devcluster.errors import bad_request, unsupported_media_type
from muster.devcluster.storage import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


class Field(msgspec.Struct, frozen=True):
    """``type``: text, bytes, number, flag, map (text to text), blobs (text to bytes) or a nested message."""

    name: str
    type: str | dict[int, Field] = "text"
    repeated: bool = False


Message = dict[int, Field]

_OWNER: Message = {
    1: Field("kind"),
    3: Field("name"),
    4: Field("uid"),
    5: Field("apiVersion"),
    6: Field("controller", "flag"),
    7: Field("blockOwnerDeletion", "flag"),
}
_METADATA: Message = {
    1: Field("name"),
    2: Field("generateName"),
    3: Field("namespace"),
    5: Field("uid"),
    6: Field("resourceVersion"),
    11: Field("labels", "map"),
    12: Field("annotations", "map"),
    13: Field("ownerReferences", _OWNER, True),
    14: Field("finalizers", "text", True),
}
_META = Field("metadata", _METADATA)
_REFERENCE: Message = {
    1: Field("kind"),
    2: Field("namespace"),
    3: Field("name"),
    4: Field("uid"),
    5: Field("apiVersion"),
    6: Field("resourceVersion"),
    7: Field("fieldPath"),
}
_DELETE_OPTIONS: Message = {
    1: Field("gracePeriodSeconds", "number"),
    2: Field("preconditions", {1: Field("uid"), 2: Field("resourceVersion")}),
    3: Field("orphanDependents", "flag"),
    4: Field("propagationPolicy"),
    5: Field("dryRun", "text", True),
}
_ATTRIBUTES: Message = {
    1: Field("namespace"),
    2: Field("verb"),
    3: Field("group"),
    4: Field("version"),
    5: Field("resource"),
    6: Field("subresource"),
    7: Field("name"),
}
_ACCESS: Message = {
    1: Field("resourceAttributes", _ATTRIBUTES),
    2: Field("nonResourceAttributes", {1: Field("path"), 2: Field("verb")}),
}
_TOKEN: Message = {1: Field("audiences", "text", True), 4: Field("expirationSeconds", "number")}

MESSAGES: dict[str, Message] = {
    "Namespace": {1: _META},
    "ConfigMap": {
        1: _META,
        2: Field("data", "map"),
        3: Field("binaryData", "blobs"),
        4: Field("immutable", "flag"),
    },
    "Secret": {
        1: _META,
        2: Field("data", "blobs"),
        3: Field("type"),
        4: Field("stringData", "map"),
        5: Field("immutable", "flag"),
    },
    "ServiceAccount": {1: _META, 4: Field("automountServiceAccountToken", "flag")},
    "Binding": {1: _META, 2: Field("target", _REFERENCE)},
    "Eviction": {1: _META, 2: Field("deleteOptions", _DELETE_OPTIONS)},
    "DeleteOptions": _DELETE_OPTIONS,
    "TokenRequest": {1: _META, 2: Field("spec", _TOKEN)},
    "SelfSubjectAccessReview": {1: _META, 2: Field("spec", _ACCESS)},
    "SelfSubjectReview": {1: _META},
}


def decode_object(data: bytes) -> Object:
    """The object in a ``runtime.Unknown`` envelope. Raises 400 when malformed, 415 for a kind without a table."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body of the request does not begin as Kubernetes protobuf does")
    envelope = _decode(memoryview(data)[len(_MAGIC) :], _ENVELOPE)
    type_name, raw = envelope.get("typeMeta", {}), envelope.get("raw", b"")
    kind = type_name.get("kind", "")
    message = MESSAGES.get(kind)
    if message is None:
        raise unsupported_media_type(f"{MEDIA_TYPE} of a {kind}", ("application/json", "application/yaml"))
    return {"kind": kind, "apiVersion": type_name.get("apiVersion", ""), **_decode(memoryview(raw), message)}


_ENVELOPE: Message = {1: Field("typeMeta", {1: Field("apiVersion"), 2: Field("kind")}), 2: Field("raw", "bytes")}


def _decode(data: memoryview, message: Message) -> Object:
    decoded: Object = {}
    try:
        for number, value in _fields(data):
            field = message.get(number)
            if field is not None:
                _put(decoded, field, value)
    except (IndexError, TypeError, ValueError):
        raise bad_request("the body of the request is not valid protobuf") from None
    return decoded


def _put(decoded: Object, field: Field, value: Any) -> None:
    if field.type in ("map", "blobs"):
        entry = dict(_fields(value))
        key, item = bytes(entry.get(1, b"")).decode(), bytes(entry.get(2, b""))
        decoded.setdefault(field.name, {})[key] = item.decode() if field.type == "map" else b64encode(item).decode()
        return
    read: Any
    match field.type:
        case "text":
            read = bytes(value).decode()
        case "bytes":
            read = bytes(value)
        case "number":
            read = int(value)
        case "flag":
            read = bool(value)
        case _:
            assert isinstance(field.type, dict)
            read = _decode(value, field.type)
    if field.repeated:
        decoded.setdefault(field.name, []).append(read)
    elif read not in ("", {}):  # empty is absent: Go writes zero values of required fields
        decoded[field.name] = read


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Field numbers and raw values: integers, or the bytes of length-delimited fields."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field is longer than its message")
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire} is not in use by Kubernetes here")


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
