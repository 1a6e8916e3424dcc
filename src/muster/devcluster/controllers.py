"""The few controllers of kube-controller-manager that clients depend on, besides garbage collection.

A namespace gets its ``default`` service account and the cluster's certificate, and is emptied when it is deleted.
A node loses its not-ready taint when its kubelet says it is ready; other conditions and a cordon put
theirs on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from muster.devcluster.admission import NOT_READY, UNREACHABLE
from muster.devcluster.errors import ApiError
from muster.devcluster.garbage import RETRY_SECONDS, internal_request
from muster.devcluster.kinds import Kind
from muster.devcluster.registry import Registry
from muster.devcluster.storage import Change, Object

_log = structlog.get_logger("muster.devcluster")
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
PRESSURE_TAINTS = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_MANAGED = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURE_TAINTS.values()})
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class Controllers:
    def __init__(self, registry: Registry, certificate: str) -> None:
        self._registry = registry
        self._certificate = certificate
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        registry.store.listen(self._observe)

    def _observe(self, collection: str, change: Change) -> None:
        namespace, name = change.record.key
        if collection in ("namespaces", "nodes"):
            if change.verb != "DELETED":
                self._queue.put_nowait((collection, name))
        elif change.verb == "DELETED" and namespace:
            record = self._registry.store.collection("namespaces").get("", namespace)
            if record is not None and "deletionTimestamp" in record.obj["metadata"]:
                self._queue.put_nowait(("namespaces", namespace))

    async def run(self) -> None:
        while True:
            collection, name = await self._queue.get()
            try:
                if collection == "nodes":
                    await self._taint(name)
                else:
                    await self._serve_namespace(name)
            except ApiError as error:
                if error.code == 409:
                    self._queue.put_nowait((collection, name))
                elif error.reason not in ("NotFound", "Forbidden"):
                    _log.warning("a controller waits", collection=collection, name=name, error=error.message)
                    loop = asyncio.get_running_loop()
                    loop.call_later(RETRY_SECONDS, self._queue.put_nowait, (collection, name))

    async def create_system_namespaces(self) -> None:
        for name in SYSTEM_NAMESPACES:
            await self._create("namespaces", "", {"metadata": {"name": name}})
            await self._furnish(name)

    async def _serve_namespace(self, name: str) -> None:
        record = self._registry.store.collection("namespaces").get("", name)
        if record is None:
            return
        if "deletionTimestamp" not in record.obj["metadata"]:
            await self._furnish(name)
            return
        if not await self._empty(name):
            return
        kind, agent = self._kind("namespaces"), "kube-controller-manager"
        request = internal_request(kind, ("", name), "update", agent, "finalize")
        await self._registry.change(request, lambda obj: obj | {"spec": {"finalizers": []}}, "Update")

    async def _furnish(self, name: str) -> None:
        store = self._registry.store
        if store.collection("serviceaccounts").get(name, "default") is None:
            await self._create("serviceaccounts", name, {"metadata": {"name": "default"}})
        if store.collection("configmaps").get(name, "kube-root-ca.crt") is None:
            body = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self._certificate}}
            await self._create("configmaps", name, body)

    async def _create(self, collection: str, namespace: str, body: Object) -> None:
        request = internal_request(self._kind(collection), (namespace, ""), "create", "kube-controller-manager")
        try:
            await self._registry.create(request, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _empty(self, namespace: str) -> bool:
        """Deletes everything in a namespace; whether nothing is left."""
        left = False
        for kind in self._registry.kinds:
            if not kind.namespaced or (kind.storage and kind.group):
                continue
            for record in self._registry.store.collection(kind.collection).scan(namespace):
                if "deletionTimestamp" not in record.obj["metadata"]:
                    request = internal_request(kind, record.key, "delete", "kube-controller-manager")
                    _, gone = await self._registry.delete(request, {})
                    left |= not gone
                else:
                    left = True
        return not left

    async def _taint(self, name: str) -> None:
        record = self._registry.store.collection("nodes").get("", name)
        if record is None:
            return
        taints = taints_for(record.obj)
        if taints == ((record.obj.get("spec") or {}).get("taints") or []):
            return
        request = internal_request(self._kind("nodes"), ("", name), "update", "kube-controller-manager")

        def tainted(node: Object) -> Object:
            return node | {"spec": {**node.get("spec", {}), "taints": taints_for(node)}}

        await self._registry.change(request, tainted, "Update")

    def _kind(self, collection: str) -> Kind:
        return next(kind for kind in self._registry.kinds if kind.collection == collection)


def taints_for(node: Object) -> list[dict[str, Any]]:
    """The node's own taints and those its conditions ask for. Source: ``pkg/controller/nodelifecycle``."""
    spec = node.get("spec") or {}
    conditions = {c["type"]: c["status"] for c in (node.get("status") or {}).get("conditions") or ()}
    wanted: dict[tuple[str, str], dict[str, Any]] = {}

    def want(key: str, effect: str = "NoSchedule") -> None:
        wanted[(key, effect)] = {"key": key, "effect": effect}

    ready = conditions.get("Ready")
    if ready is None or ready == "False":
        want(NOT_READY)
    elif ready == "Unknown":
        want(UNREACHABLE)
    if ready == "False":
        want(NOT_READY, "NoExecute")
    if ready == "Unknown":
        want(UNREACHABLE, "NoExecute")
    if spec.get("unschedulable"):
        want(UNSCHEDULABLE)
    for condition, key in PRESSURE_TAINTS.items():
        if conditions.get(condition) == "True":
            want(key)
    kept = []
    for taint in spec.get("taints") or ():
        place = (taint.get("key", ""), taint.get("effect", ""))
        if taint.get("key") not in _MANAGED:
            kept.append(taint)
        elif place in wanted:
            kept.append(taint)
            del wanted[place]
    return kept + list(wanted.values())
