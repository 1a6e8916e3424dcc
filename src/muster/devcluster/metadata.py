"""The life of ``metadata``: names, identity, deletion marks. Source: apiserver ``pkg/registry/rest``."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from muster.devcluster.errors import Cause
from muster.devcluster.selectors import LABEL_KEY, LABEL_VALUE
from muster.devcluster.storage import Object
from muster.kube.clock import Clock, SystemClock

# Without vowels and look-alikes, so that names spell no words (apimachinery pkg/util/rand).
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"

_DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_DNS_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)

KEPT_ON_UPDATE = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


class Origin:
    """What is new in every object: when it was made and what makes it unique. Both repeatable under a virtual clock."""

    def __init__(self, clock: Clock | None = None, luck: random.Random | None = None) -> None:
        self._clock = clock or SystemClock()
        self._random = luck or random.SystemRandom()

    def timestamp(self, seconds: float = 0.0) -> str:
        """That many seconds from now, as the API writes it."""
        return f"{datetime.fromtimestamp(self._clock.time() + seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"

    def uid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def name(self, prefix: str) -> str:
        """A generated name."""
        return prefix[:58] + "".join(self._random.choices(_ALPHABET, k=5))


def is_dns_label(name: str) -> bool:
    return bool(_DNS_LABEL.match(name))


def is_dns_subdomain(name: str) -> bool:
    return len(name) <= 253 and bool(_DNS_SUBDOMAIN.match(name))


def begin(obj: Object, origin: Origin) -> None:
    """Gives a new object its identity; what a client may not choose is overwritten."""
    metadata = obj["metadata"]
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"):
        metadata.pop(key, None)
    if not metadata.get("name"):
        metadata["name"] = origin.name(metadata["generateName"])
    metadata["uid"] = origin.uid()
    metadata["creationTimestamp"] = origin.timestamp()


def carry_over(new: Object, old: Object) -> None:
    """On update, what only the server may change stays as it was."""
    metadata, before = new["metadata"], old["metadata"]
    for key in KEPT_ON_UPDATE:
        if key in before:
            metadata[key] = before[key]
        else:
            metadata.pop(key, None)
    for key in ("generateName",):
        if key in before:
            metadata.setdefault(key, before[key])


def drop_empty(metadata: dict[str, Any]) -> None:
    """Empty maps and lists and nulls are absent in the API's own encoding of metadata."""
    for key in [key for key, value in metadata.items() if value is None or value == {} or value == []]:
        del metadata[key]


def is_being_deleted(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def name_causes(kind: str, obj: Mapping[str, Any]) -> list[Cause]:
    """Whether the name is one that this kind may have."""
    metadata = obj["metadata"]
    name = metadata.get("name") or ""
    if not name:
        return [Cause("FieldValueRequired", "Required value: name or generateName is required", "metadata.name")]
    if kind in ("Namespace",):
        valid, message = is_dns_label(name), LABEL_MESSAGE
    elif kind == "Service":
        valid, message = bool(_DNS_1035.match(name)) or is_dns_label(name), LABEL_MESSAGE
    elif kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
        valid, message = name not in (".", "..") and not set("/%") & set(name), "may not contain '/' or '%'"
    else:
        valid, message = is_dns_subdomain(name), SUBDOMAIN_MESSAGE
    return [] if valid else [Cause("FieldValueInvalid", f'Invalid value: "{name}": {message}', "metadata.name")]


def map_causes(metadata: Mapping[str, Any]) -> list[Cause]:
    """Labels, annotations, finalizers and owner references that are not well-formed."""
    causes: list[Cause] = []
    for key, value in (metadata.get("labels") or {}).items():
        if not LABEL_KEY.match(key):
            causes.append(Cause("FieldValueInvalid", f'Invalid value: "{key}": name part is malformed', _LABELS))
        if not isinstance(value, str) or not LABEL_VALUE.match(value):
            said = (
                f"Invalid value: {value!r}: a valid label must be an empty string or consist of alphanumeric characters"
            )
            causes.append(Cause("FieldValueInvalid", said, _LABELS))
    annotations = metadata.get("annotations") or {}
    size = 0
    for key, value in annotations.items():
        if not LABEL_KEY.match(key.lower()):
            field = "metadata.annotations"
            causes.append(Cause("FieldValueInvalid", f'Invalid value: "{key}": name part is malformed', field))
        size += len(key) + len(str(value))
    if size > 256 * 1024:
        causes.append(Cause("FieldValueTooLong", "Too long: may not be more than 262144 bytes", "metadata.annotations"))
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                field = f"metadata.ownerReferences[{index}].{key}"
                causes.append(Cause("FieldValueInvalid", f'Invalid value: "": {key} must not be empty', field))
    controllers = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    if len(controllers) > 1:
        said = "Only one reference can have Controller set to true"
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {said}", "metadata.ownerReferences"))
    return causes


_LABELS = "metadata.labels"
