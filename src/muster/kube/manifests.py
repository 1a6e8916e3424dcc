"""Everything to install Muster with, made from code: ``muster manifests`` prints it for ``kubectl apply -f -``."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import msgspec
import yaml

from muster.kube.certificates import SECRET_NAME
from muster.kube.cluster_policies import network_policy, priority_classes
from muster.kube.definitions import gang_definition, queue_definition
from muster.kube.resources import GROUP

Manifest = dict[str, Any]

NAME = "muster"
WEBHOOK_NAME = f"pods.{GROUP}"
WEBHOOK_PATH = "/mutate"
WEBHOOK_TIMEOUT_SECONDS = 5
WEBHOOK_PORT = 8443
MANAGEMENT_PORT = 8484
HISTORY_PATH = "/var/lib/muster/history.db"
"""Of finished applications; the root file system is read-only."""
QUEUES_CONFIG_MAP = f"{NAME}-queues"
QUEUES_FOLDER = "/etc/muster-queues"
"""Where that ConfigMap is mounted, if somebody makes it: a folder of its own, which the kubelet renews as a whole."""
_USER = 65532
"""Any number but root's; the one that minimal images call ``nonroot``."""


class InstallOptions(msgspec.Struct, frozen=True):
    namespace: str = "muster-system"
    image: str = f"spark-muster:{version('spark-muster')}"
    replicas: int = 2
    cpu: str = "1"
    """Requested for each replica. Without a limit: throttling would delay the admission of pods."""
    memory: str = "1Gi"
    """Requested for each replica, and its limit."""
    config: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Further content of ``muster.yaml``; addresses, ports and names are set to fit the manifests."""
    network_policy: bool = False
    priority_classes: bool = False


def manifests(options: InstallOptions | None = None) -> list[Manifest]:
    """In the order in which they can be created."""
    options = options or InstallOptions()
    return [
        _namespace(options),
        *(_labelled(definition) for definition in (gang_definition(), queue_definition())),
        _object("v1", "ServiceAccount", options),
        _cluster_role(),
        _viewer_role(),
        _binding("ClusterRoleBinding", "ClusterRole", options),
        _role(options),
        _binding("RoleBinding", "Role", options),
        _config_map(options),
        _service(options),
        _deployment(options),
        _disruption_budget(options),
        *([_network_policy(options)] if options.network_policy else []),
        *(priority_classes(_labels()) if options.priority_classes else []),
        # last, when there is somebody to answer; without a CA, which the service writes into it
        webhook_configuration(b"", namespace=options.namespace, timeout_seconds=_webhook_timeout(options)),
    ]


def render(options: InstallOptions | None = None) -> str:
    """All manifests as one YAML text of many documents."""
    return to_yaml(manifests(options))


def to_yaml(objects: list[Manifest]) -> str:
    """Documents as people like to read them."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=120)


def webhook_configuration(
    ca_pem: bytes,
    *,
    namespace: str = "muster-system",
    service: str = NAME,
    url: str | None = None,
    timeout_seconds: int = WEBHOOK_TIMEOUT_SECONDS,
) -> Manifest:
    """The admission webhook for Spark's pods. ``url`` (ending in ``/mutate``) instead of the service outside a cluster.

    ``failurePolicy: Ignore``: without Muster, Spark runs by ordinary scheduling.
    """
    where: Manifest = {"url": url} if url else {}
    if not url:
        where["service"] = {"name": service, "namespace": namespace, "path": WEBHOOK_PATH, "port": 443}
    if ca_pem:
        where["caBundle"] = b64encode(ca_pem).decode()
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": _labels()},
        "webhooks": [
            {
                "name": WEBHOOK_NAME,
                "clientConfig": where,
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                        "scope": "Namespaced",
                    }
                ],
                "objectSelector": {
                    "matchExpressions": [{"key": "spark-role", "operator": "In", "values": ["driver", "executor"]}]
                },
                "namespaceSelector": {
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "NotIn",
                            "values": ["kube-system", namespace],
                        }
                    ]
                },
                "matchPolicy": "Equivalent",
                "failurePolicy": "Ignore",
                # The first answer stands in any case, and Kubernetes would ask twice about each pod that is born
                # bound, because it copies the node's topology labels to it (KEP-4742)
                "reinvocationPolicy": "Never",
                "sideEffects": "None",
                "timeoutSeconds": timeout_seconds,
                "admissionReviewVersions": ["v1"],
            }
        ],
    }


def configuration(options: InstallOptions) -> Manifest:
    """The content of ``muster.yaml`` for a replica in the cluster."""
    config = dict(options.config)
    config["namespace"] = options.namespace
    config["webhook"] = {
        "registration": "ca-bundle",
        # until kube-proxy sends a stopping replica nothing more
        "shutdownDelay": "5s",
        **config.get("webhook", {}),
        "host": "0.0.0.0",
        "port": WEBHOOK_PORT,
        "service": NAME,
    }
    peers = f"http://{NAME}:{MANAGEMENT_PORT}"  # the Service: one of the replicas, this one or another
    config["history"] = {"path": HISTORY_PATH, "peers": peers, **config.get("history", {})}
    config["queues"] = {"file": f"{QUEUES_FOLDER}/queues.yaml", **config.get("queues", {})}
    config["management"] = {**config.get("management", {}), "host": "0.0.0.0", "port": MANAGEMENT_PORT}
    return config


def _namespace(options: InstallOptions) -> Manifest:
    # Pod Security Admission: what runs here keeps to the strictest standard
    labels = {**_labels(), "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace, "labels": labels}}


def _labelled(definition: Manifest) -> Manifest:
    return definition | {"metadata": {**definition["metadata"], "labels": _labels()}}


def _cluster_role() -> Manifest:
    """Exactly what ``muster serve`` uses, each rule with its purpose; a test compares it with an audit log."""
    rules = [
        # what runs where, who waits; taking the gate off, pinning and annotating; calling lent room back. Never created
        # or bound
        _rule("", ["pods"], ["list", "watch", "patch", "delete"]),
        # what there is to give
        _rule("", ["nodes"], ["list", "watch"]),
        # a driver's spark.properties: the one that its pod names, never a list
        _rule("", ["configmaps"], ["get"]),
        # telling people on the driver what is wrong with it
        _rule("", ["events"], ["create"]),
        # reservations: read at the start of a term, then written; those of client mode have no driver pod to go with
        _rule(GROUP, ["gangs"], ["list", "create", "patch", "delete"]),
        _rule(GROUP, ["gangs/status"], ["patch"]),
        # who may have what; how much of it they have, and whether what is written there makes sense
        _rule(GROUP, ["queues"], ["list", "watch"]),
        _rule(GROUP, ["queues/status"], ["patch"]),
        # the CA bundle is written into the one that is installed; it is never created, so an uninstalled one stays away
        _rule("admissionregistration.k8s.io", ["mutatingwebhookconfigurations"], ["get", "patch"], [NAME]),
    ]
    return _cluster_object("ClusterRole", NAME) | {"rules": rules}


def _viewer_role() -> Manifest:
    """Whoever may look at pods may look at gangs and queues."""
    role = _cluster_object("ClusterRole", f"{NAME}-view")
    role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] = "true"
    return role | {"rules": [_rule(GROUP, ["gangs", "queues"], ["get", "list", "watch"])]}


def _role(options: InstallOptions) -> Manifest:
    """In Muster's own namespace. RBAC cannot restrict a create to a name."""
    rules = [
        # who of the replicas decides
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"], [NAME]),
        # the webhook's certificate, one for all replicas
        _rule("", ["secrets"], ["create"]),
        _rule("", ["secrets"], ["get", "update"], [SECRET_NAME]),
    ]
    return _object("rbac.authorization.k8s.io/v1", "Role", options) | {"rules": rules}


def _binding(kind: str, role_kind: str, options: InstallOptions) -> Manifest:
    if kind == "ClusterRoleBinding":
        binding = _cluster_object(kind, NAME)
    else:
        binding = _object("rbac.authorization.k8s.io/v1", kind, options)
    return binding | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}],
    }


def _config_map(options: InstallOptions) -> Manifest:
    return _object("v1", "ConfigMap", options) | {"data": {"muster.yaml": _config_text(options)}}


def _config_text(options: InstallOptions) -> str:
    return yaml.safe_dump(configuration(options), sort_keys=False)


def _service(options: InstallOptions) -> Manifest:
    ports = [
        {"name": "webhook", "port": 443, "targetPort": "webhook", "protocol": "TCP"},
        {"name": "management", "port": MANAGEMENT_PORT, "targetPort": "management", "protocol": "TCP"},
    ]
    return _object("v1", "Service", options) | {"spec": {"selector": _labels(), "ports": ports}}


def _deployment(options: InstallOptions) -> Manifest:
    container = {
        "name": NAME,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--config", "/etc/muster/muster.yaml"],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": "webhook", "containerPort": WEBHOOK_PORT},
            {"name": "management", "containerPort": MANAGEMENT_PORT},
        ],
        "readinessProbe": _probe("/readyz", 5, 2),
        "livenessProbe": _probe("/healthz", 10, 6),
        "startupProbe": _probe("/healthz", 2, 60),
        "resources": {
            "requests": {"cpu": options.cpu, "memory": options.memory},
            "limits": {"memory": options.memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/muster", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "history", "mountPath": "/var/lib/muster"},
            {"name": "queues", "mountPath": QUEUES_FOLDER, "readOnly": True},
        ],
    }
    spread = {
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _labels()}},
    }
    pod = {
        "serviceAccountName": NAME,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [spread]}},
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": NAME}},
            # OpenSSL loads certificates from files only; in memory, so that no key reaches a disk
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "history", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "queues", "configMap": {"name": QUEUES_CONFIG_MAP, "optional": True}},
        ],
    }
    # a new configuration rolls the replicas
    annotations = {f"{GROUP}/config-sha256": sha256(_config_text(options).encode()).hexdigest()}
    return _object("apps/v1", "Deployment", options) | {
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": _labels()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": _labels(), "annotations": annotations}, "spec": pod},
        }
    }


def _disruption_budget(options: InstallOptions) -> Manifest:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _labels()}}
    return _object("policy/v1", "PodDisruptionBudget", options) | {"spec": spec}


def _network_policy(options: InstallOptions) -> Manifest:
    metadata = _object("", "", options)["metadata"]
    return network_policy(metadata, _labels(), webhook_port="webhook", management_port="management")


def _webhook_timeout(options: InstallOptions) -> int:
    return int(options.config.get("webhook", {}).get("timeoutSeconds", WEBHOOK_TIMEOUT_SECONDS))


def _probe(path: str, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "management"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> Manifest:
    rule: Manifest = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": names} if names else {})


def _object(api_version: str, kind: str, options: InstallOptions) -> Manifest:
    metadata = {"name": NAME, "namespace": options.namespace, "labels": _labels()}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _cluster_object(kind: str, name: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": _labels()},
    }


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/name": NAME}


class _Dumper(yaml.SafeDumper):
    """Texts of many lines as blocks, and no references to what occurs twice: people read this."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block_text)
