"""The real control plane with process kubelets on it, for the unmodified Spark: no image, but real tokens and RBAC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from muster.cluster.resources import Resources
from muster.devcluster.control_plane import ControlPlane
from muster.devcluster.distribution import PINNED_VERSIONS, ensure_spark
from muster.devcluster.loopback_network import LoopbackNetwork
from muster.devcluster.node_pool import NodePool
from muster.devcluster.process_kubelet import POOL_NAME, ProcessKubelet
from muster.devcluster.real_spark import SparkJob, SubmissionResult, submit_real
from muster.kube.client import Client
from muster.kube.kinds import NODES, PODS, Resource
from tests.kubernetes.real_cluster import NAMESPACE, Applications, control_plane, until

ROLE_BINDINGS = Resource[dict[str, Any]]("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", dict)
KUBERNETES_NODE_GRACE_SECONDS = 50
SUBMISSION_SECONDS = 240.0
POD_OF_TOKEN = "authentication.kubernetes.io/pod-name"
"""Who uses a token that is bound to a pod (KEP-1205)."""


class SparkCluster(Applications):
    """``kubeconfig`` is that of the service account ``spark``, which may edit the namespace and nothing else."""

    def __init__(self, plane: ControlPlane, client: Client, kubeconfig: Path, folder: Path) -> None:
        super().__init__(client)
        self.plane = plane
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.network = LoopbackNetwork()
        self.kubelets: list[ProcessKubelet] = []

    async def run(self, job: SparkJob) -> SubmissionResult:
        """spark-submit until the application has ended, which it must with exit code 0."""
        home, folder = ensure_spark(job.version), self.folder / "submissions"
        result = await submit_real(job, self.plane.url, self.kubeconfig, home, folder, timeout=SUBMISSION_SECONDS)
        told = f"{result.output[-3000:]}\n--- driver ---\n{self.log(result.driver_pod)[-8000:]}"
        assert result.exit_code == 0, told
        return result

    def log(self, pod: str) -> str:
        """What a pod wrote, on whichever node it ran."""
        key = f"{self.namespace}/{pod}"
        logs = [kubelet.logs[key] for kubelet in self.kubelets if key in kubelet.logs]
        return "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)

    def pods_created_by(self, driver: str) -> set[str]:
        """Names of the pods that were created with the token of ``driver``'s own pod, from the audit log."""
        created = set()
        for line in self.plane.audit_log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            reference, extra = entry.get("objectRef", {}), entry["user"].get("extra", {})
            if (entry["verb"], reference.get("resource")) == ("create", "pods") and extra.get(POD_OF_TOKEN) == [driver]:
                assert entry["user"]["username"] == f"system:serviceaccount:{self.namespace}:spark"
                created.add(reference["name"])
        return created

    async def allocatable(self) -> dict[str, Resources]:
        nodes = await self.client.list(NODES)
        return {node.metadata.name: Resources.parse(node.status.allocatable) for node in nodes}

    async def expect_nothing_left(self) -> None:
        """Every process of a pod or of spark-submit ends by itself once its application has ended."""

        async def nothing() -> bool:
            return not processes_in(self.folder)

        await until("no process is left", nothing, 60)

    async def delete_pods(self) -> None:
        await self.client.delete_collection(PODS, self.namespace)

        async def gone() -> bool:
            return not await self.client.list(PODS, self.namespace)

        await until("all pods are gone", gone)


@asynccontextmanager
async def spark_cluster(folder: Path, pool: NodePool) -> AsyncIterator[SparkCluster]:
    """``pool.count`` nodes of real processes, none of which outlives it. Spark is installed first if it is not yet."""
    for version in PINNED_VERSIONS:
        await asyncio.to_thread(ensure_spark, version, print)
    async with AsyncExitStack() as stack:
        # The nodes beat as real kubelets do, so the controllers may be as strict as they are by default
        plane, client = await stack.enter_async_context(
            control_plane(folder, node_grace_seconds=KUBERNETES_NODE_GRACE_SECONDS)
        )
        await client.create(ROLE_BINDINGS, _spark_edits(), NAMESPACE)
        kubeconfig = await _account_kubeconfig(plane, client)
        cluster = SparkCluster(plane, client, kubeconfig, folder)
        pool = NodePool(name=POOL_NAME, count=pool.count, cpu=pool.cpu, memory_gib=pool.memory_gib)
        for index in range(pool.count):
            kubelet = ProcessKubelet(
                client, folder / "pods", ensure_spark, pool=pool, index=index, network=cluster.network
            )
            cluster.kubelets.append(await stack.enter_async_context(kubelet))
        yield cluster
        assert [problem for kubelet in cluster.kubelets for problem in kubelet.problems] == []
    assert processes_in(folder) == [], "a process outlived its cluster"


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory is below ``folder``: pods and submissions, not the control plane."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink().is_relative_to(folder):
                found.append(int(entry.parent.name))
        except OSError:
            continue  # ended meanwhile
    return found


def _spark_edits() -> dict[str, Any]:
    """The role that Spark's own guide gives a driver's account."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "spark-edits"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "spark", "namespace": NAMESPACE}],
    }


async def _account_kubeconfig(plane: ControlPlane, client: Client) -> Path:
    token = await client.service_account_token("spark", NAMESPACE)
    admin = await asyncio.to_thread(plane.kubeconfig.read_text)
    document = yaml.safe_load(admin)
    document["users"] = [{"name": "spark", "user": {"token": token}}]
    document["contexts"][0]["context"] |= {"user": "spark", "namespace": NAMESPACE}
    path = plane.folder / "spark.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document))
    return path
