"""Nodes vanish, pods change, the process dies: slots move or are owed, nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from muster.cluster.constraints import Taint
from muster.cluster.resources import Resources
from muster.scheduling.decisions import Publish, ReleaseDriver
from muster.scheduling.events import ApplicationFound
from muster.scheduling.model import Phase
from tests.scheduling.cluster_story import GIB, App, Cluster, dynamic, static

Clusters = Callable[..., Cluster]


def test_slots_of_a_lost_node_move_in_one_step(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3)).expect_started()
    app.start_executor()
    driver_node = app.driver.node
    cluster.with_nodes(1)
    assert driver_node == "node-1"

    decided = len(cluster.decisions)
    cluster.lose_node("node-1")

    assert app.slots() == {"node-2": 3}, "filled and unfilled ones"
    assert len(cluster.decisions) > decided
    app.expect_running(0)


def test_slots_that_cannot_move_are_owed_and_come_before_the_queue(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.with_nodes(1).daemon("node-2", cpu=5000)
    cluster.change_node("node-1", unschedulable=True)
    assert app.slots() == {"node-2": 1}
    assert cluster.explain(app.key).owed == 2
    assert cluster.scheduler.demands()[app.key][0][1] == 2
    waiting = cluster.submit(static(0)).expect_held("BehindEarlier")

    cluster.with_nodes(1, cpu=4000)

    assert sum(app.slots().values()) == 3
    waiting.expect_started()


def test_pods_of_a_node_that_comes_back_take_their_slots_back(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(4)).expect_started()
    app.start_executors(4)
    node = cluster.nodes["node-1"]
    free = cluster.free_cpu()
    cluster.lose_node("node-1")

    cluster.see_node(node)

    assert cluster.free_cpu() == free
    app.expect_running(4)


def test_a_driver_not_released_yet_waits_again_when_its_node_is_lost(cluster: Cluster) -> None:
    cluster.carries_out = False
    app = cluster.with_nodes(1).submit(static(1))
    assert app.status.phase is Phase.RESERVED

    cluster.lose_node("node-1")

    app.expect_held("ExceedsCluster")
    assert app.reservation.slots == ()
    cluster.carries_out = True
    cluster.with_nodes(1)
    app.expect_started()


def test_a_released_driver_whose_node_is_lost_is_told_about(cluster: Cluster) -> None:
    cluster.carries_out = False
    app = cluster.with_nodes(1).submit(static(1))
    cluster.change(app.driver, gated=False, assigned="node-1")

    cluster.lose_node("node-1")

    assert [event.reason for event in cluster.decided(Publish)] == ["DriverNodeGone"]  # type: ignore[union-attr]


def test_room_taken_by_others_moves_slots_away(cluster: Cluster) -> None:
    """kube-scheduler does not see unfilled slots; a DaemonSet pod may land on them."""
    app = cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.with_nodes(1)

    cluster.daemon("node-1", cpu=2000)

    assert app.slots() == {"node-1": 2, "node-2": 1}


def test_a_node_that_shrinks_keeps_what_still_fits(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3)).expect_started()

    cluster.change_node("node-1", allocatable=Resources.of(cpu=4000, memory=32 * GIB, pods=110))

    assert app.slots() == {"node-1": 1}
    assert cluster.explain(app.key).owed == 2


def test_a_resized_executor_is_charged_anew(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    pod = app.start_executor()

    cluster.change(pod, requests=Resources.of(cpu=4000, memory=4 * GIB))

    assert cluster.free_cpu() == 8000 - 1000 - 4000


def test_finished_pods_hold_nothing(cluster: Cluster) -> None:
    cluster.with_nodes(1)
    pod = cluster.daemon("node-1", cpu=3000)
    cluster.change(pod, finished=True)

    assert cluster.free_cpu() == 8000


def test_a_pod_seen_before_its_node_is_charged_when_the_node_comes(cluster: Cluster) -> None:
    cluster.daemon("node-1", cpu=3000)
    cluster.with_nodes(1)

    assert cluster.free_cpu() == 5000


def test_another_pod_of_the_same_name_is_another_pod(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1)).expect_started()
    pod = app.start_executor()

    cluster.see(replace(pod, uid="uid-other", requests=Resources.of(cpu=1000)))
    app.expect_running(1)

    cluster.remove(replace(pod, uid="uid-other"))
    app.expect_running(0)


def test_a_driver_that_ran_before_muster_is_adopted_with_its_executors(cluster: Cluster) -> None:
    cluster.with_nodes(2)
    app = running_without_muster(cluster, executors=2, minimum=3)

    app.found()

    assert app.status.phase is Phase.RUNNING
    assert sum(app.slots().values()) == 3
    assert cluster.explain(app.key).unfilled == 1


def test_an_adopted_application_is_owed_what_does_not_fit(cluster: Cluster) -> None:
    cluster.with_nodes(1)
    app = running_without_muster(cluster, executors=2, minimum=5)

    app.found()

    assert cluster.explain(app.key).owed == 2
    assert cluster.explain(app.key).unfilled == 1


def test_a_restart_rebuilds_the_same_state(cluster: Cluster) -> None:
    cluster.with_nodes(3)
    first = cluster.submit(static(4)).expect_started()
    first.start_executors(2)
    second = cluster.submit(dynamic(1, 4)).expect_started()
    second.start_executors(3)
    waiting = cluster.submit(static(8)).expect_held("WaitingForCapacity")
    before = books(cluster)

    cluster.restart()

    assert books(cluster) == before
    assert cluster.decisions[-1:] == [] or not any(isinstance(d, ReleaseDriver) for d in cluster.log)
    waiting.expect_held("WaitingForCapacity")


def test_a_crash_between_reserve_and_release_releases_after_the_restart(cluster: Cluster) -> None:
    cluster.carries_out = False
    app = cluster.with_nodes(1).submit(static(3))
    assert app.driver.gated
    cluster.carries_out = True

    cluster.restart()

    app.expect_started()
    assert cluster.free_cpu() == 8000 - 7000


def test_a_reservation_that_lost_its_node_meanwhile_is_made_anew_or_waits(cluster: Cluster) -> None:
    cluster.carries_out = False
    app = cluster.with_nodes(1).submit(static(3))
    del cluster.nodes["node-1"]
    cluster.carries_out = True
    cluster.restart()
    app.expect_held("ExceedsCluster")

    cluster.with_nodes(1)

    app.expect_started()


def test_an_outdated_reservation_of_a_waiting_gang_takes_nothing_from_one_that_started(cluster: Cluster) -> None:
    """Each gang is written by itself: the newer reservation may have got through, the end of the older one not."""
    cluster.carries_out = False
    waiting = cluster.with_nodes(1).submit(static(3).named("a"))
    node = cluster.nodes["node-1"]
    cluster.writes = False
    cluster.lose_node("node-1")
    cluster.carries_out = cluster.writes = True
    cluster.see_node(replace(node, allocatable=Resources.of(cpu=6000, memory=32 * GIB, pods=110)))
    started = cluster.submit(static(2).named("b")).expect_started()
    cluster.nodes["node-1"] = node

    cluster.restart()

    assert cluster.explain(started.key).unfilled == 2
    waiting.expect_held("WaitingForCapacity")


def test_a_driver_that_ended_while_nobody_watched_frees_its_gang(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.pods[app.driver_id] = replace(app.driver, finished=True)

    cluster.restart()

    assert cluster.free_cpu() == 8000
    assert cluster.statuses[app.key].phase is Phase.FINISHED


def test_held_extras_survive_a_restart(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(dynamic(0)).expect_started()
    running = app.start_executors(3)
    held = app.start_executor()
    assert held.gated

    cluster.restart()
    cluster.change(running[0], finished=True)

    assert not cluster.pods[held.namespace, held.name].gated


def test_a_slot_moved_by_a_lost_node_is_not_lost_by_a_restart(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(4)).expect_started()
    app.start_executors(2)
    cluster.with_nodes(1)
    cluster.lose_node("node-1")
    before = books(cluster)

    cluster.restart()

    assert books(cluster) == before
    assert sum(app.slots().values()) == 4


def test_an_application_whose_driver_never_appears_is_forgotten(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(1), found=False)
    application = app.application
    cluster.remove(app.driver)

    cluster.tell(ApplicationFound(cluster.at, application))
    cluster.wait(30)

    assert cluster.scheduler.applications() == {}


def test_nothing_is_left_of_ended_applications(cluster: Cluster) -> None:
    cluster.with_nodes(2)
    for _ in range(5):
        app = cluster.submit(dynamic(1, 3)).expect_started()
        app.start_executors(4)
        app.end().collect()

    assert cluster.scheduler.applications() == {}
    assert cluster.free_cpu() == 16_000


def running_without_muster(cluster: Cluster, *, executors: int, minimum: int) -> App:
    """The webhook was away: driver and executors were placed by ordinary scheduling."""
    app = App(cluster, "default/adopted", static(minimum))
    app.submit(found=False, gated=False)
    cluster.bind(app.driver, "node-1")
    for number in range(executors):
        cluster.see(replace(app.executor(), uid=f"uid-a{number}", node="node-1", running=True))
    return app


def books(cluster: Cluster) -> dict[str, object]:
    """What the scheduler holds, by what can be asked of it."""
    held = {
        key: (
            status.phase,
            status.reason,
            status.running,
            status.held,
            status.extras,
            cluster.explain(key).unfilled,
            cluster.explain(key).owed,
        )
        for key, status in cluster.scheduler.applications().items()
    }
    table = cluster.scheduler._state.table
    return {"held": held, "free": {name: table.free[:, row].tolist() for name, row in table.index.items()}}


def test_room_claimed_by_two_reservations_after_a_crash_is_that_of_the_younger_gang(cluster: Cluster) -> None:
    """The older one's slots had followed its executors to another node, which was not written any more."""
    taint = Taint("pool", "NoSchedule")
    cluster.with_nodes(1, cpu=7000)
    older = cluster.submit(dynamic(3, 6).tolerating("pool")).expect_started()
    first = older.start_executors(3)
    cluster.with_nodes(1, cpu=6000, taints=(taint,))
    extras = older.start_executors(3)
    for executor in first:
        cluster.remove(executor)
    younger = cluster.submit(static(2)).expect_started()
    assert (older.slots(), younger.slots()) == ({"node-1": 3}, {"node-1": 2})
    cluster.writes = False
    for executor in extras:
        cluster.remove(executor)

    cluster.writes = True
    cluster.restart()

    assert (older.slots(), younger.slots()) == ({"node-2": 3}, {"node-1": 2})
    younger.start_executors(2)
    younger.expect_running(2)
    assert not cluster.overcommitted()
