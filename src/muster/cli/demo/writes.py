"""API writes that the pods of Spark cost, as the API server counts requests (its audit counters)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from muster.spark.names import GROUP

_OF_CUSTOM_RESOURCES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_OF_PODS = frozenset({"create", "update", "patch"})


class Request(msgspec.Struct, frozen=True):
    """How often the API server was asked this, successfully."""

    verb: str
    resource: str
    """Plural, with the group and subresource: ``pods/binding``, ``gangs.muster.dev/status``."""
    count: int


class Writes(msgspec.Struct, frozen=True):
    created: int
    """Pods created."""
    total: int
    """Pod creates, bindings, updates and patches, and all writes of custom resources of ``muster.dev``.

    Not counted: what kubelets write (``pods/status``), deletes of pods, Spark's services and ConfigMaps, Events.
    """

    @property
    def per_pod(self) -> float:
        return self.total / self.created if self.created else 0.0


def count_writes(requests: Iterable[Request]) -> Writes:
    created = total = 0
    for request in requests:
        name, _, subresource = request.resource.partition("/")
        if name == "pods":
            if request.verb == "create" and not subresource:
                created += request.count
            if (request.verb in _OF_PODS and not subresource) or subresource == "binding":
                total += request.count
        elif name.endswith(f".{GROUP}") and request.verb in _OF_CUSTOM_RESOURCES:
            total += request.count
    return Writes(created, total)
