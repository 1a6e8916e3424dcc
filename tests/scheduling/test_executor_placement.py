"""Executors: their own slot, extras above the minimum, held ones, placements that never appear, wrong predictions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration
from muster.cluster.resources import Resources
from muster.queueing.config import Maximum, QueueConfig
from muster.scheduling.decisions import Place, Publish, Reserve
from muster.scheduling.model import Mode, Phase, Pod, Role
from tests.scheduling.cluster_story import EXECUTOR, GIB, App, Cluster, dynamic, static

Clusters = Callable[..., Cluster]


def test_an_executor_is_born_bound_to_a_slot_of_its_gang(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(4)).expect_started()
    free = cluster.free_cpu()

    executors = app.start_executors(4)

    nodes = [pod.node for pod in executors]
    assert {node: nodes.count(node) for node in nodes} == app.slots()
    assert cluster.free_cpu() == free, "the room was theirs already"
    assert app.status.minimum_reached == cluster.at


def test_asking_twice_gives_the_same_answer(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(2)).expect_started()
    pod = app.executor()

    first = cluster.ask(pod)

    assert first.mode is Mode.BIND
    assert cluster.ask(pod) == first
    assert cluster.free_cpu() == 16_000 - 5000


def test_a_pod_that_must_not_be_born_bound_is_pinned(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()

    placement = cluster.ask(app.executor(pin_reasons=("it has pod affinity",)))

    assert (placement.mode, placement.node, placement.reason) == (Mode.PIN, "node-1", "it has pod affinity")


def test_binding_can_be_switched_off(clusters: Clusters) -> None:
    app = clusters(bind_enabled=False).with_nodes(1).submit(static(1)).expect_started()

    assert app.cluster.ask(app.executor()).mode is Mode.PIN


def test_an_extra_executor_takes_free_room_up_to_the_maximum(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(dynamic(1, 3)).expect_started()
    app.start_executor()

    second, third, fourth = app.start_executors(3)

    assert second.extra
    assert third.extra
    assert fourth.gated
    assert (app.status.running, app.status.extras, app.status.held) == (3, 2, 1)
    assert "maximum of 3" in cluster.ask(app.executor()).reason


def test_a_held_executor_is_released_when_one_of_its_application_ends(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(dynamic(1, 2)).expect_started()
    first, _ = app.start_executors(2)
    third = app.start_executor()
    assert third.gated

    cluster.change(first, finished=True)

    assert not cluster.pods[third.namespace, third.name].gated
    assert len(cluster.decided(Place)) == 1


def test_extras_are_held_without_room_and_released_in_the_order_they_came(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(dynamic(0)).expect_started()
    running = app.start_executors(3)
    held = []
    for _ in range(3):
        cluster.at += 1
        held.append(app.start_executor())
    assert all(pod.gated for pod in held)
    assert cluster.scheduler.demands()[app.key][0][1] == 3

    cluster.change(running[0], finished=True)
    cluster.change(running[1], finished=True)

    assert [place.pod.name for place in cluster.decided(Place)] == [pod.name for pod in held[:2]]  # type: ignore[union-attr]


def test_extras_never_take_what_a_waiting_gang_waits_for(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(dynamic(0)).expect_started()
    app.start_executor()
    waiting = cluster.submit(static(3)).expect_held("WaitingForCapacity")

    placement = cluster.ask(app.executor())

    assert placement.mode is Mode.HOLD
    assert waiting.key in placement.reason


def test_extras_may_pass_a_waiting_gang_that_is_not_enforced_yet(clusters: Clusters) -> None:
    cluster = clusters(enforce_after=60.0).with_nodes(1)
    app = cluster.submit(dynamic(0)).expect_started()
    cluster.submit(static(2)).expect_started()
    cluster.submit(static(1)).expect_held("WaitingForCapacity")

    assert cluster.ask(app.executor(requests=Resources.of(cpu=100))).mode is Mode.BIND


def test_a_placement_whose_pod_never_appears_expires(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    refused = app.executor()
    cluster.ask(refused)

    cluster.wait(29)
    assert cluster.ask(app.executor()).mode is Mode.HOLD, "the only slot is taken"
    cluster.wait(31)

    assert cluster.ask(app.executor()).mode is Mode.BIND


def test_the_slot_of_an_executor_that_died_is_for_its_replacement(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3)).expect_started()
    first, *_ = app.start_executors(3)
    other = cluster.submit(static(0))

    cluster.change(first, finished=True)
    replacement = app.start_executor()

    assert (replacement.node, replacement.extra) == ("node-1", False)
    other.expect_started()


def test_executors_of_other_resource_profiles_are_extras(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(dynamic(1, 2)).expect_started()

    big = app.start_executor(profile=1, requests=Resources.of(cpu=4000, memory=8 * GIB))

    assert big.extra
    assert not app.start_executor().extra


def test_a_wrong_prediction_is_corrected_by_the_first_executor(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(3)).expect_started()
    real = EXECUTOR + Resources.of(cpu=500)

    first = app.start_executor(requests=real)
    cluster.wait(1)

    assert first.node
    assert app.reservation.revision == 2
    assert cluster.decided(Reserve)[-1].application.executor.requests == real  # type: ignore[union-attr]
    told = cluster.decided(Publish)[-1]
    assert told.reason == "ExecutorSizeCorrected"  # type: ignore[union-attr]
    assert "cpu 2500m instead of 2" in told.message  # type: ignore[union-attr]
    assert cluster.free_cpu() == 16_000 - 1000 - 3 * 2500


def test_slots_that_no_longer_fit_after_a_correction_are_owed_and_asked_for(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3)).expect_started()

    app.start_executor(requests=EXECUTOR + Resources.of(cpu=1000))
    cluster.wait(1)

    explanation = cluster.explain(app.key)
    assert (explanation.placed, explanation.unfilled, explanation.owed) == (1, 1, 1)
    assert sum(count for _, count in cluster.scheduler.demands()[app.key]) == 1


def test_tolerations_that_admission_adds_are_no_wrong_prediction(cluster: Cluster) -> None:
    """DefaultTolerationSeconds adds two tolerations to every pod before the webhook sees it."""
    app = cluster.with_nodes(1).submit(static(2)).expect_started()
    added = tuple(
        Toleration(f"node.kubernetes.io/{key}", "Exists", effect="NoExecute") for key in ("not-ready", "unreachable")
    )

    pod = app.start_executor(constraints=PodConstraints(tolerations=added))
    cluster.wait(1)

    assert pod.node == "node-1"
    assert cluster.decided(Publish) == []


def test_executors_with_a_node_selector_of_their_own_move_their_slots(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(2)).expect_started()
    cluster.with_nodes(1)
    only = PodConstraints(terms=(Term((Requirement("kubernetes.io/hostname", "In", ("node-2",)),)),))

    pod = app.start_executor(constraints=only)
    cluster.wait(1)

    assert pod.node == "node-2"
    assert app.slots() == {"node-2": 2}


def test_an_executor_bound_elsewhere_takes_its_slot_along(cluster: Cluster) -> None:
    """With the webhook away kube-scheduler binds wherever it likes."""
    app = cluster.with_nodes(1).submit(static(2)).expect_started()
    cluster.with_nodes(1)
    free = cluster.free_cpu()

    pod = replace(app.executor(), uid="uid-x", node="node-2", running=True)
    cluster.see(pod)

    assert app.slots() == {"node-1": 1, "node-2": 1}
    assert cluster.free_cpu() == free


def test_an_executor_without_webhook_is_left_to_kube_scheduler_then_adopted(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(2)).expect_started()
    pod = cluster.see(replace(app.executor(), uid="uid-x"))
    app.expect_running(0)

    cluster.bind(pod, "node-1")

    app.expect_running(1)
    assert cluster.explain(app.key).unfilled == 1


def test_a_second_answer_is_carried_out_when_the_first_one_counted(cluster: Cluster) -> None:
    """The API server retried the webhook, and stored the pod with the first answer."""
    app = cluster.with_nodes(1).submit(dynamic(0, 1)).expect_started()
    running = app.start_executor()
    pod = app.executor()
    hold = cluster.ask(pod)
    assert hold.mode is Mode.HOLD
    cluster.change(running, finished=True)
    bind = cluster.ask(pod)
    assert bind.mode is Mode.BIND

    stored = app.appear(pod, hold)

    assert (stored.gated, stored.node) == (False, "node-1")


def test_an_executor_of_an_ended_application_is_held_for_the_garbage_collector(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    app.end()

    placement = cluster.ask(app.executor())
    late = app.appear(app.executor(), placement)

    assert (placement.mode, placement.reason) == (Mode.HOLD, "its application has ended")
    assert cluster.free_cpu() == 8000 - 1000 + 1000
    cluster.remove(late)


def test_an_executor_whose_driver_is_not_known_yet_is_held(cluster: Cluster) -> None:
    cluster.with_nodes(1)
    pod = replace(notebook_executor(), owner="etl-driver")

    assert cluster.ask(pod).mode is Mode.HOLD


def test_executors_owned_by_the_pod_of_a_notebook_are_of_client_mode(cluster: Cluster) -> None:
    """``spark.kubernetes.driver.pod.name`` makes the notebook's own pod their owner."""
    cluster.with_nodes(1)
    pod = replace(notebook_executor(), owner="notebook")
    held = cluster.see(replace(pod, uid="uid-e", gated=True))

    cluster.see(Pod("default", "notebook", "uid-n", Resources.of(cpu=500), "node-1"))
    cluster.wait(1)

    assert cluster.pods[held.namespace, held.name].node == "node-1"
    assert cluster.ask(replace(pod, name="exec-2")).mode is Mode.BIND


def test_executors_of_client_mode_are_placed_as_they_come(cluster: Cluster) -> None:
    cluster.with_nodes(1)
    pod = notebook_executor()

    placement = cluster.ask(pod)

    assert (placement.mode, placement.extra) == (Mode.BIND, True)
    assert cluster.scheduler.status(pod.application).phase is Phase.RUNNING  # type: ignore[union-attr]


def test_a_gang_of_client_mode_is_held_until_all_of_it_has_room(cluster: Cluster) -> None:
    blocker = cluster.with_nodes(1).submit(static(2)).expect_started()
    pods = [replace(notebook_executor(f"exec-{i}"), gang_count=3, uid=f"uid-e{i}", gated=True) for i in range(3)]
    for pod in pods:
        assert cluster.ask(replace(pod, gated=False, uid="")).mode is Mode.HOLD
        cluster.see(pod)

    blocker.end()

    assert all(cluster.pods[pod.namespace, pod.name].node == "node-1" for pod in pods)
    assert cluster.reservations["default/notebook"][1].driver_node == ""


def test_a_gang_of_client_mode_that_fits_is_born_bound(cluster: Cluster) -> None:
    cluster.with_nodes(1)

    assert cluster.ask(replace(notebook_executor(), gang_count=3)).mode is Mode.BIND
    assert cluster.free_cpu() == 8000 - 3 * 2000


def test_client_mode_is_held_to_the_quota_of_the_queue_that_its_executors_name(cluster: Cluster) -> None:
    cluster.with_nodes(2).with_queues(QueueConfig(name="notebooks", max=Maximum.of(cpu=4000)))
    app = App(cluster, "default/notebook", dynamic(0))
    pods = [app.start_executor(owner="", queue="notebooks") for _ in range(3)]
    assert [pod.gated for pod in pods] == [False, False, True]


def test_client_mode_ends_when_it_has_had_no_pods_for_a_while(cluster: Cluster) -> None:
    cluster.with_nodes(1)
    pod = replace(notebook_executor(), gang_count=3)
    node = cluster.ask(pod).node
    seen = cluster.see(replace(pod, uid="uid-e", node=node, assigned=node))
    cluster.remove(seen)

    cluster.wait(30)

    assert cluster.statuses[pod.application].phase is Phase.FINISHED
    assert cluster.free_cpu() == 8000


def test_slots_on_a_tainted_node_move_before_executors_come(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(2)).expect_started()
    cluster.with_nodes(1)

    cluster.change_node("node-1", taints=(Taint("maintenance", "NoSchedule"),))

    assert app.slots() == {"node-2": 2}
    assert app.start_executor().node == "node-2"


@pytest.mark.parametrize(
    "change",
    [{"unschedulable": True}, {"ready": False}, {"taints": (Taint("maintenance", "NoSchedule"),)}],
    ids=["cordoned", "not ready", "tainted"],
)
def test_executors_are_never_bound_to_a_node_that_is_closed_to_them(
    cluster: Cluster, change: dict[str, object]
) -> None:
    app = cluster.with_nodes(1).submit(static(2)).expect_started()

    cluster.change_node("node-1", **change)

    assert cluster.ask(app.executor()).mode is Mode.HOLD


def notebook_executor(name: str = "exec-1") -> Pod:
    """An executor of an application in client mode."""
    return Pod("default", name, requests=EXECUTOR, role=Role.EXECUTOR, application="default/notebook")
