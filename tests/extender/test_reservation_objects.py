"""``ResourceReservation`` objects as the archived scheduler wrote them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from muster.cluster.quantity import QuantityError
from muster.cluster.resources import Resources
from muster.control.extender.reservations import (
    RESOURCE_RESERVATIONS,
    ResourceReservation,
    bound,
    free_slots,
    new_reservation,
)
from tests.extender.spark_objects import driver_pod

STORED: dict[str, Any] = {
    "apiVersion": "sparkscheduler.palantir.com/v1beta2",
    "kind": "ResourceReservation",
    "metadata": {"name": "app-1", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
    "spec": {
        "reservations": {
            "driver": {"node": "n1", "resources": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "0"}},
            "executor-1": {"node": "n1", "resources": {"cpu": "500m", "memory": "1Gi", "example.com/fpga": "3"}},
            "executor-10": {"node": "n3", "resources": {"cpu": "2", "memory": "1Gi"}},
            "executor-2": {"node": "n2", "resources": {"cpu": "2", "memory": "1Gi"}},
        }
    },
    "status": {"pods": {"driver": "d", "executor-1": "e1", "executor-2": "e2"}},
}


def stored(**changes: Any) -> ResourceReservation:
    return msgspec.convert(STORED | changes, ResourceReservation)


def test_a_new_reservation_is_written_like_the_originals() -> None:
    reservation = new_reservation(
        driver_pod(),
        "app-1",
        "n1",
        ["n2", "n2", "n1"],
        {"cpu": "1", "memory": "1Gi"},
        {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
        created="2023-04-20T12:00:05Z",
    )
    executor = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert json.loads(msgspec.json.encode(reservation)) == {
        "apiVersion": "sparkscheduler.palantir.com/v1beta2",
        "kind": "ResourceReservation",
        "metadata": {
            "name": "app-1",
            "namespace": "ns",
            "labels": {"app-id": "app-1"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": "driver",
                    "uid": "uid-of-driver",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "creationTimestamp": "2023-04-20T12:00:05Z",
        },
        "spec": {
            "reservations": {
                "driver": {"node": "n1", "resources": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "0"}},
                "executor-1": {"node": "n2", "resources": executor},
                "executor-2": {"node": "n2", "resources": executor},
                "executor-3": {"node": "n1", "resources": executor},
            }
        },
        "status": {"pods": {"driver": "driver"}},
    }
    assert RESOURCE_RESERVATIONS.path("ns", "app-1") == (
        "/apis/sparkscheduler.palantir.com/v1beta2/namespaces/ns/resourcereservations/app-1"
    )


def test_unknown_resources_are_kept_and_count_for_nothing() -> None:
    reservation = stored()
    assert json.loads(msgspec.json.encode(reservation))["spec"] == STORED["spec"]
    assert reservation.spec.reservations["executor-1"].requests == Resources.of(cpu=500, memory=2**30)


def test_a_reservation_without_status_has_no_pods() -> None:
    bare = {key: value for key, value in STORED.items() if key != "status"}
    assert msgspec.convert(bare, ResourceReservation).status.pods == {}


def test_an_amount_that_is_none_is_named() -> None:
    slots = {"driver": {"node": "n1", "resources": {"cpu": "lots"}}}
    with pytest.raises(QuantityError, match="cpu"):
        _ = stored(spec={"reservations": slots}).spec.reservations["driver"].requests


def test_binding_an_executor_writes_its_name_and_nothing_else() -> None:
    reservation = stored()
    changed = bound(reservation, "executor-10", "e10")
    assert changed.status.pods == {**STORED["status"]["pods"], "executor-10": "e10"}
    assert (changed.spec, changed.metadata) == (reservation.spec, reservation.metadata)
    assert "executor-10" not in reservation.status.pods
    assert (changed.slot_of("e10"), changed.slot_of("e11")) == ("executor-10", None)


def test_a_slot_may_move_to_the_node_of_its_new_pod() -> None:
    changed = bound(stored(), "executor-1", "e9", node="n9")
    slot = changed.spec.reservations["executor-1"]
    assert (slot.node, slot.resources["example.com/fpga"]) == ("n9", "3")
    assert changed.status.pods["executor-1"] == "e9"


def test_binding_to_a_slot_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        bound(stored(), "executor-3", "e3")


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"e1": "n1", "e2": "n2"}, ["executor-10"]),
        ({"e1": "n1", "e2": ""}, ["executor-10"]),
        ({"e1": "n1"}, ["executor-2", "executor-10"]),
        ({"e1": "n7", "e2": "n2"}, ["executor-1", "executor-10"]),
        ({}, ["executor-1", "executor-2", "executor-10"]),
    ],
    ids=["all-run", "one-not-yet-placed", "one-gone", "one-elsewhere", "driver-gone-too"],
)
def test_slots_are_free_when_nobody_is_there(nodes: dict[str, str], expected: list[str]) -> None:
    assert free_slots(stored(), nodes.get) == expected
