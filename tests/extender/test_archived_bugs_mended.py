"""What the archived scheduler got wrong, or crashed on, one by one: the recorded situations with the right outcome."""

from __future__ import annotations

import pytest

from muster.control.extender.messages import ExtenderArgs, decode_args
from muster.control.extender.outcomes import Outcome
from tests.extender.virtual_cluster import Cluster


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.node("node1")
    return cluster


def two_nodes(binpack: str = "tightly-pack") -> Cluster:
    cluster = Cluster(binpack)
    cluster.node("node1", labels={"resource_channel": "batch-medium-priority", "topology.kubernetes.io/zone": "z1"})
    cluster.node("node2", labels={"resource_channel": "batch-medium-priority", "topology.kubernetes.io/zone": "z1"})
    return cluster


def test_a_slot_moves_to_an_offered_node_and_the_answer_stays() -> None:
    cluster = two_nodes()
    cluster.schedule(cluster.driver(count=1), ["node1"])
    executor = cluster.executor("exec")

    moved = cluster.ask(executor, ["node2"])

    assert (moved.outcome, moved.node) == (Outcome.SUCCESS_RESCHEDULED, "node2")
    assert cluster.slots()["executor-1"] == ("node2", "exec")
    again = cluster.ask(executor, ["node1", "node2"])
    assert (again.outcome, again.node) == (Outcome.SUCCESS_ALREADY_BOUND, "node2")


def test_an_executor_that_was_answered_and_never_bound_goes_elsewhere_when_its_node_is_lost() -> None:
    cluster = two_nodes()
    cluster.schedule(cluster.driver(count=1), ["node1"])
    executor = cluster.executor("exec")
    assert cluster.ask(executor, ["node1"]).node == "node1"

    answer = cluster.ask(executor, ["node2"])

    assert (answer.outcome, answer.node) == (Outcome.SUCCESS_RESCHEDULED, "node2")
    assert cluster.slots()["executor-1"] == ("node2", "exec")


def test_a_younger_driver_waits_for_an_older_one_that_does_not_fit(cluster: Cluster) -> None:
    cluster.pod("daemon", node="node1", scheduler="default-scheduler", requests={"cpu": "4"})
    cluster.driver("older", count=5)

    answer = cluster.ask(cluster.driver("younger", gpu=0))

    assert answer.outcome is Outcome.FAILURE_EARLIER_DRIVER
    assert answer.message == "earlier drivers do not fit to the cluster"


def test_older_drivers_are_charged_in_full(cluster: Cluster) -> None:
    cluster.driver("older", count=5, gpu=0)

    answer = cluster.ask(cluster.driver("younger", count=4, gpu=0))

    assert answer.outcome is Outcome.FAILURE_FIT, "6 + 5 > 8"


def test_an_older_driver_that_is_answered_but_not_bound_counts_once(cluster: Cluster) -> None:
    cluster.ask(cluster.driver("older", count=4, gpu=0))

    assert cluster.ask(cluster.driver("younger", count=2, gpu=0)).outcome is Outcome.SUCCESS, "5 + 3 = 8"


def test_a_driver_that_can_never_fit_blocks_nobody(cluster: Cluster) -> None:
    huge = cluster.driver("huge", count=100)

    assert cluster.ask(cluster.driver("younger", gpu=0)).outcome is Outcome.SUCCESS
    assert cluster.ask(huge).message == "application does not fit to the cluster"


def test_drivers_without_an_instance_group_wait_in_order_too(cluster: Cluster) -> None:
    cluster.pod("daemon", node="node1", scheduler="default-scheduler", requests={"cpu": "4"})
    sizes = {"spark-driver-cpu": "1", "spark-driver-mem": "1", "spark-executor-cpu": "1", "spark-executor-mem": "1"}

    def groupless(app: str, count: int) -> object:
        labels = {"spark-role": "driver", "spark-app-id": app}
        annotations = sizes | {"spark-executor-count": str(count)}
        return cluster.ask(cluster.pod(app, labels=labels, annotations=annotations)).outcome

    assert groupless("older", 5) is Outcome.FAILURE_FIT
    assert groupless("younger", 0) is Outcome.FAILURE_EARLIER_DRIVER


@pytest.mark.parametrize("binpack", ["tightly-pack", "single-az-minimal-fragmentation"])
def test_other_pods_are_counted_once_for_extra_executors(binpack: str) -> None:
    cluster = Cluster(binpack, **{"should-schedule-dynamically-allocated-executors-in-same-az": False})
    cluster.node("node1")
    cluster.pod("daemon", node="node1", scheduler="default-scheduler", requests={"cpu": "3"})
    cluster.schedule(cluster.driver(minimum=0, maximum=1, executor=(2, "1", 0)))

    answer = cluster.ask(cluster.executor("exec"))

    assert answer.outcome is Outcome.SUCCESS_SCHEDULED_EXTRA_EXECUTOR


def test_a_finished_pod_takes_no_room(cluster: Cluster) -> None:
    cluster.pod("job", node="node1", scheduler="default-scheduler", requests={"cpu": "8"}, phase="Succeeded")

    assert cluster.ask(cluster.driver()).outcome is Outcome.SUCCESS


def test_the_reservation_of_a_finished_driver_takes_no_room(cluster: Cluster) -> None:
    first = cluster.driver("first", count=7)
    cluster.schedule(first)
    cluster.change(first, status={"phase": "Succeeded"})

    assert cluster.ask(cluster.driver("second", count=7)).outcome is Outcome.SUCCESS


def test_a_second_driver_of_an_application_is_refused_and_stops_nobody(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(minimum=0, maximum=1))
    second = cluster.driver(name="second", minimum=0, maximum=1)

    refused = cluster.ask(second)

    assert refused.outcome is Outcome.FAILURE_INTERNAL
    assert refused.message == "application app has a driver already: app-driver"
    assert cluster.schedule(cluster.executor("exec")).outcome is Outcome.SUCCESS_SCHEDULED_EXTRA_EXECUTOR


def test_when_a_driver_is_deleted_the_next_one_of_its_application_has_a_reservation_of_its_own(
    cluster: Cluster,
) -> None:
    first = cluster.driver(count=1)
    cluster.schedule(first)
    second = cluster.driver(name="second", count=1)
    cluster.delete(first)

    assert cluster.ask(second).outcome is Outcome.SUCCESS

    written = cluster.reservations.get("ns", "app")
    assert written is not None
    assert [owner.uid for owner in written.metadata.owner_references] == [second.metadata.uid]
    assert cluster.names_of() == {"driver": "second"}


def test_a_driver_without_application_id_is_refused_with_what_to_do(cluster: Cluster) -> None:
    labels = {"spark-role": "driver"}

    answer = cluster.ask(cluster.pod("nameless", labels=labels))

    assert answer.outcome is Outcome.FAILURE_INTERNAL
    assert "spark-app-id" in answer.message
    assert list(cluster.reservations) == []


def test_sparks_own_label_stands_in_for_the_application_id(cluster: Cluster) -> None:
    driver = cluster.driver(count=1)
    driver = cluster.pod(
        "modern",
        labels={"spark-role": "driver", "spark-app-selector": "spark-0123"},
        annotations=driver.metadata.annotations | {"spark-driver-nvidia.com/gpu": "0"},
    )

    assert cluster.ask(driver).outcome is Outcome.SUCCESS
    assert cluster.nodes_of("spark-0123") == {"driver": "node1", "executor-1": "node1"}


def test_readiness_and_cordon_count_for_executors_only() -> None:
    cluster = Cluster()
    cluster.node("node1", ready=False)
    cluster.node("node2", unschedulable=True)

    assert cluster.ask(cluster.driver("gang", count=1)).outcome is Outcome.FAILURE_FIT
    assert cluster.ask(cluster.driver("alone")).node == "node1"


def test_extras_of_an_application_without_a_running_pod_have_no_zone_yet() -> None:
    cluster = two_nodes("single-az-tightly-pack")
    cluster.ask(cluster.driver(minimum=0, maximum=1))

    answer = cluster.ask(cluster.executor("exec"))

    assert answer.outcome is None
    assert answer.message == (
        "failed to reschedule executor: Application has no scheduled pods, can't make scheduling decisions based on AZ"
    )


def test_extras_stay_in_the_zone_of_their_application_and_demand_room_there() -> None:
    cluster = Cluster("single-az-tightly-pack")
    cluster.node(
        "node1", cpu=1, labels={"resource_channel": "batch-medium-priority", "topology.kubernetes.io/zone": "z1"}
    )
    cluster.node("node2", labels={"resource_channel": "batch-medium-priority", "topology.kubernetes.io/zone": "z2"})
    cluster.schedule(cluster.driver(minimum=0, maximum=1), ["node1"])

    answer = cluster.ask(cluster.executor("exec"))

    assert (answer.outcome, answer.zone) == (Outcome.FAILURE_FIT, "z1")
    [demand] = cluster.demands
    assert (demand.metadata.name, demand.spec.zone, demand.spec.instance_group) == ("demand-exec", "z1", "example")


def test_a_candidate_without_a_zone_is_an_error_when_the_zone_matters() -> None:
    cluster = two_nodes("single-az-tightly-pack")
    cluster.node("bare")
    cluster.schedule(cluster.driver(minimum=0, maximum=1), ["node1"])

    answer = cluster.ask(cluster.executor("exec"))

    assert answer.outcome is Outcome.FAILURE_INTERNAL
    assert answer.message.endswith(
        "Could not read zone label from node, unable to make scheduling decisions based on AZ"
    )


def test_the_first_candidate_with_a_slot_is_taken() -> None:
    cluster = two_nodes("distribute-evenly")
    cluster.schedule(cluster.driver(count=2, executor=(5, "1", 0)), ["node1"])
    assert cluster.nodes_of() == {"driver": "node1", "executor-1": "node1", "executor-2": "node2"}

    assert cluster.ask(cluster.executor("exec"), ["node2", "node1"]).node == "node2"


def test_an_evicted_executor_gives_its_slot_up(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(count=1))
    evicted = cluster.executor("exec")
    cluster.schedule(evicted)
    cluster.change(evicted, status={"phase": "Failed"})

    assert cluster.ask(cluster.executor("replacement")).outcome is Outcome.SUCCESS
    assert cluster.slots()["executor-1"] == ("node1", "replacement")


def test_the_slot_of_a_deleted_executor_goes_to_one_above_the_minimum_and_follows_it() -> None:
    cluster = two_nodes()
    cluster.schedule(cluster.driver(minimum=1, maximum=3), ["node1"])
    first, extra = cluster.executor("first"), cluster.executor("extra")
    cluster.schedule(first, ["node1"])
    cluster.schedule(extra, ["node2"])
    assert (cluster.slots()["executor-1"], cluster.soft()) == (("node1", "first"), {"extra": "node2"})

    cluster.delete(first)
    cluster.ask(cluster.pod("anything", scheduler="default-scheduler"))

    assert (cluster.slots()["executor-1"], cluster.soft()) == (("node2", "extra"), {})


def test_a_pod_that_is_not_sparks_is_refused(cluster: Cluster) -> None:
    for labels in ({}, {"spark-role": "something"}):
        answer = cluster.ask(cluster.pod("other", labels=labels))
        assert answer.outcome is Outcome.FAILURE_NON_SPARK_POD
        assert answer.message == "can not schedule non spark pod"


def test_nothing_to_read_is_an_answer_not_a_crash(cluster: Cluster) -> None:
    for body in (b"{}", b"null", b'{"Pod":null,"NodeNames":null}', b'{"NodeNames":["node1"]}'):
        answer = cluster.filter.answer(decode_args(body))
        assert (answer.node, answer.message) == ("", "the request names no pod")
    driver = cluster.driver()
    assert cluster.filter.answer(ExtenderArgs(driver, ())).node == ""


def test_an_application_without_any_size_fits_with_packers_that_keep_no_zone() -> None:
    """With single-AZ packers it does not: an average efficiency of 0 was never a best one."""
    for binpack, outcome in (("tightly-pack", Outcome.SUCCESS), ("single-az-tightly-pack", Outcome.FAILURE_FIT)):
        cluster = Cluster(binpack)
        cluster.node("node1")
        nothing = cluster.driver(cpu=0, memory="0", gpu=0, executor=(0, "0", 0))
        assert cluster.ask(nothing).outcome is outcome


def test_a_driver_whose_node_is_no_longer_offered_gets_another_with_its_whole_gang() -> None:
    cluster = two_nodes()
    driver = cluster.driver(count=2, executor=(2, "1", 0))
    first = cluster.ask(driver, ["node1"])

    second = cluster.ask(driver, ["node2"])

    assert (first.node, second.node) == ("node1", "node2")
    assert cluster.nodes_of()["driver"] == "node2"
    cluster.lose_node("node2")
    assert cluster.ask(driver).node == "node1"
    assert set(cluster.nodes_of().values()) == {"node1"}


def test_annotations_smaller_than_the_pods_requests_never_overfill_a_node(cluster: Cluster) -> None:
    labels = {"spark-role": "driver", "spark-app-id": "app"}
    sizes = {
        "spark-driver-cpu": "1",
        "spark-driver-mem": "1",
        "spark-executor-cpu": "1",
        "spark-executor-mem": "1",
        "spark-executor-count": "1",
    }
    driver = cluster.pod("driver", labels=labels, annotations=sizes, requests={"cpu": "6"})
    cluster.schedule(driver)

    slots = cluster.reservations.get("ns", "app")
    assert slots is not None and slots.spec.reservations["driver"].resources["cpu"] == "6"
    assert [event.reason for event in cluster.published] == ["AnnotationTooSmall"]
    big = cluster.pod("exec", labels=labels | {"spark-role": "executor"}, requests={"cpu": "3"})
    assert cluster.ask(big).outcome is Outcome.FAILURE_FIT, "6 + 3 > 8"
    right = cluster.pod("exec-2", labels=labels | {"spark-role": "executor"}, requests={"cpu": "2"})
    assert cluster.ask(right).outcome is Outcome.SUCCESS


def test_executors_go_where_the_driver_tolerates_the_taints() -> None:
    cluster = Cluster()
    cluster.node("tainted", taints=[{"key": "dedicated", "effect": "NoSchedule"}])
    cluster.node("open")

    cluster.ask(cluster.driver("plain", count=1), ["tainted", "open"])
    tolerating = cluster.driver("tolerating", count=1, tolerations=[{"key": "dedicated", "operator": "Exists"}])
    cluster.ask(tolerating)

    assert cluster.nodes_of("plain")["executor-1"] == "open"
    assert cluster.reservations.get("ns", "tolerating") is not None


def test_applications_of_two_namespaces_with_one_id_are_two(cluster: Cluster) -> None:
    cluster.schedule(cluster.driver(count=1, gpu=0))
    other = cluster.driver(count=1, namespace="other", gpu=0)

    assert cluster.ask(other).outcome is Outcome.SUCCESS
    assert cluster.reservations.get("other", "app") is not None
    cluster.schedule(cluster.executor("exec"))
    assert cluster.slots(namespace="other")["executor-1"] == ("node1", "")


def test_an_executor_that_goes_before_anything_was_asked_harms_nothing(cluster: Cluster) -> None:
    cluster.driver(count=1, node="node1")
    executor = cluster.executor("exec", node="node1")
    cluster.restart()

    cluster.delete(executor)

    assert cluster.ask(cluster.executor("next")).outcome is Outcome.SUCCESS


def test_two_calls_after_one_another_never_book_the_same_room(cluster: Cluster) -> None:
    one, two = cluster.driver("one", count=4, gpu=0), cluster.driver("two", count=4, gpu=0)

    assert [cluster.ask(one).outcome, cluster.ask(two).outcome] == [Outcome.SUCCESS, Outcome.FAILURE_FIT]


def test_annotations_that_cannot_be_read_are_told_on_the_pod_and_block_nobody(cluster: Cluster) -> None:
    bad = cluster.driver("bad", annotations={"spark-executor-count": "-1"})

    refused = cluster.ask(bad)

    assert refused.message == "failed to get spark resources: annotation spark-executor-count is negative"
    assert [(event.pod.name, event.reason) for event in cluster.published] == [("bad-driver", "InvalidSize")]
    assert cluster.ask(cluster.driver("good", gpu=0)).outcome is Outcome.SUCCESS


def test_the_same_calls_get_the_same_answers_in_every_run() -> None:
    def run() -> list[str]:
        cluster = Cluster("distribute-evenly")
        for number in range(5):
            cluster.node(f"n{number}")
        cluster.schedule(cluster.driver(minimum=3, maximum=8))
        return [cluster.schedule(cluster.executor(f"exec-{number}")).node for number in range(8)]

    assert run() == run()
