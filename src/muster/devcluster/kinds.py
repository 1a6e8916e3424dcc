"""The kinds the API serves: the built-in ones, and the table that custom resources join and leave."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
)
REGARDING_FIELDS = tuple(field.replace("involvedObject", "regarding") for field in EVENT_FIELDS)


class Kind(msgspec.Struct, frozen=True):
    """One resource in one version. ``storage`` names the collection: versions of one resource share it.

    ``fields`` are the field selectors beyond ``metadata.name`` and ``metadata.namespace``; ``generation`` says whether
    ``metadata.generation`` counts changes of the spec; ``returns_deleted`` whether DELETE answers with the object.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    storage: str = ""
    generation: bool = False
    returns_deleted: bool = False
    custom: bool = False
    singular_name: str = ""
    create_only: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def collection(self) -> str:
        return self.storage or (f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def singular(self) -> str:
        return self.singular_name or self.kind.lower()

    @property
    def resource(self) -> str:
        """``pods``, ``leases.coordination.k8s.io``: group-qualified, as error messages and audit counters have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


STATUS = ("status",)
RBAC = "rbac.authorization.k8s.io"
CRD_GROUP = "apiextensions.k8s.io"
HOOKS_GROUP = "admissionregistration.k8s.io"

BUILT_IN: tuple[Kind, ...] = (
    Kind(
        "", "v1", "namespaces", "Namespace", False, ("ns",), (), ("status", "finalize"), ("status.phase",),
        returns_deleted=True,
    ),
    Kind(
        "", "v1", "pods", "Pod", True, ("po",), ("all",),
        ("status", "binding", "eviction", "log", "ephemeralcontainers", "resize"), POD_FIELDS,
        generation=True, returns_deleted=True,
    ),
    Kind("", "v1", "nodes", "Node", False, ("no",), (), STATUS, ("spec.unschedulable",)),
    Kind("", "v1", "services", "Service", True, ("svc",), ("all",), STATUS, ("spec.clusterIP", "spec.type"),
         returns_deleted=True),
    Kind("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    Kind("", "v1", "secrets", "Secret", fields=("type",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), (), ("token",), returns_deleted=True),
    Kind("", "v1", "events", "Event", True, ("ev",), fields=EVENT_FIELDS, storage="events"),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), (), STATUS,
         returns_deleted=True),
    Kind("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), (), STATUS, returns_deleted=True),
    Kind("", "v1", "endpoints", "Endpoints", True, ("ep",)),
    Kind("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), (), STATUS, returns_deleted=True),
    Kind("", "v1", "limitranges", "LimitRange", True, ("limits",)),
    Kind("events.k8s.io", "v1", "events", "Event", True, ("ev",), fields=REGARDING_FIELDS, storage="events"),
    Kind("apps", "v1", "deployments", "Deployment", True, ("deploy",), ("all",), STATUS, generation=True),
    Kind("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), ("all",), STATUS, generation=True),
    Kind("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), ("all",), STATUS, generation=True),
    Kind("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ("all",), STATUS, generation=True),
    Kind("batch", "v1", "jobs", "Job", True, (), ("all",), STATUS, generation=True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), generation=True),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), (), STATUS, generation=True),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",), generation=True),
    Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, ("sc",)),
    Kind("storage.k8s.io", "v1", "csinodes", "CSINode", False),
    Kind("storage.k8s.io", "v1", "csidrivers", "CSIDriver", False),
    Kind(RBAC, "v1", "roles", "Role"),
    Kind(RBAC, "v1", "rolebindings", "RoleBinding"),
    Kind(RBAC, "v1", "clusterroles", "ClusterRole", False),
    Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Kind(HOOKS_GROUP, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False, generation=True),
    Kind(
        HOOKS_GROUP, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False,
        generation=True,
    ),
    Kind(CRD_GROUP, "v1", "customresourcedefinitions", "CustomResourceDefinition", False, ("crd", "crds"),
         ("api-extensions",), STATUS, generation=True),
    Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False, create_only=True),
    Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False, create_only=True),
    Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False,
         create_only=True),
    Kind("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False, create_only=True),
)  # fmt: skip


class KindTable:
    """Which kinds are served now. ``revision`` changes with every change, for caches of documents made from it."""

    def __init__(self, kinds: tuple[Kind, ...] = BUILT_IN) -> None:
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self.revision = 0
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        self._by_path[(kind.group, kind.version, kind.plural)] = kind
        self.revision += 1

    def remove(self, kind: Kind) -> None:
        self._by_path.pop((kind.group, kind.version, kind.plural), None)
        self.revision += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def in_group(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self._by_path.values() if kind.group == group and kind.version == version]

    def group_versions(self) -> dict[str, list[str]]:
        """Versions per named group, in order of appearance; the core group is not among them."""
        groups: dict[str, list[str]] = {}
        for kind in self._by_path.values():
            if kind.group:
                versions = groups.setdefault(kind.group, [])
                if kind.version not in versions:
                    versions.append(kind.version)
        return groups

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._by_path.values()))
