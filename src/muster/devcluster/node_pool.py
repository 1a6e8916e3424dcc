"""Nodes that look like those of a cloud provider: capacity, what is left for pods, zones, labels, taints."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.spark.names import GROUP, POOL_LABEL

VIRTUAL_LABEL = f"devcluster.{GROUP}/virtual"
"""On virtual nodes, "true": pods that are no real programs select it when there are other nodes, too."""

KUBELET_VERSION = "v1.34.1"

_MIB_PER_GIB = 1024
_ZONES = ("eu-west-1a", "eu-west-1b", "eu-west-1c")


class NodeTaint(msgspec.Struct, frozen=True):
    key: str
    effect: str = "NoSchedule"
    value: str = ""


class NodePool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``count`` nodes of one shape, spread over ``zones`` in turn and named ``<name>-<number>``."""

    name: str = "spark"
    count: int = 3
    cpu: int = 16
    """Cores of the machine; a little less is allocatable."""
    memory_gib: int = 64
    storage_gib: int = 200
    """Ephemeral storage."""
    max_pods: int = 110
    zones: tuple[str, ...] = _ZONES
    labels: dict[str, str] = {}
    taints: tuple[NodeTaint, ...] = ()
    extended: dict[str, int] = {}
    """Extended resources, e.g. ``{"nvidia.com/gpu": 4}``."""
    instance_type: str = ""
    pool_label: str = POOL_LABEL

    def node_names(self) -> list[str]:
        width = max(2, len(str(self.count - 1)))
        return [f"{self.name}-{number:0{width}d}" for number in range(self.count)]


def parse_node_pools(text: str) -> tuple[NodePool, ...]:
    """Node pools from the short form ``[name=]COUNTxCPU,MEMORY_GIB``, several separated by ``;``.

    ``200x16,64`` is 200 nodes of 16 cores and 64 GiB. Raises ``ValueError`` that says which part is wrong.
    """
    pools = []
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(";")))):
        name, _, shape = part.rpartition("=")
        try:
            count, machine = shape.split("x")
            cpu, memory = machine.split(",")
            pool = NodePool(
                name=name.strip() or ("spark" if number == 0 else f"spark{number}"),
                count=int(count),
                cpu=int(cpu),
                memory_gib=int(memory.strip().removesuffix("Gi")),
            )
        except ValueError:
            raise ValueError(f"node pool {part!r}: expected [name=]COUNTxCPU,MEMORY_GIB such as 200x16,64") from None
        if min(pool.count, pool.cpu, pool.memory_gib) <= 0:
            raise ValueError(f"node pool {part!r}: count, CPU and memory must be above 0")
        pools.append(pool)
    if not pools:
        raise ValueError("no node pool given: expected [name=]COUNTxCPU,MEMORY_GIB such as 200x16,64")
    return tuple(pools)


def reserved_millicores(cores: int) -> int:
    """CPU that Google Kubernetes Engine keeps for the system: 6 % of the first core, 1 % of the second, 0.5 % of the
    next two, 0.25 % of the rest ("Plan GKE Standard node sizes")."""
    hundredths = 6000 + 1000 * min(cores - 1, 1) + 500 * min(max(cores - 2, 0), 2) + 250 * max(cores - 4, 0)
    return -(-hundredths // 100)


def reserved_mib(memory_gib: int) -> int:
    """Memory that Google Kubernetes Engine keeps: 25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8,
    6 % of the next 112, 2 % above 128 GiB, and 100 MiB for the eviction threshold (same source)."""
    left, percent_gib = memory_gib, 0
    for size, percent in ((4, 25), (4, 20), (8, 10), (112, 6)):
        part = min(left, size)
        percent_gib += part * percent
        left -= part
    return (percent_gib + left * 2) * _MIB_PER_GIB // 100 + 100


def allocatable(pool: NodePool) -> dict[str, str]:
    """What is left for pods, as Kubernetes quantities."""
    return {
        "cpu": f"{pool.cpu * 1000 - reserved_millicores(pool.cpu)}m",
        "memory": f"{(pool.memory_gib * _MIB_PER_GIB - reserved_mib(pool.memory_gib)) * 1024}Ki",
        "ephemeral-storage": str(pool.storage_gib * 2**30 * 9 // 10),
        "pods": str(pool.max_pods),
        **{name: str(amount) for name, amount in pool.extended.items()},
    }


def virtual(pool: NodePool) -> NodePool:
    """The pool with the label that tells virtual nodes from real ones."""
    return msgspec.structs.replace(pool, labels={VIRTUAL_LABEL: "true"} | pool.labels)


def node_objects(pool: NodePool, now: str, first_number: int = 0) -> list[dict[str, Any]]:
    """The pool's Node objects as its kubelets would register them, Ready at ``now`` (RFC 3339)."""
    return [
        _node(pool, name, pool.zones[index % len(pool.zones)] if pool.zones else "", first_number + index, now)
        for index, name in enumerate(pool.node_names())
    ]


def pod_network(number: int) -> str:
    """The first three bytes of the pod addresses of a cluster's ``number``-th node (a /24 of 10.0.0.0/8)."""
    return f"10.{64 + number // 256}.{number % 256}"


def _node(pool: NodePool, name: str, zone: str, number: int, now: str) -> dict[str, Any]:
    capacity = {
        "cpu": str(pool.cpu),
        "memory": f"{pool.memory_gib * _MIB_PER_GIB * 1024}Ki",
        "ephemeral-storage": f"{pool.storage_gib * _MIB_PER_GIB * 1024}Ki",
        "pods": str(pool.max_pods),
        **{resource: str(amount) for resource, amount in pool.extended.items()},
    }
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": pool.instance_type or f"virtual-{pool.cpu}x{pool.memory_gib}",
        pool.pool_label: pool.name,
    }
    if zone:
        labels["topology.kubernetes.io/zone"] = zone
        labels["topology.kubernetes.io/region"] = zone.rstrip("abcdefghijklmnopqrstuvwxyz") or zone
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels | pool.labels},
        "spec": {
            "podCIDR": f"{pod_network(number)}.0/24",
            "providerID": f"devcluster:///{zone}/{name}",
            "taints": [msgspec.to_builtins(taint) for taint in pool.taints],
        },
        "status": {
            "capacity": capacity,
            "allocatable": allocatable(pool),
            "conditions": node_conditions(now),
            "addresses": [
                {"type": "InternalIP", "address": f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}"},
                {"type": "Hostname", "address": name},
            ],
            "nodeInfo": {
                "kubeletVersion": KUBELET_VERSION,
                "operatingSystem": "linux",
                "architecture": "amd64",
                "containerRuntimeVersion": "devcluster://1",
                "kernelVersion": "",
                "osImage": "",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kubeProxyVersion": "",
            },
        },
    }


def node_conditions(now: str) -> list[dict[str, str]]:
    """The conditions of a healthy node, with the kubelet's own reasons."""
    healthy = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    )
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind, status, reason, message in healthy
    ]
