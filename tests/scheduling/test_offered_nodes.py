"""An external scheduler offers nodes for each pod it has yet to bind; the gang decides, and moves if it must."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.scheduling import recording
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import Place, ReleaseDriver
from muster.scheduling.model import Choice, Outcome, Phase, Pod
from muster.scheduling.scheduler import Scheduler
from tests.scheduling.cluster_story import App, Cluster, Spec, dynamic, static

Clusters = Callable[..., Cluster]


@pytest.fixture
def cluster(clusters: Clusters) -> Cluster:
    return clusters(asked=True)


def ask(cluster: Cluster, pod: Pod, offered: Sequence[str] | None = None) -> Choice:
    """kube-scheduler's filter call; without ``offered`` all nodes pass its own filters."""
    nodes = tuple(cluster.nodes) if offered is None else tuple(offered)
    choice = cluster.choose(pod, nodes)
    assert choice.node == "" or choice.node in nodes, "a node that was not offered is an error to kube-scheduler"
    return choice


def schedule(cluster: Cluster, pod: Pod, offered: Sequence[str] | None = None) -> Choice:
    """Ask, and bind as told."""
    choice = ask(cluster, pod, offered)
    if choice.node:
        cluster.change(pod, node=choice.node, gated=False, running=True)
    return choice


def unbound_executor(cluster: Cluster, app: App) -> Pod:
    """An executor that kube-scheduler has yet to bind."""
    return cluster.see(
        msgspec.structs.replace(app.executor(), uid=cluster.uid(), created=cluster.at, gated=True, node="")
    )


def started(cluster: Cluster, spec: Spec) -> App:
    app = cluster.submit(spec)
    assert schedule(cluster, app.driver).outcome is Outcome.SLOT
    return app


def test_a_driver_that_fits_with_its_executors_gets_its_node_every_time_it_is_asked_about(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(4))

    first = ask(cluster, app.driver)

    assert first.outcome is Outcome.SLOT
    assert ask(cluster, app.driver) == first
    assert cluster.free_cpu() == 16_000 - 1000 - 4 * 2000
    assert cluster.decided(ReleaseDriver) == [], "there is no gate to take off"


def test_a_gang_that_does_not_fit_is_refused_and_starts_when_it_does(cluster: Cluster) -> None:
    first = started(cluster.with_nodes(1), static(3))
    second = cluster.submit(static(3))
    assert ask(cluster, second.driver).outcome is Outcome.NO_ROOM

    first.end().collect()

    assert schedule(cluster, second.driver).outcome is Outcome.SLOT


def test_a_younger_gang_that_would_fit_waits_for_the_older_one(cluster: Cluster) -> None:
    started(cluster.with_nodes(1), static(1))
    cluster.submit(static(3))
    younger = cluster.submit(static(0))

    assert ask(cluster, younger.driver).outcome is Outcome.BEHIND


def test_older_gangs_that_fit_but_were_not_asked_about_yet_are_charged_in_full(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(2))

    younger = cluster.submit(static(2))

    assert ask(cluster, younger.driver).outcome is Outcome.NO_ROOM, "5 + 5 cores do not fit on 8"


def test_a_gang_moves_when_its_drivers_node_is_not_on_offer(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(3))
    elsewhere = next(name for name in cluster.nodes if name != ask(cluster, app.driver).node)

    choice = schedule(cluster, app.driver, [elsewhere])

    assert choice == Choice(Outcome.SLOT, elsewhere)
    assert app.reservation.driver_node == elsewhere
    assert cluster.free_cpu() == 16_000 - 1000 - 3 * 2000, "nothing is held twice"


def test_a_gang_that_cannot_move_keeps_what_it_has(cluster: Cluster) -> None:
    app = cluster.with_nodes(1).submit(static(3))
    before = app.reservation
    cluster.with_nodes(1, cpu=500)

    assert ask(cluster, app.driver, ["node-2"]).outcome is Outcome.NO_ROOM

    assert app.reservation == before
    assert ask(cluster, app.driver).node == "node-1"


def test_the_gang_of_a_driver_nobody_asks_about_gives_its_room_back_until_somebody_does(cluster: Cluster) -> None:
    stuck = cluster.with_nodes(1).submit(static(3))
    other = cluster.submit(static(3))
    assert ask(cluster, other.driver).outcome is Outcome.NO_ROOM

    cluster.wait(61)

    assert stuck.status.phase is Phase.PENDING
    assert schedule(cluster, other.driver).outcome is Outcome.SLOT
    assert ask(cluster, stuck.driver).outcome is Outcome.NO_ROOM
    other.end().collect()
    assert schedule(cluster, stuck.driver).outcome is Outcome.SLOT


def test_an_executor_takes_the_slot_that_comes_first_among_the_offered_nodes(cluster: Cluster) -> None:
    spec = static(2).with_executor(cpu=5000)
    app = started(cluster.with_nodes(2), spec)

    choice = schedule(cluster, unbound_executor(cluster, app), ["node-2", "node-1"])

    assert choice == Choice(Outcome.SLOT, "node-2")


def test_executors_are_never_placed_unasked(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), dynamic(1, 4))
    pods = [unbound_executor(cluster, app) for _ in range(3)]

    cluster.wait(100)

    assert cluster.decided(Place) == []
    assert app.status.held == 3
    assert [schedule(cluster, pod).outcome for pod in pods] == [Outcome.SLOT, Outcome.EXTRA, Outcome.EXTRA]


def test_a_slot_moves_to_an_offered_node_when_its_own_is_not_on_offer(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(1))
    [slot] = app.reservation.slots
    elsewhere = next(name for name in cluster.nodes if name != slot.node)
    pod = unbound_executor(cluster, app)

    assert ask(cluster, pod, [elsewhere]) == Choice(Outcome.MOVED, elsewhere)
    assert ask(cluster, pod) == Choice(Outcome.ALREADY, elsewhere)
    schedule(cluster, pod)

    assert cluster.free_cpu() == 16_000 - 1000 - 2000, "the slot is not kept where it was"


def test_a_promised_executor_whose_node_is_no_longer_on_offer_is_placed_anew(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(1))
    pod = unbound_executor(cluster, app)
    first = ask(cluster, pod).node
    elsewhere = next(name for name in cluster.nodes if name != first)

    assert ask(cluster, pod, [elsewhere]).node == elsewhere

    assert cluster.free_cpu() == 16_000 - 1000 - 2000


def test_executors_above_the_maximum_are_refused_and_a_dead_ones_slot_is_taken_again(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(1))
    first, second = unbound_executor(cluster, app), unbound_executor(cluster, app)
    assert schedule(cluster, first).outcome is Outcome.SLOT
    assert ask(cluster, second).outcome is Outcome.FULL

    cluster.change(first, finished=True, running=False)  # evicted: phase Failed, no container statuses

    assert schedule(cluster, second).outcome is Outcome.SLOT


def test_a_driver_without_executors_may_go_where_only_the_asker_would_put_it(cluster: Cluster) -> None:
    """A node that is not Ready: kube-scheduler offers it to pods that tolerate that; executors never go there."""
    cluster.with_nodes(1).change_node("node-1", ready=False)
    alone, with_executor = cluster.submit(static(0)), cluster.submit(static(1))

    assert ask(cluster, with_executor.driver).outcome is Outcome.NO_ROOM
    assert ask(cluster, alone.driver) == Choice(Outcome.SLOT, "node-1")


def test_a_driver_whose_node_vanished_before_it_was_bound_gets_another(cluster: Cluster) -> None:
    app = cluster.with_nodes(2).submit(static(1))
    first = ask(cluster, app.driver).node

    cluster.lose_node(first)

    assert schedule(cluster, app.driver).outcome is Outcome.SLOT


def test_what_was_answered_is_found_again_after_a_restart(cluster: Cluster) -> None:
    app = cluster.with_nodes(3).submit(static(4))
    answered = ask(cluster, app.driver)

    cluster.restart()

    assert ask(cluster, app.driver) == answered


@settings(max_examples=60)
@given(data=st.data())
def test_whatever_is_offered_nothing_is_overcommitted_and_the_log_replays(data: st.DataObject) -> None:
    cluster = Cluster(
        SchedulerConfig(asked=True, packer=data.draw(st.sampled_from(["tightly-pack", "distribute-evenly"])))
    )
    cluster.with_nodes(data.draw(st.integers(1, 4)), cpu=data.draw(st.sampled_from([4000, 8000])))
    apps: list[App] = []
    for _ in range(data.draw(st.integers(3, 20))):
        kind = data.draw(st.sampled_from(["submit", "driver", "executor", "ask", "end", "wait", "daemon", "node"]))
        names = sorted(cluster.nodes)
        offered = data.draw(st.permutations(names))[: data.draw(st.integers(0, len(names)))] if names else []
        unbound = [pod for pod in cluster.pods.values() if pod.gated and not pod.node]
        if kind == "submit":
            low = data.draw(st.integers(0, 3))
            apps.append(cluster.submit(dynamic(low, low + data.draw(st.integers(0, 2)))))
        elif kind == "executor" and apps:
            unbound_executor(cluster, data.draw(st.sampled_from(apps)))
        elif kind in ("driver", "ask") and unbound:
            act = schedule if kind == "driver" else ask
            act(cluster, data.draw(st.sampled_from(unbound)), offered)
        elif kind == "end" and apps:
            app = apps.pop(data.draw(st.integers(0, len(apps) - 1)))
            if app.driver_id in cluster.pods:
                app.end()
            app.collect()
        elif kind == "wait":
            cluster.wait(data.draw(st.sampled_from([1, 70])))
        elif kind == "daemon" and names:
            free = cluster.scheduler.table.free[0, cluster.scheduler.table.index[names[0]]]
            if free >= 500:
                cluster.daemon(names[0], cpu=500)
        elif kind == "node" and len(names) > 1:
            cluster.lose_node(names[-1])
            cluster.collect_pods_of(names[-1])
        cluster.scheduler.validate()
        assert cluster.overcommitted() == []
    inputs = [entry for entry in cluster.log if isinstance(entry, recording.Input)]
    again = list(recording.replay(Scheduler(cluster.config), inputs))
    assert again == [entry for entry in cluster.log if not isinstance(entry, recording.Input)]
