"""Few of those behind the head are tried at a time, but nobody is forgotten."""

from __future__ import annotations

from muster.scheduling.config import SchedulerConfig
from tests.scheduling.cluster_story import Cluster, Spec, static


def in_zone(zone: str) -> Spec:
    spec = static(3)
    selector = (("topology.kubernetes.io/zone", zone),)
    constraints = type(spec.constraints)(node_selector=selector)
    return type(spec)(3, 3, constraints=constraints)


def test_who_waits_far_back_for_other_nodes_starts_when_they_have_room() -> None:
    cluster = Cluster(SchedulerConfig(backfill_depth=4))
    cluster.with_nodes(1, zone="a").with_nodes(1, zone="b").with_nodes(1, zone="c")
    cluster.submit(in_zone("a")).expect_started()
    third = cluster.submit(in_zone("c")).expect_started()
    elsewhere = cluster.submit(in_zone("b")).expect_started()
    cluster.submit(in_zone("a")).expect_held("WaitingForCapacity")
    for _ in range(20):
        cluster.submit(in_zone("a")).expect_held("BehindEarlier")
    last = cluster.submit(in_zone("b")).expect_held("BehindEarlier")
    third.end()  # everybody is told why they wait

    elsewhere.end()
    last.expect_held("BehindEarlier")
    for _ in range(10):
        cluster.wait(1)

    last.expect_started()


def test_they_are_not_tried_again_and_again_when_nothing_was_freed() -> None:
    cluster = Cluster(SchedulerConfig(backfill_depth=4))
    cluster.with_nodes(1, zone="a")
    first = cluster.submit(in_zone("a")).expect_started()
    for _ in range(12):
        cluster.submit(in_zone("a"))
    first.start_executor()
    for _ in range(20):
        cluster.wait(1)
    assert cluster.scheduler._state.swept == {}
