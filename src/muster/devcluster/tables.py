"""The columns of ``kubectl get``. Source: ``pkg/printers/internalversion/printers.go``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from muster.devcluster.storage import Object
from muster.kube.timestamps import human_duration

Cell = Any


class Column(msgspec.Struct, frozen=True):
    """``priority`` above 0 shows with ``-o wide`` only."""

    name: str
    value: Callable[[Object], Cell]
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


Columns = tuple[Column, ...]


def age(text: str | None) -> str:
    """A time as kubectl's human duration: ``5s``, ``3m12s``, ``4h``, ``12d``. ``<unknown>`` without one."""
    if not text:
        return "<unknown>"
    then = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return human_duration((datetime.now(UTC) - then).total_seconds())


def _path(*keys: str, default: Cell = "") -> Callable[[Object], Cell]:
    def value(obj: Object) -> Cell:
        found: Any = obj
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return default if found is None else found

    return value


NAME = Column("Name", _path("metadata", "name"), format="name")
AGE = Column("Age", lambda obj: age(obj["metadata"].get("creationTimestamp")))


def _pod_status(pod: Object) -> str:
    status = pod.get("status") or {}
    reason = status.get("reason") or status.get("phase") or ""
    if any(c.get("reason") == "SchedulingGated" for c in status.get("conditions") or ()):
        reason = "SchedulingGated"
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        reason = waiting.get("reason") or ended.get("reason") or reason
    if pod["metadata"].get("deletionTimestamp"):
        reason = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return str(reason)


def _pod_ready(pod: Object) -> str:
    containers = pod.get("status", {}).get("containerStatuses") or ()
    return f"{sum(bool(c.get('ready')) for c in containers)}/{len(pod['spec'].get('containers') or ())}"


def _restarts(pod: Object) -> str:
    return str(sum(c.get("restartCount", 0) for c in pod.get("status", {}).get("containerStatuses") or ()))


def _gates(pod: Object) -> str:
    gates = [c.get("type", "") for c in pod["spec"].get("readinessGates") or ()]
    return ",".join(gates) or "<none>"


def _node_status(node: Object) -> str:
    conditions = {c["type"]: c["status"] for c in (node.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready")
    status = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    return status + (",SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else "")


def _node_roles(node: Object) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))) or "<none>"


def _address(kind: str) -> Callable[[Object], str]:
    def value(node: Object) -> str:
        addresses = (node.get("status") or {}).get("addresses") or ()
        return next((a["address"] for a in addresses if a.get("type") == kind), "<none>")

    return value


def _info(key: str) -> Callable[[Object], Cell]:
    return _path("status", "nodeInfo", key, default="<unknown>")


def _service_ports(service: Object) -> str:
    ports = service["spec"].get("ports") or ()
    return ",".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>"


def _selector(obj: Object) -> str:
    selector = obj["spec"].get("selector") or {}
    return ",".join(f"{key}={value}" for key, value in selector.items()) or "<none>"


def _count(*keys: str) -> Callable[[Object], int]:
    return lambda obj: len(_path(*keys, default={})(obj))


def _event_object(event: Object) -> str:
    involved = event.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _event_time(event: Object) -> str:
    series = event.get("series") or {}
    seen = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return age(seen or event["metadata"].get("creationTimestamp"))


def _replicas(obj: Object) -> str:
    return f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"


COLUMNS: dict[str, Columns] = {
    "pods": (
        NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _restarts),
        AGE,
        Column("IP", _path("status", "podIP", default="<none>"), priority=1),
        Column("Node", _path("spec", "nodeName", default="<none>"), priority=1),
        Column("Nominated Node", _path("status", "nominatedNodeName", default="<none>"), priority=1),
        Column("Readiness Gates", _gates, priority=1),
    ),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        Column("Version", _path("status", "nodeInfo", "kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), priority=1),
        Column("External-IP", _address("ExternalIP"), priority=1),
        Column("OS-Image", _info("osImage"), priority=1),
        Column("Kernel-Version", _info("kernelVersion"), priority=1),
        Column("Container-Runtime", _info("containerRuntimeVersion"), priority=1),
    ),
    "namespaces": (NAME, Column("Status", _path("status", "phase")), AGE),
    "services": (
        NAME,
        Column("Type", _path("spec", "type")),
        Column("Cluster-IP", _path("spec", "clusterIP", default="<none>")),
        Column("External-IP", lambda _: "<none>"),
        Column("Port(s)", _service_ports),
        AGE,
        Column("Selector", _selector, priority=1),
    ),
    "configmaps": (NAME, Column("Data", _count("data"), "integer"), AGE),
    "secrets": (NAME, Column("Type", _path("type")), Column("Data", _count("data"), "integer"), AGE),
    "serviceaccounts": (NAME, Column("Secrets", _count("secrets"), "integer"), AGE),
    "events": (
        Column("Last Seen", _event_time),
        Column("Type", _path("type")),
        Column("Reason", _path("reason")),
        Column("Object", _event_object),
        Column("Message", _path("message")),
        Column("Name", _path("metadata", "name"), priority=1),
    ),
    "persistentvolumeclaims": (
        NAME,
        Column("Status", _path("status", "phase")),
        Column("Volume", _path("spec", "volumeName")),
        Column("StorageClass", _path("spec", "storageClassName")),
        AGE,
    ),
    "leases.coordination.k8s.io": (NAME, Column("Holder", _path("spec", "holderIdentity")), AGE),
    "deployments.apps": (NAME, Column("Ready", _replicas), AGE),
    "statefulsets.apps": (NAME, Column("Ready", _replicas), AGE),
    "priorityclasses.scheduling.k8s.io": (
        NAME,
        Column("Value", _path("value"), "integer"),
        Column("Global-Default", lambda obj: str(bool(obj.get("globalDefault"))).lower()),
        AGE,
    ),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": (
        NAME,
        Column("Webhooks", _count("webhooks"), "integer"),
        AGE,
    ),
    "customresourcedefinitions.apiextensions.k8s.io": (
        NAME,
        Column("Created At", _path("metadata", "creationTimestamp"), "date"),
    ),
}
DEFAULT_COLUMNS: Columns = (NAME, AGE)


def table_columns(columns: Columns) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns
    ]


def table_row(columns: Columns, obj: Object) -> list[Cell]:
    return [column.value(obj) for column in columns]


def custom_columns(definitions: list[dict[str, Any]]) -> Columns:
    """The columns a CustomResourceDefinition asks for with ``additionalPrinterColumns``."""
    if not definitions:
        return DEFAULT_COLUMNS
    return (
        NAME,
        *(
            Column(
                definition["name"],
                _json_path(definition["jsonPath"], definition.get("type", "string")),
                definition.get("type", "string"),
                definition.get("format", ""),
                definition.get("priority", 0),
                definition.get("description", ""),
            )
            for definition in definitions
        ),
    )


def _json_path(path: str, kind: str) -> Callable[[Object], Cell]:
    """The simple JSON paths of CRDs: ``.a.b``, ``.labels['a.b/c']``, ``[0]``, ``[?(@.type=="x")].y``."""
    steps = _steps(path)

    def value(obj: Object) -> Cell:
        found: Any = obj
        for step in steps:
            found = _step(found, step)
            if found is None:
                return None
        if kind == "date":
            return age(str(found))
        if kind in ("integer", "number", "boolean"):
            return found
        return found if isinstance(found, str) else msgspec.json.encode(found).decode()

    return value


def _steps(path: str) -> list[str]:
    steps, rest = [], path.strip().removeprefix("$")
    while rest:
        if rest.startswith("["):
            inner, _, rest = rest[1:].partition("]")
            steps.append("[" + inner)
        else:
            rest = rest.removeprefix(".")
            cut = min((i for i in (rest.find("."), rest.find("[")) if i >= 0), default=len(rest))
            steps.append(rest[:cut])
            rest = rest[cut:]
    return [step for step in steps if step]


def _step(value: Any, step: str) -> Any:
    if not step.startswith("["):
        return value.get(step) if isinstance(value, Mapping) else None
    inner = step[1:].strip()
    if inner.startswith("?(@."):
        key, _, wanted = inner[4:].rstrip(")").partition("==")
        matches = (i for i in value or () if str(i.get(key.strip())) == wanted.strip().strip("\"'"))
        return next(matches, None)
    if inner.strip("'\"") != inner:
        return value.get(inner.strip("'\"")) if isinstance(value, Mapping) else None
    with contextlib.suppress(ValueError, IndexError, TypeError):
        return value[int(inner)]
    return None
