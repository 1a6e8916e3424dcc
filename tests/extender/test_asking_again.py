"""A refused pod that may be placed by now is touched once, in a quiet moment, so that kube-scheduler asks again."""

from __future__ import annotations

import pytest

from muster.control.extender.outcomes import Outcome
from muster.kube.objects import Pod
from tests.extender.virtual_cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.node("node1", gpu=8)
    return cluster


def refused(cluster: Cluster) -> tuple[Pod, Pod]:
    """A pod that takes the room, and a driver that was refused because of it."""
    taker = cluster.pod("taker", node="node1", scheduler="default-scheduler", requests={"cpu": "6"})
    driver = cluster.driver(count=4)
    assert cluster.ask(driver).outcome is Outcome.FAILURE_FIT
    return taker, driver


def test_kube_scheduler_asked_before_the_end_of_the_other_pod_had_reached_us(cluster: Cluster) -> None:
    taker, driver = refused(cluster)

    cluster.delete(taker)
    cluster.wait(10)

    assert cluster.nudged == ["app-driver"], "once, and not again"
    assert cluster.ask(driver).outcome is Outcome.SUCCESS


def test_nobody_is_touched_while_calls_come(cluster: Cluster) -> None:
    taker, _ = refused(cluster)
    other = cluster.pod("other", scheduler="default-scheduler")

    cluster.delete(taker)
    for _ in range(5):
        cluster.wait(2)
        cluster.ask(other)

    assert cluster.nudged == []


def test_a_driver_that_still_does_not_fit_is_left_alone(cluster: Cluster) -> None:
    refused(cluster)

    cluster.delete(cluster.pod("small", node="node1", scheduler="default-scheduler", requests={"cpu": "1"}))
    cluster.wait(30)

    assert cluster.nudged == []


def test_a_driver_that_was_bound_or_deleted_meanwhile_is_left_alone(cluster: Cluster) -> None:
    taker, driver = refused(cluster)

    cluster.delete(taker)
    cluster.delete(driver)
    cluster.wait(10)

    assert cluster.nudged == []


def test_an_executor_is_asked_about_again_when_something_ended_after_its_refusal(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(count=1))
    first = cluster.executor("first")
    cluster.schedule(first)
    second = cluster.executor("second")
    assert cluster.ask(second).outcome is Outcome.FAILURE_UNBOUND
    cluster.wait(10)
    assert cluster.nudged == []

    cluster.delete(first)
    cluster.wait(10)

    assert cluster.nudged == ["second"]
    assert cluster.ask(second).outcome is Outcome.SUCCESS


def test_what_nobody_but_the_user_can_mend_is_left_alone(cluster: Cluster) -> None:
    cluster.ask(cluster.driver(annotations={"spark-executor-count": "-1"}))
    cluster.delete(cluster.pod("pod", node="node1", scheduler="default-scheduler"))
    cluster.wait(10)

    assert cluster.nudged == []
