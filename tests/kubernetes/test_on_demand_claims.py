"""Executors with claims that Spark makes on demand: Muster pins them, kube-scheduler binds pod and volume together."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.devcluster.node_pool import NodePool
from muster.devcluster.real_spark import PI_JOB, SparkJob
from muster.kube.client import Client
from muster.kube.config import load_access
from muster.kube.kinds import NODES
from muster.kube.objects import Pod
from tests.kubernetes.audit_trail import bound_by_kube_scheduler
from tests.kubernetes.local_volumes import STORAGE_CLASS, VOLUMES, create_local_volumes, node_of
from tests.kubernetes.onlooker import nodes_of, onlooker
from tests.kubernetes.real_cluster import NAMESPACE, muster_service
from tests.kubernetes.real_spark_cluster import spark_cluster

pytestmark = [pytest.mark.kubernetes, pytest.mark.spark, pytest.mark.timeout(900)]

_VOLUME = "spark.kubernetes.executor.volumes.persistentVolumeClaim.data"
CONF = {
    "spark.kubernetes.driver.request.cores": "600m",
    "spark.kubernetes.executor.request.cores": "600m",
    "spark.executor.instances": "2",
    f"{_VOLUME}.options.claimName": "OnDemand",
    f"{_VOLUME}.options.storageClass": STORAGE_CLASS,
    f"{_VOLUME}.options.sizeLimit": "1Gi",
    f"{_VOLUME}.mount.path": "/data",
}


async def test_executors_of_real_spark_with_on_demand_claims_are_pinned_and_bound_with_their_volumes(
    tmp_path: Path,
) -> None:
    async with spark_cluster(tmp_path, NodePool(count=2, cpu=2, memory_gib=8)) as cluster:
        nodes = [node.metadata.name for node in await cluster.client.list(NODES)]
        await create_local_volumes(cluster.client, nodes, 2)
        async with onlooker(cluster.client, NAMESPACE) as seen, muster_service(load_access(cluster.plane.kubeconfig)):
            result = await cluster.run(SparkJob("claims", PI_JOB, ("4",), CONF, namespace=NAMESPACE))
            application = seen.application("claims")
            gang = await cluster.expect_phase(application, "Finished")
        assert "Pi is roughly 3.1" in cluster.log(result.driver_pod)
        executors = seen.executors(application)
        created: list[Pod] = [each[0].object for each in executors]
        assert [pod.metadata.annotations["muster.dev/mode"] for pod in created] == ["pin", "pin"]
        assert [pod.spec.node_name for pod in created] == ["", ""]
        assert nodes_of(executors) == {slot.node: slot.count for slot in gang.spec.slots}
        assert {pod.metadata.name for pod in created} <= bound_by_kube_scheduler(cluster.plane)
        taken = await claimed_volumes(cluster.client)
        for each in executors:
            pod: Pod = each[-1].object
            assert [taken[claim] for claim in claims_of(pod)] == [pod.spec.node_name]


def claims_of(pod: Pod) -> list[str]:
    return [volume.persistent_volume_claim.claim_name for volume in pod.spec.volumes if volume.persistent_volume_claim]


async def claimed_volumes(client: Client) -> dict[str, str]:
    """The node of the volume that each claim got. A volume remembers its claim when that is gone."""
    volumes = await client.list(VOLUMES)
    return {volume["spec"]["claimRef"]["name"]: node_of(volume) for volume in volumes if volume["spec"].get("claimRef")}
