"""Every recorded scenario of the archived scheduler's filter, played call by call."""

from __future__ import annotations

import re
from typing import Any

import pytest

from muster.control.extender.outcomes import Outcome
from muster.kube.objects import Pod
from tests.extender.spark_objects import cases
from tests.extender.virtual_cluster import GIB, Cluster

RECORDED = cases("filter_calls")
FIFO = cases("fifo_selection")


class Play:
    """Resolves what a step calls ``dynamic exec 0`` to a pod, which is made when it is first named."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.cluster = Cluster(case["algorithm"])
        for node in case["nodes"]:
            self.cluster.node(node["name"], *node["allocatable"], labels=node["labels"])
        self.apps = case["apps"]
        self.pods: dict[str, Pod] = {}

    def pod(self, name: str) -> Pod:
        return self.pods.get(name) or self.pods.setdefault(name, self._made(name))

    def _made(self, name: str) -> Pod:
        kinds = {app["kind"]: app for app in self.apps}
        app = kinds[name.split()[0]] if name.split()[0] in kinds else self.apps[0]
        if not name.endswith("driver"):
            return self.cluster.executor(name, app["app_id"], scheduler="")
        cpu, memory, gpu = app["driver"]
        return self.cluster.driver(
            app["app_id"],
            name=name,
            cpu=cpu,
            memory=str(memory),
            gpu=gpu,
            executor=app["executor"],
            count=app.get("count"),
            minimum=app.get("min"),
            maximum=app.get("max"),
            scheduler="",
        )


def names(step: str) -> list[str]:
    """``static driver, exec 0 in turn`` → the pods that are asked about."""
    step = step.removesuffix(" in turn").removesuffix(" again").removesuffix(" (extra)").replace("executor ", "exec ")
    listed = [part.strip().removeprefix("exec named ") for part in step.split(",")]
    prefix = re.match(r"(static|dynamic) ", listed[0])
    return [part if prefix is None or part.startswith(prefix[0]) else prefix[0] + part for part in listed]


@pytest.mark.parametrize("case", RECORDED.values(), ids=RECORDED)
def test_calls_are_answered_as_recorded(case: dict[str, Any]) -> None:
    play = Play(case)
    cluster = play.cluster
    for step in case["steps"]:
        if "event" in step:
            [named] = re.findall(r"exec(?:utor)? \d+", step["event"])
            cluster.terminate_containers(play.pod(named.replace("executor", "exec")))
            continue
        for name in names(step["predicate"]):
            answer = cluster.schedule(play.pod(name), step["candidates"])
            expected = step.get("expect")
            if expected is not None:
                assert bool(answer.node) is expected.startswith("success"), (name, answer)
            if "node" in step:
                assert answer.node == step["node"]
    apps = [app["app_id"] for app in case["apps"]]
    if "expected_bound_executors" in case:
        bound = {pod for app in apps for slot, pod in cluster.names_of(app).items() if slot != "driver"}
        assert bound == set(case["expected_bound_executors"])
        soft = {pod: node for app in apps for pod, node in cluster.soft(app).items()}
        assert soft == case["expected_soft_reservations"]


@pytest.mark.parametrize("case", FIFO.values(), ids=FIFO)
def test_only_older_drivers_go_first(case: dict[str, Any]) -> None:
    """A driver is refused because of older ones exactly when one of those recorded does not fit."""
    cluster = Cluster()
    cluster.node("n1")
    cluster.pod("daemon", node="n1", scheduler="default-scheduler", requests={"cpu": "5"})
    for pod in case["all"]:
        if pod["uid"] != case["driver"]["uid"]:
            cluster.driver(f"app-{pod['uid']}", count=5, created=pod["created"])
    asked = cluster.driver(f"app-{case['driver']['uid']}", created=case["driver"]["created"])

    expected = Outcome.FAILURE_EARLIER_DRIVER if case["expected_earlier"] else Outcome.SUCCESS
    assert cluster.ask(asked).outcome is expected


def test_a_slot_of_a_pod_that_is_missing_is_bound_again_and_written() -> None:
    cluster = Cluster("single-az-minimal-fragmentation")
    cluster.node("n1", cpu=16, memory=64 * GIB)
    driver = cluster.driver(
        "appID1", name="my-pod-driver", memory="1024Mi", gpu=0, executor=(2, "4096Mi", 0), count=2, node="n1"
    )
    cluster.executor("my-pod-executor-1", "appID1", scheduler="", node="n1")
    cluster.reservation(
        {"driver": "n1", "executor-1": "n1", "executor-2": "n1"},
        {"driver": "my-pod-driver", "executor-1": "my-pod-executor-1", "executor-2": "missing-pod-1"},
        app="appID1",
        driver=driver,
    )
    cluster.restart()

    answer = cluster.ask(cluster.executor("new-podName", "appID1"), ["n1"])

    assert (answer.outcome, answer.node) == (Outcome.SUCCESS, "n1")
    assert cluster.names_of("appID1") == {
        "driver": "my-pod-driver",
        "executor-1": "my-pod-executor-1",
        "executor-2": "new-podName",
    }
