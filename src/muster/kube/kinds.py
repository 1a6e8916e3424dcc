"""Which API resource is meant, and the struct its objects decode to."""

from __future__ import annotations

from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from muster.kube.objects import ConfigMap, Event, Lease, Node, Pod, Secret

T = TypeVar("T")
U = TypeVar("U")


class Resource(msgspec.Struct, Generic[T], frozen=True):
    """A resource of the API (group, version, plural), e.g. pods; ``object`` is what its objects decode to."""

    group: str
    """"" for the core group."""
    version: str
    plural: str
    kind: str
    object: type[T]
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def decoding_to(self, object_type: type[U]) -> Resource[U]:
        """The same resource, decoded to another struct (or to ``dict`` for the whole object)."""
        return Resource(self.group, self.version, self.plural, self.kind, object_type, self.namespaced)

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path; without ``namespace`` a namespaced resource is addressed across all namespaces."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/" + "/".join(quote(part, safe=":") for part in parts)


PODS = Resource("", "v1", "pods", "Pod", Pod)
NODES = Resource("", "v1", "nodes", "Node", Node, namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", ConfigMap)
SECRETS = Resource("", "v1", "secrets", "Secret", Secret)
EVENTS = Resource("", "v1", "events", "Event", Event)
SERVICE_ACCOUNTS = Resource[dict[str, Any]]("", "v1", "serviceaccounts", "ServiceAccount", dict)
NAMESPACES = Resource[dict[str, Any]]("", "v1", "namespaces", "Namespace", dict, namespaced=False)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", Lease)
CUSTOM_RESOURCE_DEFINITIONS = Resource[dict[str, Any]](
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", dict, namespaced=False
)
MUTATING_WEBHOOKS = Resource[dict[str, Any]](
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    dict,
    namespaced=False,
)
