"""Demands from the first moment of a wait to its last; several replicas, of which one is asked; pods that come late."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from muster.control.extender.demands import DemandStatus
from muster.control.extender.outcomes import Outcome
from muster.control.extender.reservations import ResourceReservation
from tests.extender.virtual_cluster import GROUP, Cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.node("node1", gpu=8)
    return cluster


def demanded(cluster: Cluster) -> set[str]:
    return {demand.metadata.name for demand in cluster.demands}


def events(cluster: Cluster, name: str) -> list[dict[str, object]]:
    return [fields for told, fields in cluster.told if told == f"foundry.spark.scheduler.{name}"]


def full(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver("filler", count=6))


def test_a_driver_that_fits_demands_nothing(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(count=2))
    cluster.wait(120)

    assert demanded(cluster) == set()


def test_a_driver_demands_room_before_anybody_asks_about_it(cluster: Cluster) -> None:
    full(cluster)

    cluster.driver(count=3)

    assert demanded(cluster) == {"demand-app-driver"}
    [event] = events(cluster, "demand_created")
    assert event == {"instanceGroup": GROUP, "demandNamespace": "ns", "demandName": "demand-app-driver"}


def test_a_gang_whose_room_was_given_back_because_nobody_asked_demands_none(cluster: Cluster) -> None:
    cluster.driver(count=3)

    cluster.wait(120)

    assert demanded(cluster) == set()


@pytest.mark.parametrize("end", ["answered", "bound", "deleted"])
def test_a_demand_ends_with_the_wait(cluster: Cluster, end: str) -> None:
    full(cluster)
    driver = cluster.driver(count=3)
    assert demanded(cluster) == {"demand-app-driver"}

    if end == "answered":
        cluster.node("node2", gpu=8)
        cluster.ask(driver)
    elif end == "bound":
        cluster.bind(driver, "node1")
    else:
        cluster.delete(driver)

    assert demanded(cluster) == set()
    [event] = events(cluster, "demand_deleted")
    assert event["source"] == ("SparkSchedulerExtender" if end == "answered" else "DemandGC")


def test_an_executor_that_finds_no_room_demands_it_until_it_is_placed(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(minimum=0, maximum=8))
    for number in range(7):
        assert cluster.schedule(cluster.executor(f"exec-{number}")).node
    waiting = cluster.executor("exec-7")
    assert cluster.ask(waiting).outcome is Outcome.FAILURE_FIT
    [demand] = cluster.demands
    assert (demand.metadata.name, demand.spec.units[0].count) == ("demand-exec-7", 1)
    assert demand.spec.zone is UNSET
    assert not demand.spec.enforce_single_zone_scheduling

    cluster.node("node2")
    assert cluster.ask(waiting).outcome is Outcome.SUCCESS_SCHEDULED_EXTRA_EXECUTOR

    assert demanded(cluster) == set()


def test_demands_survive_a_restart_and_outdated_ones_do_not(cluster: Cluster) -> None:
    full(cluster)
    cluster.driver("waiting", count=3)
    bound = cluster.driver("bound", count=3)
    assert demanded(cluster) == {"demand-waiting-driver", "demand-bound-driver"}
    kept = cluster.demands.get("ns", "demand-waiting-driver")
    outdated = cluster.demands.get("ns", "demand-bound-driver")
    cluster.bind(bound, "node1")
    assert outdated is not None
    cluster.demands.create(outdated)

    cluster.restart()

    assert list(cluster.demands) == [kept]
    assert events(cluster, "demand_deleted")[-1]["source"] == "Reconciler"


def test_a_demand_changes_with_what_is_demanded_and_keeps_its_status(cluster: Cluster) -> None:
    full(cluster)
    driver = cluster.driver(count=3)
    [before] = cluster.demands
    pending = type(before)(before.metadata, before.spec, DemandStatus("pending"))
    cluster.demands.update(pending)
    annotations = {**driver.metadata.annotations, "spark-executor-count": "5"}

    cluster.annotate(driver, annotations)
    cluster.ask(driver)

    [after] = cluster.demands
    assert after.spec.units[1].count == 5
    assert after.status.phase == "pending"


def test_without_an_instance_group_nothing_can_be_demanded(cluster: Cluster) -> None:
    full(cluster)
    labels = {"spark-role": "driver", "spark-app-id": "groupless"}
    annotations = cluster.driver("model", count=3).metadata.annotations
    cluster.pod("groupless", labels=labels, annotations=annotations)

    assert demanded(cluster) == {"demand-model-driver"}


# Replicas


def other_replica(cluster: Cluster) -> Cluster:
    """A second process on the same objects; it sees what the first one sees, and is not asked."""
    other = Cluster()
    other.nodes, other.pods, other.at = cluster.nodes, cluster.pods, cluster.at
    other.reservations, other.demands = cluster.reservations, cluster.demands
    other.restart()
    return other


def follow(other: Cluster, cluster: Cluster, app: str) -> ResourceReservation:
    """The watch tells the second process of the application's pods and of what the first one wrote."""
    value = cluster.reservations.get("ns", app)
    assert value is not None
    other.filter.view.reservation_changed("ns", app, value)
    for pod in cluster.pods.values():
        other.filter.view.pod_seen(pod)
    other.at = cluster.at
    return value


def test_a_replica_that_is_not_asked_writes_nothing(cluster: Cluster) -> None:
    other = other_replica(cluster)
    driver = cluster.driver(count=2)
    other.filter.view.pod_seen(driver)
    other.wait(5)

    assert cluster.reservations.get("ns", "app") is None


def test_a_replica_that_takes_over_goes_on_with_what_the_other_one_wrote(cluster: Cluster) -> None:
    cluster.node("node2", gpu=8)
    other = other_replica(cluster)
    driver = cluster.driver(count=2)
    other.filter.view.pod_seen(driver)
    cluster.schedule(driver, ["node2"])
    first = cluster.executor("first")
    cluster.schedule(first)
    before = follow(other, cluster, "app")

    other.wait(20)
    assert cluster.reservations.get("ns", "app") == before
    answer = other.schedule(other.executor("second"))

    assert (answer.outcome, answer.node) == (Outcome.SUCCESS, before.spec.reservations["executor-2"].node)
    assert other.slots()["executor-1"] == cluster.slots()["executor-1"]
    assert other.slots()["executor-2"] == (answer.node, "second")


def test_an_edit_by_hand_is_taken_over(cluster: Cluster) -> None:
    cluster.node("node2")
    driver = cluster.driver(count=1)
    cluster.schedule(driver, ["node1"])
    edited = cluster.reservation({"driver": "node1", "executor-1": "node2"}, {"driver": "app-driver"}, driver=driver)

    cluster.filter.view.reservation_changed("ns", "app", edited)

    assert cluster.ask(cluster.executor("exec"), ["node1", "node2"]).node == "node2"


def test_a_reservation_that_was_removed_by_hand_is_written_again_while_its_driver_lives(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(count=1))
    cluster.reservations.delete("ns", "app")
    cluster.filter.view.reservation_changed("ns", "app", None)

    cluster.wait(1)

    assert cluster.nodes_of() == {"driver": "node1", "executor-1": "node1"}


# Pods


def test_a_pod_may_be_asked_about_before_the_watch_tells_of_it(cluster: Cluster) -> None:
    driver = cluster.driver(count=1, told=False)

    assert cluster.ask(driver).outcome is Outcome.SUCCESS


def test_a_pod_that_only_a_call_told_of_is_forgotten_when_the_watch_never_does(cluster: Cluster) -> None:
    ghost = cluster.driver("ghost", count=6, told=False)
    assert cluster.ask(ghost).outcome is Outcome.SUCCESS
    del cluster.pods[("ns", "ghost-driver")]

    cluster.wait(61)

    assert cluster.ask(cluster.driver(count=6)).outcome is Outcome.SUCCESS


def test_an_executor_of_an_application_that_is_over_is_an_orphan(cluster: Cluster) -> None:
    driver = cluster.driver(count=1)
    cluster.schedule(driver)
    executor = cluster.executor("exec")
    cluster.change(driver, status={"phase": "Failed"})

    answer = cluster.ask(executor)

    assert answer.outcome is Outcome.FAILURE_INTERNAL
    assert answer.message == "error when looking for already bound reservations: failed to get resource reservations"


def test_pods_of_another_scheduler_are_others_until_they_are_asked_about(cluster: Cluster) -> None:
    cluster.driver("foreign", count=7, scheduler="volcano")

    assert cluster.ask(cluster.driver(count=7)).outcome is Outcome.SUCCESS, "nothing is kept for the foreign one"


def test_executors_that_were_seen_before_their_driver_fill_its_slots(cluster: Cluster) -> None:
    """A watch that begins anew tells of pods by name, not by age."""
    cluster.executor("a-executor", node="node1")
    cluster.driver(name="z-driver", count=2, node="node1")

    cluster.ask(cluster.executor("b-executor"))

    assert cluster.slots() == {
        "driver": ("node1", "z-driver"),
        "executor-1": ("node1", "a-executor"),
        "executor-2": ("node1", "b-executor"),
    }


def test_an_executor_that_was_answered_before_a_restart_keeps_its_room_until_it_is_bound(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(minimum=1, maximum=2, executor=(3, "1", 0)))
    answered = cluster.executor("answered")
    assert cluster.ask(answered).node == "node1"
    assert cluster.schedule(cluster.executor("bound")).node == "node1"

    cluster.restart()

    other = cluster.driver("other", count=3, gpu=0)
    assert cluster.ask(other).outcome is Outcome.FAILURE_FIT, "1 + 3 + 3 + 4 > 8: the one on its way is counted, too"
    assert cluster.ask(answered).outcome is Outcome.SUCCESS_ALREADY_BOUND
    cluster.bind(answered, "node1")
    assert cluster.slots()["executor-1"] == ("node1", "answered")


def test_executors_above_the_minimum_are_found_again_after_a_restart(cluster: Cluster) -> None:
    """The archived scheduler kept them in memory; they are rebuilt from the pods (reconciliation)."""
    cluster.schedule(cluster.driver(minimum=1, maximum=3))
    for number in range(3):
        cluster.schedule(cluster.executor(f"exec-{number}"))
    assert set(cluster.soft()) == {"exec-1", "exec-2"}
    ended = cluster.pods[("ns", "exec-2")]
    cluster.delete(ended)

    cluster.restart()
    cluster.ask(cluster.driver("other", count=0))

    assert set(cluster.soft()) == {"exec-1"}
    assert cluster.schedule(cluster.executor("exec-3")).outcome == Outcome.SUCCESS_SCHEDULED_EXTRA_EXECUTOR
    assert cluster.schedule(cluster.executor("exec-4")).outcome == Outcome.FAILURE_UNBOUND, "it has its maximum"
    cluster.delete(cluster.pods[("ns", "exec-0")])
    cluster.ask(cluster.driver("another", count=0))
    assert cluster.names_of()["executor-1"] == "exec-1", "the slot of a deleted executor goes to one above the minimum"
    assert set(cluster.soft()) == {"exec-3"}
