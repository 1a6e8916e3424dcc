"""What held executors demand: as many as may still come, oldest first, without those that slots are owed to."""

from __future__ import annotations

import msgspec

from muster.cluster.resources import Resources
from muster.scheduling.model import Pod
from tests.scheduling.cluster_story import EXECUTOR, GIB, App, Cluster, dynamic

LARGE = Resources.of(cpu=4000, memory=8 * GIB)


def full_cluster(cluster: Cluster, maximum: int | None) -> App:
    """Its driver runs, and there is no room for any executor."""
    app = cluster.with_nodes(1).submit(dynamic(0, maximum)).expect_started()
    node = next(iter(cluster.nodes))
    cluster.daemon(node, cpu=cluster.free_cpu() - 1000)
    return app


def held(cluster: Cluster, app: App, **changes: object) -> Pod:
    cluster.wait(1)  # each is younger than the one before
    return app.start_executor(created=cluster.at, **changes)


def demand(cluster: Cluster, app: App) -> dict[Resources, int]:
    counts: dict[Resources, int] = {}
    for shape, count in cluster.scheduler.demands().get(app.key, ()):
        counts[shape.requests] = counts.get(shape.requests, 0) + count
    return counts


def test_each_that_may_come_is_counted(cluster: Cluster) -> None:
    app = full_cluster(cluster, None)
    pods = [held(cluster, app) for _ in range(3)]
    assert demand(cluster, app) == {EXECUTOR: 3}
    cluster.remove(pods[0])
    assert demand(cluster, app) == {EXECUTOR: 2}


def test_no_more_than_the_maximum_of_each_profile(cluster: Cluster) -> None:
    app = full_cluster(cluster, 2)
    for _ in range(3):
        held(cluster, app)
        held(cluster, app, profile=1, requests=LARGE)
    assert demand(cluster, app) == {EXECUTOR: 2, LARGE: 2}


def test_of_a_profile_with_different_sizes_the_oldest_count(cluster: Cluster) -> None:
    app = full_cluster(cluster, 2)
    held(cluster, app, requests=LARGE)
    for _ in range(2):
        held(cluster, app)
    assert demand(cluster, app) == {LARGE: 1, EXECUTOR: 1}


def test_one_that_changes_while_it_is_held_counts_as_it_is_now(cluster: Cluster) -> None:
    app = full_cluster(cluster, None)
    pod = held(cluster, app)
    held(cluster, app)
    cluster.see(msgspec.structs.replace(cluster.pods[pod.namespace, pod.name], requests=LARGE))
    assert demand(cluster, app) == {LARGE: 1, EXECUTOR: 1}
