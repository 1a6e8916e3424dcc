"""A process that starts among running applications: what it makes of their pods and reservations, as recorded.

Where the archived scheduler was wrong the right outcome is asserted; docs/migrating-from-palantir.md tells which.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from muster.control.extender.outcomes import Outcome
from tests.extender.spark_objects import cases
from tests.extender.virtual_cluster import Cluster

RECORDED = cases("failover")
DIFFERENT = (
    "failover/driver-pod-missing",
    "failover/succeeded-driver",
    "failover/not-enough-room",
    "failover/driver-slot-reused",
)


def started(case: dict[str, Any]) -> Cluster:
    """The situation of a case, and a process that has been asked once."""
    cluster = Cluster()
    for number in (1, 2, 3):
        cluster.node(f"node{number}", age=1000 - number)
    counts = [int(text) for text in re.findall(r"\d+", case["app"])]
    sizes = {"minimum": counts[0], "maximum": counts[1]} if len(counts) == 2 else {"count": counts[0]}
    driver = None
    for name, where in case["running"].items():
        node, *phase = where.split(" (phase ")
        more = {"node": node, "phase": phase[0].rstrip(")") if phase else "Running"}
        if name == "driver":
            driver = cluster.driver(name="driver", **sizes, **more)
        else:
            cluster.executor(name, **more)
    if case["reservation"] is not None:
        cluster.reservation(case["reservation"]["nodes"], case["reservation"]["pods"], driver=driver)
    cluster.restart()
    cluster.ask(cluster.pod("anything", scheduler="default-scheduler"))
    return cluster


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in DIFFERENT])
def test_a_new_process_finds_what_was_reserved(name: str) -> None:
    expected = RECORDED[name]["expected"]
    cluster = started(RECORDED[name])

    assert cluster.nodes_of() == expected["nodes"]
    assert cluster.names_of() == expected["pods"]
    if "soft" in expected:
        soft = list(cluster.soft().items())
        maximum = int(RECORDED[name]["app"].split("..")[1])
        minimum = len(expected["nodes"]) - 1
        assert dict(soft[: maximum - minimum]) == expected["soft"]


def test_a_reservation_without_its_driver_stops_nobody() -> None:
    cluster = started(RECORDED["failover/driver-pod-missing"])

    other = cluster.driver("other", count=1)

    assert cluster.schedule(other).outcome is Outcome.SUCCESS
    orphan = cluster.ask(cluster.executor("exec-1"))
    assert orphan.outcome is Outcome.FAILURE_INTERNAL
    assert orphan.message == ("error when looking for already bound reservations: failed to get resource reservations")


def test_a_finished_driver_gets_no_reservation() -> None:
    cluster = started(RECORDED["failover/succeeded-driver"])

    assert list(cluster.reservations) == []
    whole = cluster.driver("next", count=23)
    assert cluster.ask(whole).outcome is Outcome.SUCCESS, "the finished one holds nothing"


def test_as_many_slots_as_fit_beside_the_driver_and_no_more() -> None:
    cluster = started(RECORDED["failover/not-enough-room"])

    recorded = RECORDED["failover/not-enough-room"]["expected"]["executor_slots_by_node"]
    slots = Counter(node for slot, node in cluster.nodes_of().items() if slot != "driver")
    assert slots == recorded | {"node1": recorded["node1"] - 1}, "the driver has one core of node1"


def test_slots_that_did_not_fit_at_the_start_are_added_when_there_is_room() -> None:
    cluster = started(RECORDED["failover/not-enough-room"])

    cluster.node("node4", cpu=32)
    cluster.wait(1)

    assert len(cluster.slots()) == 41


def test_a_drivers_slot_is_never_an_executors() -> None:
    cluster = started(RECORDED["failover/driver-slot-reused"])

    assert cluster.names_of() == {}
