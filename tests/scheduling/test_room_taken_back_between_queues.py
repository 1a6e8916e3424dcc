"""Call-backs between queues: guarantees, policies, quota, and whole applications where a queue allows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Preemption, QueueConfig
from muster.scheduling.config import PressureConfig
from muster.scheduling.decisions import Evict, Publish
from tests.scheduling.cluster_story import App, Cluster, Spec, dynamic, static

Clusters = Callable[..., Cluster]


def cores(number: int) -> Resources:
    return Resources.of(cpu=number * 1000)


def lender_fills(cluster: Cluster, queue: str, spec: Spec = dynamic(1), user: str = "") -> App:  # noqa: B008
    """Seven of the node's eight cores; with ``dynamic(1)``, four of them are two extras."""
    app = cluster.submit(spec.named("lender").queued(queue, user)).expect_started()
    app.start_executors(3)
    return app.expect_running(3)


def evicted(cluster: Cluster) -> list[str]:
    return [decision.pod.name for decision in cluster.decisions if isinstance(decision, Evict)]


@pytest.mark.parametrize(("preemption", "called_back"), [(Preemption.NEVER, 0), (Preemption.EXTRAS, 1)])
def test_the_queue_of_the_lender_says_whether_it_gives_back(
    cluster: Cluster, preemption: Preemption, called_back: int
) -> None:
    cluster.with_nodes(1).with_queues(QueueConfig("a", preemption=preemption), QueueConfig("b"))
    lender_fills(cluster, "a")
    cluster.submit(static(1).queued("b")).expect_held("WaitingForCapacity")
    cluster.wait(10)
    assert len(evicted(cluster)) == called_back


@pytest.mark.parametrize(("guaranteed", "called_back"), [(6, 0), (5, 1)])
def test_what_a_queue_is_guaranteed_stays_with_it(cluster: Cluster, guaranteed: int, called_back: int) -> None:
    cluster.with_nodes(1).with_queues(QueueConfig("a", guaranteed=cores(guaranteed)), QueueConfig("b"))
    lender_fills(cluster, "a")
    cluster.submit(static(1).queued("b"))
    cluster.wait(10)
    assert len(evicted(cluster)) == called_back


def test_within_its_own_queue_a_gang_goes_before_extras_whatever_is_guaranteed(cluster: Cluster) -> None:
    cluster.with_nodes(1).with_queues(QueueConfig("a", guaranteed=cores(8)))
    lender_fills(cluster, "a")
    cluster.submit(static(1).queued("a"))
    cluster.wait(10)
    assert len(evicted(cluster)) == 1


def test_a_gang_that_waits_for_quota_gets_it_back_from_extras(cluster: Cluster) -> None:
    """Both queues together may have seven cores; there are nodes enough."""
    cluster.with_nodes(3).with_queues(
        QueueConfig("team", max=Maximum.of(cpu=7000)),
        QueueConfig("a", "team"),
        QueueConfig("b", "team", guaranteed=cores(3)),
    )
    lender_fills(cluster, "a")
    waits = cluster.submit(static(1).queued("b")).expect_held("OverQuota")
    cluster.wait(10)
    assert len(evicted(cluster)) == 2
    waits.expect_held("OverQuota")
    cluster.wait(60)
    waits.expect_started()


def test_but_not_from_another_queue_when_its_own_would_then_be_over_its_share(cluster: Cluster) -> None:
    """``b`` has a seventh of what ``team`` may have, and would have three."""
    cluster.with_nodes(3).with_queues(
        QueueConfig("team", max=Maximum.of(cpu=7000)),
        QueueConfig("a", "team", weight=6),
        QueueConfig("b", "team"),
    )
    lender_fills(cluster, "a")
    cluster.submit(static(1).queued("b")).expect_held("OverQuota")
    cluster.wait(100)
    assert evicted(cluster) == []


@pytest.mark.parametrize(("user", "called_back"), [("ann", 2), ("bob", 0)])
def test_a_users_limit_is_made_room_under_by_that_users_own_extras(
    cluster: Cluster, user: str, called_back: int
) -> None:
    limit = Limit(users=("*",), max=Maximum.of(cpu=7000))
    cluster.with_nodes(3).with_queues(QueueConfig("a", limits=(limit,)))
    lender_fills(cluster, "a", user=user)
    filler = cluster.submit(static(2).named("filler").queued("a", "ann" if user == "bob" else "carl"))
    filler.expect_started().start_executors(2)
    cluster.submit(static(1).queued("a", "ann")).expect_held("OverQuota")
    cluster.wait(10)
    assert len(evicted(cluster)) == called_back


APPLICATIONS = QueueConfig("batch", preemption=Preemption.APPLICATIONS, min_runtime=60.0)


def test_a_whole_application_goes_where_its_queue_says_so_when_it_has_run_its_minimum_time(cluster: Cluster) -> None:
    cluster.with_nodes(1).with_queues(APPLICATIONS, QueueConfig("prod"))
    lender = lender_fills(cluster, "batch", static(3))
    waits = cluster.submit(static(1).queued("prod"))
    cluster.wait(20).wait(30)
    assert evicted(cluster) == []

    cluster.wait(30)

    assert sorted(evicted(cluster)) == ["lender-driver", "lender-exec-1", "lender-exec-2", "lender-exec-3"]
    told = [one for one in cluster.decisions if isinstance(one, Publish) and one.reason == "ApplicationPreempted"]
    assert told[-1].pod.name == lender.driver.name
    assert told[-1].warning
    assert told[-1].message.startswith("all 4 pods are called back for default/")
    cluster.wait(60)
    waits.expect_started()


def test_a_driver_is_given_its_own_grace(cluster: Cluster) -> None:
    cluster.with_nodes(1).with_queues(replace(APPLICATIONS, min_runtime=0.0), QueueConfig("prod"))
    lender_fills(cluster, "batch", static(3))
    cluster.submit(static(1).queued("prod"))
    cluster.wait(10)
    graces = {one.pod.name: one.grace_seconds for one in cluster.decisions if isinstance(one, Evict)}
    assert graces["lender-driver"] == 30.0
    assert graces["lender-exec-1"] == 60.0


def test_extras_of_an_application_spare_the_application(cluster: Cluster) -> None:
    cluster.with_nodes(1).with_queues(replace(APPLICATIONS, min_runtime=0.0), QueueConfig("prod"))
    lender_fills(cluster, "batch", dynamic(1))
    cluster.submit(static(1).queued("prod"))
    cluster.wait(10)
    assert [name[:12] for name in evicted(cluster)] == ["lender-exec-"]


def test_no_application_goes_for_one_whose_queue_would_be_over_its_share(cluster: Cluster) -> None:
    cluster.with_nodes(1).with_queues(replace(APPLICATIONS, min_runtime=0.0, weight=9), QueueConfig("prod"))
    lender_fills(cluster, "batch", static(3))
    cluster.submit(static(1).queued("prod"))
    cluster.wait(100)
    assert evicted(cluster) == []


@pytest.mark.parametrize(("priority", "called_back"), [(1, 4), (0, 0)])
def test_in_one_queue_the_higher_priority_preempts(cluster: Cluster, priority: int, called_back: int) -> None:
    cluster.with_nodes(1).with_queues(replace(APPLICATIONS, min_runtime=0.0))
    lender_fills(cluster, "batch", static(3))
    cluster.submit(static(1).queued("batch", priority=priority))
    cluster.wait(10)
    assert len(evicted(cluster)) == called_back


def test_without_rounds_no_application_goes(clusters: Clusters) -> None:
    cluster = clusters(pressure=PressureConfig(round_limit=0))
    cluster.with_nodes(1).with_queues(replace(APPLICATIONS, min_runtime=0.0), QueueConfig("prod"))
    lender_fills(cluster, "batch", static(3))
    cluster.submit(static(1).queued("prod"))
    cluster.wait(100)
    assert evicted(cluster) == []


def test_room_is_lent_first_to_the_queue_that_has_least_above_its_guarantee(cluster: Cluster) -> None:
    """Alike applications, and the one of ``rich`` has asked first; ``poor`` has less for its weight. Two get room."""
    cluster.with_nodes(1, cpu=14_500).with_queues(QueueConfig("rich"), QueueConfig("poor", weight=4))
    filler = cluster.submit(static(2).named("filler").queued("rich")).expect_started()
    filler.start_executors(2)
    rich = cluster.submit(dynamic(0).named("rich").queued("rich")).expect_started()
    rich.start_executors(1)
    apps = [cluster.submit(dynamic(0).named(f"poor-{n}").queued("poor")).expect_started() for n in range(2)]
    for app in apps:
        app.start_executors(1)
    held = rich.start_executors(2)
    cluster.at += 1
    held += [pod for app in apps for pod in app.start_executors(1)]
    assert [pod.gated for pod in held] == [True] * 4

    filler.end().collect()

    assert [app.status.running for app in (rich, *apps)] == [1, 2, 2]


def test_a_change_of_the_queues_takes_nothing_back_by_itself(cluster: Cluster) -> None:
    cluster.with_nodes(1).with_queues(QueueConfig("a"))
    lender_fills(cluster, "a")
    cluster.with_queues(QueueConfig("a", max=Maximum.of(cpu=1000)))
    cluster.wait(100)
    cluster.with_queues(QueueConfig("b"))
    cluster.wait(100)
    assert evicted(cluster) == []
    cluster.submit(static(1).queued("b")).expect_held("WaitingForCapacity")
    cluster.wait(10)
    assert len(evicted(cluster)) == 1, "what has no queue any more is over its share"
