"""The demo's cluster: what its nodes look like, and a planned application as devcluster submits it."""

from __future__ import annotations

from muster.cli.demo.workload import PlannedApplication
from muster.cluster.resources import Resources
from muster.devcluster.node_pool import NodePool
from muster.devcluster.virtual_application import VirtualApplication

NAMESPACE = "spark-jobs"
VIRTUAL_LABEL = "devcluster.muster.dev/virtual"
"""On every virtual node, and the node selector of every virtual application: real nodes are for real processes."""

_SHAPES = (("small", 0.6, 4, 16), ("medium", 0.3, 8, 32), ("large", 0.1, 24, 96))
"""Name, share of the nodes, cores, GiB: the largest recorded executor asks for 20 cores."""


def node_pools(nodes: int) -> tuple[NodePool, ...]:
    """``nodes`` virtual nodes of three shapes in three zones; at least one of them is large."""
    large = max(1, round(nodes * _SHAPES[2][1]))
    medium = min(nodes - large, round(nodes * _SHAPES[1][1]))
    counts = (nodes - large - medium, medium, large)
    return tuple(
        NodePool(name=name, count=count, cpu=cpu, memory_gib=gib, labels={VIRTUAL_LABEL: "true"})
        for (name, _, cpu, gib), count in zip(_SHAPES, counts, strict=True)
        if count
    )


def virtual_application(planned: PlannedApplication) -> VirtualApplication:
    """As spark-submit would be told: heap sizes, from which Spark makes the recorded sizes of the pods."""
    return VirtualApplication(
        name=planned.name,
        namespace=NAMESPACE,
        executors=planned.minimum,
        dynamic=planned.dynamic,
        min_executors=planned.minimum,
        max_executors=planned.maximum if planned.dynamic else None,
        executor_cores=planned.executor.cpu_m // 1000,
        executor_memory_mib=heap_mib(planned.executor.memory_mib),
        driver_cores=planned.driver.cpu_m // 1000,
        driver_memory_mib=heap_mib(planned.driver.memory_mib),
        run_seconds=planned.duration_s,
        parallelism=planned.maximum,
        node_selector={VIRTUAL_LABEL: "true"},
    )


def pod_memory_mib(heap: int) -> int:
    """Heap and overhead of a pod, MiB, by Spark's defaults (``BasicExecutorFeatureStep``): 10 %, at least 384 MiB."""
    return heap + max(heap // 10, 384)


def heap_mib(pod_mib: int) -> int:
    """The largest heap whose pod is not larger than ``pod_mib`` MiB, by Spark's formula for overhead."""
    heap = max(1, pod_mib * 10 // 11)
    while pod_memory_mib(heap) > pod_mib and heap > 1:
        heap -= 1
    while pod_memory_mib(heap + 1) <= pod_mib:
        heap += 1
    return heap


def executor_requests(planned: PlannedApplication) -> Resources:
    """What one of its executors asks of a node."""
    application = virtual_application(planned)
    memory = pod_memory_mib(application.executor_memory_mib)
    return Resources.of(cpu=application.executor_cores * 1000, memory=memory << 20)
