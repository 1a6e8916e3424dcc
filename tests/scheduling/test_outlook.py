"""What an expected start is worked out from: room counted in executors of the one that asks."""

from __future__ import annotations

from muster.scheduling.outlook import Holding, Outlook
from tests.scheduling.cluster_story import GIB, Cluster, static


def test_holders_and_those_ahead_are_counted_in_executors_of_the_one_that_asks(cluster: Cluster) -> None:
    large = static(2).with_executor(cpu=3000, memory=12 * GIB)
    runs = cluster.with_nodes(1).submit(large.running_for(60)).expect_started()
    ahead = cluster.submit(large).expect_held("WaitingForCapacity")
    app = cluster.submit(static(4).with_executor(cpu=1000, memory=GIB)).expect_held("BehindEarlier")

    assert cluster.scheduler.outlook(app.key) == Outlook(
        free=1,
        room=4,
        running=(Holding(runs.key, 1001.0, 6, 60),),
        ahead=(Holding(ahead.key, 1002.0, 6, None),),
    )


def test_one_that_does_not_wait_for_room_has_none(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()

    assert cluster.scheduler.outlook(app.key) is None
    assert cluster.scheduler.outlook("default/nobody") is None
