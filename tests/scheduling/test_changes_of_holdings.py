"""Who follows what an application holds is told of what changed, and only of that; put together it is the whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muster.scheduling.model import Holding, Outcome
from muster.scheduling.records import Journal
from tests.scheduling.cluster_story import App, Cluster, static
from tests.scheduling.test_offered_nodes import ask, schedule, started, unbound_executor

Clusters = Callable[..., Cluster]


@pytest.fixture
def cluster(clusters: Clusters) -> Cluster:
    return clusters(asked=True)


def changes(cluster: Cluster, app: App) -> Holding:
    found = cluster.scheduler.changes(app.key)
    assert found is not None
    return found


def test_the_first_look_tells_everything_and_the_next_one_nothing(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(2), static(3))

    first, second = changes(cluster, app), changes(cluster, app)

    assert first.whole
    assert first == cluster.scheduler.holding(app.key)
    assert (second.whole, second.unfilled, second.executors) == (False, (), ())


def test_an_executor_that_takes_a_slot_changes_its_node_and_nothing_else(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(3), static(9))
    changes(cluster, app)
    executor = unbound_executor(cluster, app)

    node = ask(cluster, executor).node

    found = changes(cluster, app)
    left = cluster.scheduler.unfilled(app.key).get(node, 0)
    assert [(slot.node, slot.count) for slot in found.unfilled] == [(node, left)]
    assert found.executors == ((executor.name, node),)
    assert cluster.scheduler.room_of(executor.namespace, executor.name) == node


def test_changes_put_together_are_what_is_held(cluster: Cluster) -> None:
    app = started(cluster.with_nodes(4), static(6))
    whole = changes(cluster, app)
    unfilled = {slot.node: slot.count for slot in whole.unfilled}
    executors = dict(whole.executors)

    def follow() -> None:
        found, held = changes(cluster, app), cluster.scheduler.holding(app.key)
        assert held is not None
        unfilled.update({slot.node: slot.count for slot in found.unfilled})
        executors.update(dict(found.executors))
        assert {node: count for node, count in unfilled.items() if count} == {
            slot.node: slot.count for slot in held.unfilled
        }
        assert {name: node for name, node in executors.items() if node} == dict(held.executors)
        assert found.owed == held.owed

    pods = [unbound_executor(cluster, app) for _ in range(4)]
    for pod in pods:
        assert schedule(cluster, pod).outcome is Outcome.SLOT
        follow()
    cluster.remove(pods[0])
    follow()
    cluster.lose_node(cluster.scheduler.room_of(pods[1].namespace, pods[1].name))
    follow()


def test_when_more_changed_than_is_worth_listing_everything_is_told_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "LIMIT", 1)
    app = started(cluster.with_nodes(2), static(3))
    changes(cluster, app)

    schedule(cluster, unbound_executor(cluster, app))

    found = changes(cluster, app)
    assert found.whole
    assert found == cluster.scheduler.holding(app.key)


def test_nothing_is_told_of_what_holds_nothing(cluster: Cluster) -> None:
    waiting = cluster.with_nodes(1).submit(static(50))
    assert cluster.scheduler.changes(waiting.key) is None
    assert cluster.scheduler.unfilled(waiting.key) == {}
