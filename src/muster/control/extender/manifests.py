"""Everything to run the drop-in with: ``muster manifests --extender``. Named as in the archived scheduler's example,
so that applying it replaces that one; a kube-scheduler and the extender side by side in each replica. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import msgspec
import yaml

from muster.control.extender.definitions import DEMANDS_NAME, RESERVATIONS_NAME
from muster.control.extender.demands import GROUP as DEMANDS_GROUP
from muster.control.extender.reservations import GROUP as RESERVATIONS_GROUP
from muster.kube.manifests import Manifest

NAME = "spark-scheduler"
EXTENDER = "spark-scheduler-extender"
CONTEXT = "/spark-scheduler"
PORT = 8483
MANAGEMENT_PORT = 8484
KUBE_SCHEDULER_PORT = 10259
TLS_SECRET = "spark-scheduler-tls"
_TLS = "/etc/spark-scheduler/tls"
_CONFIG = "/etc/spark-scheduler/conf"
_USER = 65532
_RBAC = "rbac.authorization.k8s.io"
_LABELS = {"app": NAME, "app.kubernetes.io/name": NAME}


class ExtenderOptions(msgspec.Struct, frozen=True):
    namespace: str = "spark"
    image: str = f"spark-muster:{version('spark-muster')}"
    kube_scheduler_image: str = "registry.k8s.io/kube-scheduler:v1.36.3"
    """Of the cluster's own version."""
    replicas: int = 2
    cpu: str = "1"
    memory: str = "1Gi"
    """Requested for the extender, and its limit."""
    install: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"fifo": True})
    """Content of ``install.yml``; ports, files and the conversion's service are set to fit."""


def extender_manifests(options: ExtenderOptions | None = None) -> list[Manifest]:
    """In the order in which they can be created. The Secret ``spark-scheduler-tls`` (``tls.crt``, ``tls.key``,
    ``ca.crt``) is somebody else's: cert-manager's, or made by hand.
    """
    options = options or ExtenderOptions()
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace}},
        _object("v1", "ServiceAccount", options),
        extender_role(),
        _binding(options, EXTENDER, EXTENDER),
        # the kube-scheduler beside it, which runs as the same account
        *(_binding(options, f"{NAME}-{short}", f"system:{short}") for short in ("kube-scheduler", "volume-scheduler")),
        _authentication_reader(options),
        _lease_role(options),
        _object(f"{_RBAC}/v1", "RoleBinding", options) | _of_account("Role", NAME, options),
        _config_map(options),
        _service(options),
        _deployment(options),
        _disruption_budget(options),
    ]


def extender_role() -> Manifest:
    """Exactly what the extender uses, each rule with its purpose; a test compares it with an audit log."""
    rules = [
        # what there is to give
        _rule("", ["nodes"], ["list", "watch"]),
        # who waits and what runs where; asking kube-scheduler to try again (an annotation). Never created or deleted
        _rule("", ["pods"], ["list", "watch", "patch"]),
        # drivers that exceed the cluster are marked by a condition
        _rule("", ["pods/status"], ["patch"]),
        # telling people on the driver what is wrong with it
        _rule("", ["events"], ["create"]),
        _rule(RESERVATIONS_GROUP, ["resourcereservations"], ["get", "list", "watch", "create", "update", "delete"]),
        _rule(DEMANDS_GROUP, ["demands"], ["get", "list", "watch", "create", "update", "delete"]),
        # both definitions are installed at start, that of reservations is kept up to date. A create has no name to RBAC
        _rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["create"]),
        _rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["get"], [RESERVATIONS_NAME, DEMANDS_NAME]),
        _rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["update"], [RESERVATIONS_NAME]),
    ]
    return _cluster_object("ClusterRole", EXTENDER) | {"rules": rules}


def install_document(options: ExtenderOptions) -> dict[str, Any]:
    """The content of ``install.yml``."""
    server = {
        **options.install.get("server", {}),
        "port": PORT,
        "management-port": MANAGEMENT_PORT,
        "context-path": CONTEXT,
        "cert-file": f"{_TLS}/tls.crt",
        "key-file": f"{_TLS}/tls.key",
        "client-ca-files": [f"{_TLS}/ca.crt"],
    }
    webhook = {"namespace": options.namespace, "service-name": NAME, "service-port": 443}
    # inside the cluster it has the rights of its service account
    rest = {key: value for key, value in options.install.items() if key != "kube-config"}
    return {**rest, "server": server, "webhook-service-config": webhook}


def kube_scheduler_configuration(options: ExtenderOptions) -> dict[str, Any]:
    """As docs/migrating-from-palantir.md explains it."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": True, "resourceName": NAME, "resourceNamespace": options.namespace},
        "profiles": [
            {
                "schedulerName": NAME,
                "percentageOfNodesToScore": 100,
                "plugins": {"postFilter": {"disabled": [{"name": "DefaultPreemption"}]}},
            }
        ],
        "extenders": [
            {
                "urlPrefix": f"https://localhost:{PORT}{CONTEXT}",
                "filterVerb": "predicates",
                "enableHTTPS": True,
                "tlsConfig": {"caFile": f"{_TLS}/ca.crt"},
                "nodeCacheCapable": True,
                "ignorable": False,
                "httpTimeout": "30s",
            }
        ],
    }


def _authentication_reader(options: ExtenderOptions) -> Manifest:
    """kube-scheduler checks who asks for its metrics."""
    binding = _cluster_object("RoleBinding", f"{NAME}-authentication-reader")
    binding["metadata"]["namespace"] = "kube-system"
    return binding | _of_account("Role", "extension-apiserver-authentication-reader", options)


def _lease_role(options: ExtenderOptions) -> Manifest:
    """Which kube-scheduler leads, and so whose extender is asked."""
    rules = [
        _rule("coordination.k8s.io", ["leases"], ["create"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "update"], [NAME]),
    ]
    return _object(f"{_RBAC}/v1", "Role", options) | {"rules": rules}


def _config_map(options: ExtenderOptions) -> Manifest:
    return _object("v1", "ConfigMap", options) | {"data": _files(options)}


def _files(options: ExtenderOptions) -> dict[str, str]:
    return {
        "install.yml": yaml.safe_dump(install_document(options), sort_keys=False),
        "kube-scheduler.yaml": yaml.safe_dump(kube_scheduler_configuration(options), sort_keys=False),
    }


def _service(options: ExtenderOptions) -> Manifest:
    """The API server's way to ``/convert``, and the way to metrics; kube-scheduler's calls stay in the pod."""
    ports = [
        {"name": "convert", "port": 443, "targetPort": "extender", "protocol": "TCP"},
        {"name": "management", "port": MANAGEMENT_PORT, "targetPort": "management", "protocol": "TCP"},
    ]
    # conversions are answered before the cluster is read, and reading it may need them
    spec = {"selector": {"app": NAME}, "publishNotReadyAddresses": True, "ports": ports}
    return _object("v1", "Service", options) | {"spec": spec}


def _deployment(options: ExtenderOptions) -> Manifest:
    extender = {
        "name": EXTENDER,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["spark-scheduler", "server", "--config", f"{_CONFIG}/install.yml"],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": "extender", "containerPort": PORT},
            {"name": "management", "containerPort": MANAGEMENT_PORT},
        ],
        "readinessProbe": _probe(f"{CONTEXT}/status/readiness", "management", 5, 2),
        "livenessProbe": _probe(f"{CONTEXT}/status/liveness", "management", 10, 6),
        "startupProbe": _probe(f"{CONTEXT}/status/liveness", "management", 2, 60),
        "resources": {
            "requests": {"cpu": options.cpu, "memory": options.memory},
            "limits": {"memory": options.memory},
        },
        "securityContext": _CONFINED,
        "volumeMounts": [*_MOUNTS, {"name": "tmp", "mountPath": "/tmp"}],
    }
    kube_scheduler = {
        "name": "kube-scheduler",
        "image": options.kube_scheduler_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["kube-scheduler", f"--config={_CONFIG}/kube-scheduler.yaml"],
        "ports": [{"name": "metrics", "containerPort": KUBE_SCHEDULER_PORT}],
        "livenessProbe": _probe("/healthz", "metrics", 10, 6),
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
        "securityContext": _CONFINED,
        "volumeMounts": _MOUNTS,
    }
    spread = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": NAME}}}
    pod = {
        "serviceAccountName": NAME,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": spread}]
            }
        },
        "containers": [kube_scheduler, extender],
        "volumes": [
            {"name": "config", "configMap": {"name": NAME}},
            {"name": "tls", "secret": {"secretName": TLS_SECRET}},
            # OpenSSL loads certificates from files only; in memory, so that no key reaches a disk
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        ],
    }
    # a new configuration rolls the replicas
    annotations = {"muster.dev/config-sha256": sha256(repr(_files(options)).encode()).hexdigest()}
    return _object("apps/v1", "Deployment", options) | {
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": _LABELS, "annotations": annotations}, "spec": pod},
        }
    }


def _disruption_budget(options: ExtenderOptions) -> Manifest:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": NAME}}}
    return _object("policy/v1", "PodDisruptionBudget", options) | {"spec": spec}


_CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_MOUNTS = [
    {"name": "config", "mountPath": _CONFIG, "readOnly": True},
    {"name": "tls", "mountPath": _TLS, "readOnly": True},
]


def _probe(path: str, port: str, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTPS"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> Manifest:
    rule: Manifest = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": names} if names else {})


def _binding(options: ExtenderOptions, name: str, role: str) -> Manifest:
    return _cluster_object("ClusterRoleBinding", name) | _of_account("ClusterRole", role, options)


def _of_account(kind: str, role: str, options: ExtenderOptions) -> Manifest:
    return {
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}],
    }


def _object(api_version: str, kind: str, options: ExtenderOptions) -> Manifest:
    metadata = {"name": NAME, "namespace": options.namespace, "labels": _LABELS}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _cluster_object(kind: str, name: str) -> Manifest:
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": {"name": name, "labels": _LABELS}}
