"""Random lives with queues: whatever comes, goes and is configured anew, nobody is given more than a limit allows."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.queueing.config import Limit, Maximum, Policy, QueueConfig
from muster.scheduling.model import Phase
from tests.scheduling.cluster_story import DRIVER, EXECUTOR, App, Cluster, dynamic

LEAVES = ("red-1", "red-2", "blue")
USERS = ("ann", "bob")
Books = dict[tuple[str, str], int]
"""Millicores held, by queue and user ("" is everybody)."""


def a_tree(red: int | None, blue: int | None, each: int | None, policy: Policy) -> tuple[QueueConfig, ...]:
    def most(cores: int | None) -> Maximum:
        return Maximum.of(cpu=1000 * cores) if cores is not None else Maximum()

    limits = (Limit(users=("*",), max=most(each)),) if each is not None else ()
    return (
        QueueConfig(name="red", max=most(red), policy=policy, limits=limits),
        QueueConfig(name="red-1", parent="red", policy=policy),
        QueueConfig(name="red-2", parent="red"),
        QueueConfig(name="blue", max=most(blue), policy=policy),
    )


cores = st.none() | st.integers(3, 12)
trees = st.builds(a_tree, cores, cores, cores, st.sampled_from(tuple(Policy)))
submitted = st.tuples(st.just("submit"), st.integers(0, 4), st.sampled_from(LEAVES), st.sampled_from(USERS))
picked = st.tuples(st.sampled_from(["executor", "executor", "end", "delete"]), st.integers(0, 30))
rare = st.tuples(st.just("configure"), trees) | st.just(("restart",)) | st.just(("wait",))
actions = st.one_of(submitted, submitted, picked, picked, picked, rare)


class Life:
    def __init__(self, tree: tuple[QueueConfig, ...]) -> None:
        self.cluster = Cluster().with_nodes(3).with_queues(*tree)
        self.apps: list[App] = []

    def do(self, action: tuple[object, ...]) -> None:
        match action:
            case ("submit", int(minimum), str(queue), str(user)):
                self.apps.append(self.cluster.submit(dynamic(minimum, minimum + 3).queued(queue, user)))
            case ("executor", int(pick)) if running := self.running():
                running[pick % len(running)].start_executor()
            case ("end", int(pick)) if running := self.running():
                running[pick % len(running)].end().collect()
            case ("delete", int(pick)) if self.apps:
                self.apps.pop(pick % len(self.apps)).collect()
            case ("configure", tuple() as tree):
                self.cluster.with_queues(*tree)
            case ("restart",):
                self.cluster.restart()
            case ("wait",):
                self.cluster.wait(31)

    def running(self) -> list[App]:
        return [app for app in self.apps if app.driver_id in self.cluster.pods and app.driver.node]

    def held(self) -> Books:
        """From outside: pods, and minimums that are reserved."""
        held: Counter[tuple[str, str]] = Counter()
        placed = Counter(
            pod.application for pod in self.cluster.pods.values() if pod.node and pod.name.find("-exec-") > 0
        )
        for app in self.apps:
            status = self.cluster.scheduler.status(app.key)
            if status is None or status.phase not in (Phase.RESERVED, Phase.RUNNING):
                continue
            executors = max(app.spec.minimum, placed[app.key])
            amount = DRIVER.get("cpu") + executors * EXECUTOR.get("cpu")
            for queue in {app.spec.queue, app.spec.queue.partition("-")[0]}:
                held[queue, ""] += amount
                held[queue, app.spec.user] += amount
        return dict(held)

    def limits(self) -> Books:
        limits: Books = {}
        for queue in self.cluster.queues:
            for _, most in queue.max.amounts:
                limits[queue.name, ""] = most
            for limit in queue.limits:
                for _, most in limit.max.amounts:
                    limits |= {(queue.name, user): most for user in USERS}
        return limits


@given(trees, st.lists(actions, min_size=15, max_size=50))
@settings(max_examples=80, deadline=None)
def test_nobody_is_given_more_than_a_limit_allows(
    tree: tuple[QueueConfig, ...], story: list[tuple[object, ...]]
) -> None:
    life = Life(tree)
    before: Books = {}
    for action in story:
        life.do(action)
        life.cluster.wait(0)
        life.cluster.scheduler.validate()
        held, limits = life.held(), life.limits()
        for place, amount in held.items():
            allowed = limits.get(place, amount)
            # a limit that is lowered takes nothing away, but it gives nothing either
            assert amount <= max(allowed, before.get(place, 0)), f"{place} holds {amount} of {allowed} after {action}"
        before = held


@given(trees, st.lists(submitted, min_size=5, max_size=20))
@settings(max_examples=40, deadline=None)
def test_in_the_end_everybody_has_run_who_may_ever(
    tree: tuple[QueueConfig, ...], story: list[tuple[object, ...]]
) -> None:
    life = Life(tree)
    for action in story:
        life.do(action)
    for _ in range(len(life.apps) + 1):
        for app in life.running():
            app.end().collect()
    for key, status in life.cluster.scheduler.applications().items():
        assert status.reason in ("ExceedsQueue", "ExceedsCluster"), f"{key} waits: {status}"
    assert life.cluster.free_cpu() == 3 * 8000, "nothing leaks"
