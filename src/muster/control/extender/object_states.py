"""States of one API object: which of two is newer, and what becomes of theirs and ours. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from muster.kube.objects import KubeStruct, ObjectMeta

T = TypeVar("T", bound=KubeStruct)
Key = tuple[str, str]
"""Namespace and name."""

QUEUES = 5
"""Workers that the archived scheduler had for each resource."""


def queue_index(namespace: str, name: str, queues: int = QUEUES) -> int:
    """The queue that the archived scheduler would have put an object's writes in: 32-bit FNV-1a over both names.

    Only metrics still have it, as the tag ``queueindex``.
    """
    value = 0x811C9DC5
    for byte in (namespace + name).encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value % queues


def ours_on_top(theirs: T, ours: T) -> T:
    """Our content under their metadata; labels, annotations and owners of ours on top of theirs."""
    base, mine = metadata_of(theirs), metadata_of(ours)
    metadata = msgspec.structs.replace(
        base,
        labels={**base.labels, **mine.labels},
        annotations={**base.annotations, **mine.annotations},
        owner_references=mine.owner_references or base.owner_references,
    )
    return msgspec.structs.replace(ours, metadata=metadata)


def key_of(value: KubeStruct) -> Key:
    metadata = metadata_of(value)
    return metadata.namespace, metadata.name


def metadata_of(value: KubeStruct) -> ObjectMeta:
    return value.metadata  # type: ignore[attr-defined, no-any-return]


def as_state_of(value: T, metadata: ObjectMeta) -> T:
    """``value`` as a state of the object that ``metadata`` is of."""
    mine = msgspec.structs.replace(
        metadata_of(value), resource_version=metadata.resource_version, uid=metadata.uid or metadata_of(value).uid
    )
    return msgspec.structs.replace(value, metadata=mine)


def not_yet_created(metadata: ObjectMeta) -> ObjectMeta:
    return msgspec.structs.replace(metadata, resource_version="", uid="")


def spec_of(value: KubeStruct) -> object:
    return value.spec  # type: ignore[attr-defined]


def is_newer(told: str, known: str) -> bool:
    """Within a resource, resourceVersions are numbers that grow (KEP-5504); what is no number is taken for newer."""
    if told.isdigit() and known.isdigit():
        return int(told) > int(known)
    return bool(told) and told != known
