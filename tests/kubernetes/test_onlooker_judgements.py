"""The onlooker tells what it is there to tell: drivers released too early, and nodes that hold too much."""

from __future__ import annotations

import msgspec
import pytest

from muster.cluster.resources import Resources
from muster.kube.list_watch import Added, Deleted, Modified
from muster.kube.objects import Container, Pod, PodSpec, PodStatus, ResourceRequirements, SchedulingGate
from muster.kube.objects import ObjectMeta as Meta
from muster.kube.resources import Gang, GangDriver, GangExecutor, GangSlots, GangSpec, Shape
from tests.kubernetes.onlooker import Onlooker, half_started, overcommitted

ONE_CORE = {"cpu": "1"}
TWO_CORES = {"node-0": Resources.parse({"cpu": "2", "memory": "8Gi"})}


def pod(revision: int, name: str, role: str, node: str = "", phase: str = "Pending", *, gated: bool = False) -> Pod:
    meta = Meta(
        name=name,
        uid=name,
        resource_version=str(revision),
        labels={"spark-role": role, "spark-app-selector": "app"},
        annotations={"muster.dev/slot": node} if role == "executor" else {},
    )
    gates = (SchedulingGate("muster.dev/gang"),) if gated else ()
    containers = (Container("spark", resources=ResourceRequirements(requests=ONE_CORE)),)
    return Pod(meta, PodSpec(node_name=node, scheduling_gates=gates, containers=containers), PodStatus(phase))


def gang(revision: int, slots: int, minimum: int = 1) -> Gang:
    shape = Shape(requests=ONE_CORE)
    spec = GangSpec(
        "app",
        driver=GangDriver("driver", shape=shape),
        executor=GangExecutor(shape),
        min_executors=minimum,
        driver_node="node-0",
        slots=(GangSlots("node-0", slots),) if slots else (),
    )
    return Gang(Meta(name="app", uid="gang", resource_version=str(revision)), spec)


def watched(*states: Pod | Gang) -> Onlooker:
    onlooker = Onlooker()
    seen: set[str] = set()
    for state in states:
        onlooker.note(Modified(state) if state.metadata.uid in seen else Added(state))
        seen.add(state.metadata.uid)
    return onlooker


def test_a_driver_released_after_its_whole_minimum_was_reserved_is_right() -> None:
    states = (pod(1, "driver", "driver", gated=True), gang(2, slots=1), pod(3, "driver", "driver"))
    assert half_started(watched(*states)) == []


@pytest.mark.parametrize(
    ("gangs", "told"),
    [
        ((), ["driver was released without a gang"]),
        ((gang(2, slots=1, minimum=2),), ["driver was released with 1 of 2 slots"]),
        ((gang(4, slots=1),), ["driver was released without a gang"]),
    ],
)
def test_a_driver_released_before_that_is_told(gangs: tuple[Gang, ...], told: list[str]) -> None:
    watcher = watched(pod(1, "driver", "driver", gated=True), pod(3, "driver", "driver"), *gangs)
    assert half_started(watcher) == told


def test_a_node_that_its_pods_fill_exactly_is_right() -> None:
    bound = (pod(3, "driver", "driver", "node-0"), pod(4, "executor-1", "executor", "node-0"))
    watcher = watched(pod(1, "driver", "driver", gated=True), gang(2, slots=1), *bound)
    assert overcommitted(watcher, TWO_CORES) == []


def test_a_slot_that_nobody_fills_yet_counts_as_taken() -> None:
    other = msgspec.structs.replace(
        pod(3, "other", "", "node-0"), metadata=Meta(name="o", uid="o", resource_version="3")
    )
    watcher = watched(pod(1, "driver", "driver", gated=True), gang(2, slots=1), other)
    assert overcommitted(watcher, TWO_CORES) == ["revision 3: node-0 is to hold {'cpu': '3', 'pods': '1'}"]


def test_what_has_ended_or_gone_takes_nothing() -> None:
    more = pod(4, "executor-1", "executor", "node-0"), pod(5, "executor-2", "executor", "node-0")
    driver = pod(3, "driver", "driver", "node-0")
    watcher = watched(gang(1, slots=1), pod(2, "driver", "driver"), driver, *more)
    assert len(overcommitted(watcher, TWO_CORES)) == 1
    ended = pod(4, "executor-1", "executor", "node-0", "Failed")
    assert overcommitted(watched(gang(1, slots=1), driver, ended, more[1]), TWO_CORES) == []
    gone = watched(gang(1, slots=1), driver, more[0])
    gone.note(Deleted("", "executor-1", "executor-1", pod(5, "executor-1", "executor", "node-0")))
    gone.note(Added(pod(6, "executor-2", "executor", "node-0")))
    assert overcommitted(gone, TWO_CORES) == []
