"""What a leader of an earlier term sent, and the network held back, does not undo what a later one wrote."""

from __future__ import annotations

import pytest

from muster.cluster.resources import Resources
from muster.control.outbox import Retry
from muster.control.writer import ApiWriter, GatedPods
from muster.devcluster.node_pool import NodePool
from muster.kube.resources import GANGS
from muster.scheduling.model import Application, GangStatus, Phase, PodShape, Reservation, Slot
from tests.control.running_cluster import RunningCluster, running_cluster

KEY = "team-a/spark-1"
ONE_CORE = PodShape(Resources((("cpu", 1000),)))
APPLICATION = Application(KEY, "one", 1.0, None, ONE_CORE, minimum=2, maximum=2)
RUNNING = GangStatus(Phase.RUNNING, running=2)
FINISHED = GangStatus(Phase.FINISHED)


def on(node: str, revision: int) -> Reservation:
    return Reservation(KEY, revision, "", (Slot(node, 2),))


def writer(cluster: RunningCluster) -> ApiWriter:
    return ApiWriter(cluster.client, GatedPods(), None)  # type: ignore[arg-type]


async def phase_and_nodes(cluster: RunningCluster) -> tuple[str, list[str]]:
    gang = await cluster.client.get(GANGS, "spark-1", "team-a")
    return gang.status.phase, [slot.node for slot in gang.spec.slots]


async def successor(cluster: RunningCluster) -> ApiWriter:
    later = writer(cluster)
    [gang] = await cluster.client.list(GANGS)
    later.known(KEY, gang.metadata.resource_version)
    return later


async def test_a_late_status_or_reservation_is_refused() -> None:
    async with running_cluster(NodePool(count=1, cpu=8), muster=False) as cluster:
        earlier = writer(cluster)
        await earlier.write_gang(APPLICATION, on("node-a", 1))
        later = await successor(cluster)
        await later.write_gang(APPLICATION, on("node-b", 2))
        await later.write_status(KEY, FINISHED)
        with pytest.raises(Retry):
            await earlier.write_status(KEY, RUNNING)
        assert await phase_and_nodes(cluster) == ("Finished", ["node-b"])

        other = await successor(cluster)
        await later.write_status(KEY, RUNNING)
        with pytest.raises(Retry):
            await other.write_gang(APPLICATION, on("node-a", 3))
        assert await phase_and_nodes(cluster) == ("Running", ["node-b"])


async def test_who_leads_writes_all_the_same_at_the_next_attempt() -> None:
    async with running_cluster(NodePool(count=1, cpu=8), muster=False) as cluster:
        earlier = writer(cluster)
        await earlier.write_gang(APPLICATION, on("node-a", 1))
        later = await successor(cluster)
        await earlier.write_status(KEY, RUNNING)  # held back until the other leads already
        with pytest.raises(Retry):
            await later.write_status(KEY, FINISHED)
        await later.write_status(KEY, FINISHED)
        assert (await phase_and_nodes(cluster))[0] == "Finished"
