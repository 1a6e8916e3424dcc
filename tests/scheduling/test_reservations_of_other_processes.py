"""Where several processes are asked in turn, what another one reserved counts, also after the start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muster.scheduling.events import ReservationRestored
from muster.scheduling.model import Outcome, Phase, Reservation, Slot
from tests.scheduling.cluster_story import App, Cluster, static
from tests.scheduling.test_offered_nodes import ask, schedule, started, unbound_executor

Clusters = Callable[..., Cluster]


@pytest.fixture
def cluster(clusters: Clusters) -> Cluster:
    return clusters(asked=True)


def written(cluster: Cluster, app: App, driver_node: str, *slots: Slot) -> None:
    """Another process wrote this reservation, and the watch tells of it."""
    reservation = Reservation(app.key, 0, driver_node, slots)
    cluster.tell(ReservationRestored(cluster.at, cluster.applications[app.key], reservation))


def held(cluster: Cluster, app: App) -> Reservation:
    reservation = cluster.scheduler.reservation(app.key)
    assert reservation is not None, "it holds nothing"
    return reservation


def test_slots_go_where_the_other_process_put_them(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(2))

    written(cluster, app, "node-1", Slot("node-2", 2))

    assert held(cluster, app).slots == (Slot("node-2", 2),)
    assert cluster.free_cpu() == 16_000 - 1000 - 2 * 2000, "nothing is held twice"
    answer = ask(cluster, unbound_executor(cluster, app), ["node-1", "node-2"])
    assert (answer.outcome, answer.node) == (Outcome.SLOT, "node-2")


def test_a_driver_that_waits_here_and_was_answered_there_holds_what_it_was_given(cluster: Cluster) -> None:
    cluster.with_nodes(2)
    first = cluster.submit(static(3))
    second = cluster.submit(static(3))

    written(cluster, second, "node-2", Slot("node-2", 3))

    assert held(cluster, second).driver_node == "node-2"
    assert held(cluster, second).slots == (Slot("node-2", 3),)
    assert first.status.phase is Phase.RESERVED
    assert ask(cluster, second.driver).node == "node-2"


def test_what_nobody_asked_about_makes_way(cluster: Cluster) -> None:
    unasked = cluster.with_nodes(1).submit(static(3))
    other = cluster.submit(static(3))
    assert unasked.status.phase is Phase.RESERVED

    written(cluster, other, "node-1", Slot("node-1", 3))

    assert held(cluster, other).slots == (Slot("node-1", 3),)
    assert unasked.status.phase is Phase.PENDING


def test_slots_that_do_not_fit_here_are_owed(cluster: Cluster) -> None:
    holder = started(cluster.with_nodes(1), static(3))
    app = cluster.submit(static(1))

    written(cluster, app, "node-1", Slot("node-1", 1))
    assert cluster.overcommitted() == []
    holder.end().collect()

    assert held(cluster, app).slots == (Slot("node-1", 1),)


def test_executors_that_run_fill_the_slots_they_are_told_to_have(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(2))
    executor = unbound_executor(cluster, app)
    schedule(cluster, executor, ["node-1"])

    written(cluster, app, "node-1", Slot("node-1", 1), Slot("node-2", 1))

    assert held(cluster, app).slots == (Slot("node-1", 1), Slot("node-2", 1))
    assert cluster.free_cpu() == 16_000 - 1000 - 2 * 2000


def test_a_holding_names_the_executors_and_the_slots_that_are_left(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(3))
    executor = unbound_executor(cluster, app)
    node = schedule(cluster, executor).node

    holding = cluster.scheduler.holding(app.key)

    assert holding is not None
    assert holding.driver_node == "node-1"
    assert holding.executors == ((executor.name, node),)
    assert sum(slot.count for slot in holding.unfilled) == 2
    assert cluster.scheduler.holding("no/such") is None
