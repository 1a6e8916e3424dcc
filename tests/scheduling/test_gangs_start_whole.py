"""Drivers are released with their whole minimum reserved, in order, or wait and block as the policy says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muster.packing import UnknownPackerError
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import Demand, Publish, ReleaseDriver, Reserve
from muster.scheduling.model import Phase, PodShape
from muster.scheduling.scheduler import Scheduler
from tests.scheduling.cluster_story import DRIVER, EXECUTOR, GIB, Cluster, dynamic, static

Clusters = Callable[..., Cluster]


def test_a_gang_that_fits_is_reserved_then_released(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(4))

    app.expect_started()
    kinds = [type(decision) for decision in cluster.decisions]
    assert kinds.index(Reserve) < kinds.index(ReleaseDriver)
    assert cluster.free_cpu() == 16_000 - 1000 - 4 * 2000


def test_a_gang_that_does_not_fit_is_held_whole(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(2)).expect_started()

    app = cluster.submit(static(2)).expect_held("WaitingForCapacity")

    assert app.key not in cluster.reservations
    assert cluster.free_cpu() == 8000 - 5000, "nothing is held for half a gang"
    assert cluster.scheduler.demands() == {app.key: ((PodShape(DRIVER), 1), (PodShape(EXECUTOR), 2))}


def test_it_starts_when_an_earlier_application_ends(cluster: Cluster) -> None:
    first = cluster.with_nodes(1).submit(static(3)).expect_started()
    second = cluster.submit(static(3)).expect_held("WaitingForCapacity")

    first.end()

    second.expect_started()
    assert cluster.decided(Demand)[-1] == Demand(second.key, ())


def test_running_executors_of_an_ended_application_keep_their_room_until_they_finish(cluster: Cluster) -> None:
    first = cluster.with_nodes(1).submit(static(3)).expect_started()
    executors = first.start_executors(3)
    second = cluster.submit(static(3))

    first.end()
    second.expect_held("WaitingForCapacity")
    for pod in executors:
        cluster.change(pod, finished=True)

    second.expect_started()


def test_a_gang_without_minimum_needs_room_for_its_driver_only(cluster: Cluster) -> None:
    cluster.with_nodes(1, cpu=1000).submit(dynamic(0)).expect_started()


def test_the_driver_is_held_until_its_sizes_are_known(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1), found=False)
    assert app.driver.gated

    app.found().expect_started()


def test_sizes_told_twice_change_nothing(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    decided = len(cluster.decisions)

    app.found()

    assert len(cluster.decisions) == decided


def test_older_gangs_block_younger_ones_of_their_pool(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(2)).expect_started()
    cluster.submit(static(3)).expect_held("WaitingForCapacity")

    cluster.submit(static(0)).expect_held("BehindEarlier")


def test_pools_do_not_block_each_other(cluster: Cluster) -> None:
    cluster.with_nodes(1, pool="a").with_nodes(1, pool="b")
    cluster.submit(static(2).in_pool("a")).expect_started()
    cluster.submit(static(3).in_pool("a")).expect_held("WaitingForCapacity")

    cluster.submit(static(3).in_pool("b")).expect_started()


def test_a_younger_gang_passes_until_the_older_one_has_the_age(clusters: Clusters) -> None:
    cluster = clusters(enforce_after=60.0).with_nodes(1)
    cluster.submit(static(2)).expect_started()
    old = cluster.submit(static(3)).expect_held("WaitingForCapacity")

    cluster.submit(static(0)).expect_started()
    cluster.wait(60)
    young = cluster.submit(static(0)).expect_held("BehindEarlier")

    assert [(ahead.key, ahead.blocks) for ahead in cluster.explain(young.key).ahead] == [(old.key, True)]


def test_the_age_may_differ_by_pool(clusters: Clusters) -> None:
    cluster = clusters(enforce_after_by_pool={"a": 60.0}).with_nodes(1, pool="a")
    cluster.submit(static(2).in_pool("a")).expect_started()
    cluster.submit(static(3).in_pool("a")).expect_held("WaitingForCapacity")

    cluster.submit(static(0).in_pool("a")).expect_started()


def test_without_fifo_nobody_blocks(clusters: Clusters) -> None:
    cluster = clusters(fifo=False).with_nodes(1)
    cluster.submit(static(2)).expect_started()
    cluster.submit(static(3)).expect_held("WaitingForCapacity")

    cluster.submit(static(0)).expect_started()


def test_ties_in_creation_are_decided_by_key(cluster: Cluster) -> None:
    blocker = cluster.with_nodes(1).submit(static(3)).expect_started()
    late = cluster.submit(static(3).named("b"))
    cluster.at -= 1
    early = cluster.submit(static(3).named("a"))
    assert early.driver.created == late.driver.created

    blocker.end()

    early.expect_started()
    late.expect_held("WaitingForCapacity")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (static(1).with_executor(cpu=64_000), "one executor asks for cpu 64; the largest of 2 matching node(s) has 8"),
        (static(1).with_driver(memory=64 * GIB), "one driver asks for memory 64Gi"),
        (static(9), "minimum of 9 executors is too many: the 2 matching node(s) hold 8 when empty"),
        (static(8), "driver and a minimum of 8 executors together are too many"),
        (static(1).in_pool("nowhere"), "no node matches the driver's node selector"),
    ],
)
def test_a_gang_larger_than_the_cluster_says_so_and_blocks_nobody(cluster: Cluster, spec: object, told: str) -> None:
    big = cluster.with_nodes(2).submit(spec).expect_held("ExceedsCluster")  # type: ignore[arg-type]

    assert told in big.status.message
    cluster.submit(static(2)).expect_started()


def test_what_exceeds_the_cluster_is_judged_anew_when_nodes_come(cluster: Cluster) -> None:
    app = cluster.submit(static(5)).expect_held("ExceedsCluster")
    cluster.with_nodes(1)
    app.expect_held("ExceedsCluster")

    cluster.with_nodes(1)

    app.expect_started()


def test_an_absurd_count_is_one_more_gang_that_exceeds_the_cluster(cluster: Cluster) -> None:
    cluster.with_nodes(2).submit(static(2**40)).expect_held("ExceedsCluster")
    cluster.submit(static(2)).expect_started()


def test_taints_keep_a_gang_away_unless_tolerated(cluster: Cluster) -> None:
    from muster.cluster.constraints import Taint

    cluster.with_nodes(1, taints=(Taint("gpu", "NoSchedule"),))

    cluster.submit(static(1)).expect_held("ExceedsCluster")
    cluster.submit(static(1).tolerating("gpu")).expect_started()


def test_an_application_with_bad_sizes_runs_without_gang_and_nobody_waits(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(3)).expect_started()
    bad = cluster.submit(static(3), found=False).invalid()

    assert bad.status.phase is Phase.INVALID
    assert [(event.reason, event.warning) for event in cluster.decided(Publish)] == [("InvalidSize", True)]  # type: ignore[union-attr]
    assert not bad.driver.gated
    assert bad.driver.assigned == ""
    cluster.submit(static(0)).expect_started()


def test_a_second_driver_of_an_application_gets_no_gang(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    from msgspec.structs import replace

    twin = cluster.see(replace(app.driver, name="twin", uid="uid-twin", node="", gated=True, running=False))

    assert not cluster.pods[twin.namespace, twin.name].gated
    assert [event.reason for event in cluster.decided(Publish)] == ["DuplicateDriver"]  # type: ignore[union-attr]
    app.expect_started()


def test_an_application_id_may_be_used_again_after_its_end(cluster: Cluster) -> None:
    first = cluster.with_nodes(1).submit(static(3).named("etl")).expect_started()
    first.end().collect()

    cluster.submit(static(3).named("etl")).expect_started()


def test_an_unknown_packer_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownPackerError, match=r'no packer "tight"; allowed are .*tightly-pack'):
        Scheduler(SchedulerConfig(packer="tight"))


def test_every_packer_starts_gangs(clusters: Clusters) -> None:
    from muster.packing import PACKERS

    for packer in PACKERS:
        cluster = clusters(packer=packer).with_nodes(2, zone="a").with_nodes(2, zone="b")
        cluster.submit(static(5)).expect_started().start_executors(5)


def test_nothing_is_decided_before_everything_has_been_told(clusters: Clusters) -> None:
    from muster.scheduling.events import Synced

    cluster = clusters(synced=False).with_nodes(1)
    app = cluster.submit(static(1))
    assert cluster.decisions == []

    cluster.tell(Synced(cluster.at))

    app.expect_started()
