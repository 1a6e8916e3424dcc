"""Volumes that exist on one node each, and a StorageClass that binds them when a pod comes: WaitForFirstConsumer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from muster.kube.client import Client
from muster.kube.kinds import Resource

STORAGE_CLASS = "local"
ACCESS_MODE = "ReadWriteOncePod"
"""What Spark asks for since 4.0 (``spark.kubernetes.legacy.useReadWriteOnceAccessMode`` is off); goes with no other."""
STORAGE_CLASSES = Resource[dict[str, Any]](
    "storage.k8s.io", "v1", "storageclasses", "StorageClass", dict, namespaced=False
)
VOLUMES = Resource[dict[str, Any]]("", "v1", "persistentvolumes", "PersistentVolume", dict, namespaced=False)


async def create_local_volumes(client: Client, nodes: Iterable[str], per_node: int) -> None:
    """``per_node`` volumes of 1 GiB on each node, as a local provisioner makes them."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await client.create(STORAGE_CLASSES, storage_class)
    for node in nodes:
        for number in range(per_node):
            await client.create(VOLUMES, _volume(f"{node}-{number}", node))


def node_of(volume: dict[str, Any]) -> str:
    """Where a volume is."""
    [term] = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    [[node]] = [requirement["values"] for requirement in term["matchExpressions"]]
    return str(node)


def _volume(name: str, node: str) -> dict[str, Any]:
    here = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": [ACCESS_MODE],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": f"/mnt/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
        },
    }
