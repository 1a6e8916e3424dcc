"""EASY backfilling: who waits at the head is promised a time, and whoever passes it does not make it later."""

from __future__ import annotations

import random

import pytest

from muster.queueing.config import Maximum, QueueConfig
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.model import Phase
from tests.scheduling.cluster_story import GIB, App, Cluster, Spec, static

SMALL = {"cpu": 500, "memory": GIB}


def tiny(seconds: float | None) -> Spec:
    """One core: half for the driver, half for its executor."""
    return static(1).with_driver(**SMALL).with_executor(**SMALL).running_for(seconds)


WHOLE_NODE = static(3).with_driver(cpu=2000, memory=GIB)


def a_full_node_with_one_core_left(cluster: Cluster) -> App:
    return cluster.with_nodes(1).submit(static(3).running_for(100)).expect_started()


def test_a_short_one_that_will_have_ended_passes(cluster: Cluster) -> None:
    first = a_full_node_with_one_core_left(cluster)
    head = cluster.submit(WHOLE_NODE).expect_held("WaitingForCapacity")
    short = cluster.submit(tiny(50)).expect_started()

    short.end().collect()
    first.end().collect()
    head.expect_started()


@pytest.mark.parametrize("seconds", [200, None])
def test_one_that_would_still_run_or_may_is_held(cluster: Cluster, seconds: float | None) -> None:
    a_full_node_with_one_core_left(cluster)
    cluster.submit(WHOLE_NODE).expect_held("WaitingForCapacity")
    cluster.submit(tiny(seconds)).expect_held("BehindEarlier")


def test_one_that_needs_nothing_of_what_the_head_will_take_passes_however_long_it_runs(cluster: Cluster) -> None:
    a_full_node_with_one_core_left(cluster)
    cluster.with_nodes(1, cpu=2000)
    cluster.submit(WHOLE_NODE).expect_held("WaitingForCapacity")

    cluster.submit(tiny(None)).expect_started()
    cluster.submit(tiny(None)).expect_started()
    cluster.submit(tiny(None)).expect_held("BehindEarlier")  # the core beside the first application is the head's


def test_nobody_passes_where_nothing_tells_when_the_head_can_start(cluster: Cluster) -> None:
    cluster.with_nodes(1).submit(static(3)).expect_started()
    cluster.submit(WHOLE_NODE).expect_held("WaitingForCapacity")
    cluster.submit(tiny(1)).expect_held("BehindEarlier")


def test_nobody_passes_on_the_strength_of_an_expectation_that_has_been_outrun(cluster: Cluster) -> None:
    a_full_node_with_one_core_left(cluster)
    cluster.wait(101).submit(WHOLE_NODE).expect_held("WaitingForCapacity")
    cluster.submit(tiny(50)).expect_held("BehindEarlier")


def test_nobody_passes_where_backfill_is_off() -> None:
    cluster = Cluster(SchedulerConfig(backfill=False))
    a_full_node_with_one_core_left(cluster)
    cluster.submit(WHOLE_NODE).expect_held("WaitingForCapacity")
    cluster.submit(tiny(50)).expect_held("BehindEarlier")


def test_no_promise_is_broken_by_whoever_passed() -> None:
    """Applications of true expectations come and go; the head's time, once promised, never moves back."""
    passed = sum(_passed_in_a_random_run(seed) for seed in range(12))
    assert passed > 100, f"{passed} passed: runs in which nobody passes show nothing"


def _passed_in_a_random_run(seed: int) -> int:
    luck = random.Random(seed)
    cluster = Cluster().with_nodes(luck.randint(2, 5))
    cores = 8 * len(cluster.nodes)
    alive: dict[str, App] = {}
    promised: dict[str, float] = {}
    passed: set[str] = set()
    for _ in range(120):
        if luck.random() < 0.6:
            executors = luck.choice((1, 1, 1, 2, 3, 4, cores // 2 - 2 * len(cluster.nodes)))
            spec = static(executors).running_for(float(luck.randint(5, 120))).with_driver(**SMALL)
            if executors < 3:
                spec = spec.with_executor(cpu=luck.choice((500, 1000)), memory=GIB)
            app = cluster.submit(spec)
            alive[app.key] = app
        until = cluster.at + luck.randint(1, 20)
        while (due := min((end(app) for _, app in running(alive)), default=float("inf"))) <= until:
            cluster.at = max(cluster.at, due)
            for key, app in running(alive):
                if end(app) == due:
                    alive.pop(key).end().collect()
        cluster.wait(max(0.0, until - cluster.at))
        for future in cluster.scheduler._state.futures.values():
            promised[future.key] = min(promised.get(future.key, future.at), future.at)
        for key, _ in running(alive):
            begun = cluster.scheduler.status(key)
            assert begun is not None and begun.reserved is not None
            assert begun.reserved <= promised.get(key, begun.reserved), f"{key} was promised {promised[key]}"
            if any(entry.what.startswith("passed ") for entry in cluster.scheduler.story(key)):
                passed.add(key)
        cluster.scheduler.validate()
    return len(passed)


def running(alive: dict[str, App]) -> list[tuple[str, App]]:
    return [(key, app) for key, app in alive.items() if phase(app) in (Phase.RESERVED, Phase.RUNNING)]


def phase(app: App) -> Phase:
    status = app.cluster.scheduler.status(app.key)
    assert status is not None
    return status.phase


def end(app: App) -> float:
    status = app.cluster.scheduler.status(app.key)
    assert status is not None and status.reserved is not None and app.spec.run_seconds is not None
    return status.reserved + app.spec.run_seconds


def test_nobody_passes_who_would_take_the_quota_that_the_head_will_need(cluster: Cluster) -> None:
    team = QueueConfig(name="team", max=Maximum.of(cpu=12_000))
    cluster.with_queues(team, QueueConfig(name="a", parent="team"), QueueConfig(name="b", parent="team"))
    cluster.with_nodes(1).with_nodes(1, cpu=6000)
    cluster.submit(static(3).running_for(100)).expect_started()
    head = cluster.submit(WHOLE_NODE.queued("a")).expect_held("WaitingForCapacity")

    for _ in range(4):
        cluster.submit(tiny(None).queued("b")).expect_started()
    late = cluster.submit(tiny(None).queued("b")).expect_held("BehindEarlier")
    assert head.key in late.status.message
    cluster.submit(tiny(50).queued("b")).expect_started()  # its quota will be back by then
    cluster.submit(tiny(None)).expect_started()  # another queue's
