"""The built-in admission plugins that clients notice, in kube-apiserver's order.

NamespaceLifecycle, ServiceAccount, TaintNodesByCondition, Priority, DefaultTolerationSeconds. They run on CREATE,
before mutating webhooks. Sources: ``plugin/pkg/admission`` in kubernetes/kubernetes.
"""

from __future__ import annotations

from typing import Any

from muster.devcluster.errors import Cause, forbidden, not_found
from muster.devcluster.metadata import Origin
from muster.devcluster.requests import Request
from muster.devcluster.storage import Object, Store

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
TOKEN_SECONDS = 3607  # what kube-apiserver writes: one hour and seven seconds, to tell its own volumes apart


def admit_create(store: Store, request: Request, obj: Object, origin: Origin) -> None:
    """Checks and completes a new object, in place. Raises 403 or 404."""
    check_namespace(store, request)
    if request.target.subresource:
        return
    if request.kind.collection == "pods":
        _give_service_account(store, request.target.space, obj, origin)
        _give_priority(store, obj)
        _tolerate_node_failures(obj["spec"])
    elif request.kind.collection == "nodes":
        _taint_until_ready(obj["spec"])


def admit_update(request: Request, obj: Object) -> None:
    """Completes a changed object, in place."""
    if request.kind.collection == "pods" and not request.target.subresource:
        _tolerate_node_failures(obj["spec"])


def check_namespace(store: Store, request: Request) -> None:
    """A namespaced object needs a namespace that exists and is not going away."""
    kind, namespace = request.kind, request.target.space
    if not kind.namespaced:
        return
    record = store.collection("namespaces").get("", namespace)
    if record is None:
        raise not_found("namespaces", "", namespace)
    if "deletionTimestamp" in record.obj["metadata"] and not request.target.subresource:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
        raise forbidden(kind.plural, kind.group, request.target.name, why, (cause,))


def _give_service_account(store: Store, namespace: str, pod: Object, origin: Origin) -> None:
    spec = pod["spec"]
    if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
        return
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    record = store.collection("serviceaccounts").get(namespace, name)
    if record is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise forbidden("pods", "", pod["metadata"].get("name", ""), why)
    if not _mounts_token(spec, record.obj):
        return
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    without = [c for c in containers if not any(m.get("mountPath") == TOKEN_PATH for m in c.get("volumeMounts") or ())]
    if not without:
        return
    volumes = spec.setdefault("volumes", [])
    volume = next((v["name"] for v in volumes if str(v.get("name", "")).startswith("kube-api-access-")), None)
    if volume is None:
        volume = origin.name("kube-api-access-")
        volumes.append(token_volume(volume))
    for container in without:
        mount = {"name": volume, "readOnly": True, "mountPath": TOKEN_PATH}
        container.setdefault("volumeMounts", []).append(mount)


def _mounts_token(spec: dict[str, Any], account: Object) -> bool:
    wanted = spec.get("automountServiceAccountToken")
    return bool(account.get("automountServiceAccountToken", True) if wanted is None else wanted)


def token_volume(name: str) -> dict[str, Any]:
    """The projected volume with token, cluster certificate and namespace that every pod gets."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    certificate = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": certificate},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}


def _give_priority(store: Store, pod: Object) -> None:
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    value, preemption = 0, "PreemptLowerPriority"
    if name in SYSTEM_PRIORITIES:
        value = SYSTEM_PRIORITIES[name]
    elif name:
        record = store.collection("priorityclasses.scheduling.k8s.io").get("", name)
        if record is None:
            why = f"no PriorityClass with name {name} was found"
            raise forbidden("pods", "", pod["metadata"].get("name", ""), why)
        value, preemption = record.obj["value"], record.obj["preemptionPolicy"]
    else:
        classes = store.collection("priorityclasses.scheduling.k8s.io").scan("")
        default = next((record.obj for record in classes if record.obj.get("globalDefault")), None)
        if default is not None:
            spec["priorityClassName"] = default["metadata"]["name"]
            value, preemption = default["value"], default["preemptionPolicy"]
    if spec.get("priority") not in (None, value):
        why = "the integer value of priority must not be provided in pod spec; priority admission controller computed "
        raise forbidden("pods", "", pod["metadata"].get("name", ""), why + f"{value} from the given PriorityClass name")
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", preemption)


def _tolerate_node_failures(spec: dict[str, Any]) -> None:
    """A pod stays five minutes on a node that is not ready or unreachable, unless it says otherwise."""
    tolerations = spec.setdefault("tolerations", [])
    for key in (NOT_READY, UNREACHABLE):
        if not any(_covers(toleration, key) for toleration in tolerations):
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            tolerations.append(toleration)


def _covers(toleration: dict[str, Any], key: str) -> bool:
    return toleration.get("key") in (None, "", key) and toleration.get("effect") in (None, "", "NoExecute")


def _taint_until_ready(spec: dict[str, Any]) -> None:
    taints = spec.setdefault("taints", [])
    if not any(taint.get("key") == NOT_READY for taint in taints):
        taints.append({"key": NOT_READY, "effect": "NoSchedule"})
