"""Which lists of the built-in kinds are maps by key, sets, or atomic.

Strategic merge patch and server-side apply both need it. Source: the ``patchStrategy``/``patchMergeKey`` and
``listType``/``listMapKey`` tags in ``k8s.io/api``; for custom resources ``x-kubernetes-list-type`` in their schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec


class Shape(msgspec.Struct, frozen=True):
    """How one field merges.

    ``keys`` set: a list of maps with these keys (``patch_key`` is the one strategic merge uses). ``unique``: a list
    that is a set. ``atomic``: replaced whole by server-side apply. Neither: a map merges, a list is replaced.
    """

    fields: Mapping[str, Shape] = {}
    keys: tuple[str, ...] = ()
    patch_key: str = ""
    unique: bool = False
    atomic: bool = False
    any_field: Shape | None = None

    def at(self, field: str) -> Shape:
        return self.fields.get(field) or self.any_field or PLAIN

    @property
    def merge_key(self) -> str:
        return self.patch_key or (self.keys[0] if self.keys else "")

    def with_fields(self, **fields: Shape) -> Self:
        return msgspec.structs.replace(self, fields={**self.fields, **fields})


PLAIN = Shape()
SET = Shape(unique=True)
ATOMIC = Shape(atomic=True)
NAMED = Shape(keys=("name",))
CONDITIONS = Shape(keys=("type",))


def _by(*keys: str, patch_key: str = "", **fields: Shape) -> Shape:
    return Shape(fields, keys, patch_key)


METADATA = Shape({"ownerReferences": _by("uid"), "finalizers": SET})
SELECTOR = Shape(atomic=True)
CONTAINER = _by(
    "name",
    env=_by("name"),
    ports=_by("containerPort", "protocol", patch_key="containerPort"),
    volumeMounts=_by("mountPath"),
    volumeDevices=_by("devicePath"),
    resizePolicy=ATOMIC,
    resources=Shape({"claims": NAMED}),
)
VOLUME = Shape(
    {"projected": Shape({"sources": ATOMIC}), "configMap": Shape({"items": ATOMIC})},
    ("name",),
)
POD_SPEC = Shape(
    {
        "containers": CONTAINER,
        "initContainers": CONTAINER,
        "ephemeralContainers": CONTAINER,
        "volumes": VOLUME,
        "imagePullSecrets": NAMED,
        "hostAliases": _by("ip"),
        "schedulingGates": NAMED,
        "topologySpreadConstraints": _by("topologyKey", "whenUnsatisfiable", patch_key="topologyKey"),
        "resourceClaims": NAMED,
        "tolerations": ATOMIC,
        "nodeSelector": ATOMIC,
        "securityContext": Shape({"sysctls": ATOMIC}),
    }
)
POD_STATUS = Shape(
    {
        "conditions": CONDITIONS,
        "podIPs": _by("ip"),
        "hostIPs": ATOMIC,
        "containerStatuses": ATOMIC,
        "initContainerStatuses": ATOMIC,
    }
)
TEMPLATE = Shape({"metadata": METADATA, "spec": POD_SPEC})
WORKLOAD = Shape(
    {
        "metadata": METADATA,
        "spec": Shape({"template": TEMPLATE, "selector": SELECTOR}),
        "status": Shape({"conditions": CONDITIONS}),
    }
)
WEBHOOKS = Shape({"metadata": METADATA, "webhooks": NAMED})

NODE = Shape(
    {
        "metadata": METADATA,
        "spec": Shape({"taints": ATOMIC, "podCIDRs": SET}),
        "status": Shape({"conditions": CONDITIONS, "addresses": Shape(keys=("type",)), "images": ATOMIC}),
    }
)
SERVICE = Shape(
    {
        "metadata": METADATA,
        "spec": Shape({"ports": _by("port", "protocol", patch_key="port"), "selector": ATOMIC}),
        "status": Shape({"conditions": CONDITIONS}),
    }
)
SECRETS = Shape({"metadata": METADATA, "secrets": NAMED, "imagePullSecrets": ATOMIC})
GENERIC = Shape({"metadata": METADATA, "status": Shape({"conditions": CONDITIONS})})

SHAPES: dict[str, Shape] = {
    "Pod": Shape({"metadata": METADATA, "spec": POD_SPEC, "status": POD_STATUS}),
    "Node": NODE,
    "Service": SERVICE,
    "ServiceAccount": SECRETS,
    "Deployment": WORKLOAD,
    "StatefulSet": WORKLOAD,
    "ReplicaSet": WORKLOAD,
    "DaemonSet": WORKLOAD,
    "Job": WORKLOAD,
    "MutatingWebhookConfiguration": WEBHOOKS,
    "ValidatingWebhookConfiguration": WEBHOOKS,
}


def shape_of(kind: str) -> Shape:
    """How objects of a built-in kind merge."""
    return SHAPES.get(kind, GENERIC)


def shape_of_custom(schema: Mapping[str, Any]) -> Shape:
    """How custom resources with this structural schema merge."""
    shape = _from_schema(schema)
    return shape.with_fields(metadata=METADATA)


def _from_schema(schema: Mapping[str, Any]) -> Shape:
    fields = {name: _from_schema(part) for name, part in (schema.get("properties") or {}).items()}
    extra = schema.get("additionalProperties")
    any_field = _from_schema(extra) if isinstance(extra, Mapping) else None
    list_type = schema.get("x-kubernetes-list-type")
    items = schema.get("items") or {}
    if list_type == "map":
        return Shape(_from_schema(items).fields, tuple(schema.get("x-kubernetes-list-map-keys") or ()))
    if list_type == "set":
        return SET
    atomic = schema.get("x-kubernetes-map-type") == "atomic" or schema.get("type") == "array"
    return Shape(fields, atomic=atomic, any_field=any_field)
