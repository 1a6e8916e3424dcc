"""Kubernetes Events on drivers that wait: the first sentence of ``muster why``, few, and never twice the same."""

from __future__ import annotations

import pytest

from muster.scheduling import announcing
from muster.scheduling.decisions import Publish
from tests.scheduling.cluster_story import Cluster, Spec, static


def events(cluster: Cluster) -> list[tuple[str, str, bool]]:
    published = [decision for decision in cluster.decisions if isinstance(decision, Publish)]
    return [(event.pod.name, event.reason, event.warning) for event in published]


def test_one_that_waits_a_while_is_told_once_in_the_words_of_why(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(3)).expect_started()
    app = cluster.submit(static(3)).expect_held("WaitingForCapacity")
    cluster.wait(announcing.AFTER - 1)
    assert events(cluster) == []

    for _ in range(5):
        cluster.wait(1)

    assert events(cluster) == [(app.driver.name, "WaitingForCapacity", False)]
    [event] = cluster.decided(Publish)
    assert event.message == cluster.explain(app.key).sentence


def test_one_that_starts_soon_is_not_told_of(cluster: Cluster) -> None:
    first = cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.submit(static(3)).expect_held("WaitingForCapacity")
    cluster.wait(announcing.AFTER - 1)
    first.end()
    cluster.wait(announcing.AGAIN)

    assert events(cluster) == []


def test_another_reason_is_told_some_minutes_later(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(3)).expect_started()
    first = cluster.submit(static(3)).expect_held("WaitingForCapacity")
    second = cluster.submit(static(2)).expect_held("BehindEarlier")
    cluster.wait(announcing.AFTER)
    cluster.remove(first.driver)
    cluster.wait(announcing.AGAIN - 1)
    about_second = [reason for name, reason, _ in events(cluster) if name == second.driver.name]
    assert about_second == ["BehindEarlier"]

    cluster.wait(1)

    about_second = [reason for name, reason, _ in events(cluster) if name == second.driver.name]
    assert about_second == ["BehindEarlier", "WaitingForCapacity"]


@pytest.mark.parametrize(("spec", "reason"), [(static(50), "ExceedsCluster"), (static(1).queued("no"), "UnknownQueue")])
def test_what_does_not_end_by_waiting_is_a_warning(cluster: Cluster, spec: Spec, reason: str) -> None:
    app = cluster.with_nodes(1).submit(spec).expect_held(reason)
    cluster.wait(announcing.AFTER)

    assert events(cluster) == [(app.driver.name, reason, True)]


def test_many_are_told_of_a_few_at_a_time(cluster: Cluster) -> None:
    for _ in range(announcing.MOST + 5):
        cluster.submit(static(1))
    cluster.wait(announcing.AFTER)
    assert len(events(cluster)) == announcing.MOST

    cluster.wait(1)

    assert len(events(cluster)) == announcing.MOST + 5
