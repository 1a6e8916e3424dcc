"""Versions of the archived scheduler's resources are converted into each other as its webhook did."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.control.extender.conversion import BadConversion, ConversionError, answer_review, convert
from tests.extender.spark_objects import cases

CASES = cases("conversion")
V1, V2 = "sparkscheduler.palantir.com/v1beta1", "sparkscheduler.palantir.com/v1beta2"
A1, A2 = "scaler.palantir.com/v1alpha1", "scaler.palantir.com/v1alpha2"
ANNOTATION = "sparkscheduler.palantir.com/reservation-spec"
METADATA = {"name": "app", "namespace": "ns", "uid": "u", "managedFields": [{"manager": "somebody"}]}


def slot(cpu: str, memory: str, gpu: str | None = None) -> dict[str, Any]:
    return {"node": "test_node", "resources": {"cpu": cpu, "memory": memory} | ({"nvidia.com/gpu": gpu} if gpu else {})}


def reservation(**slots: Any) -> dict[str, Any]:
    return {
        "apiVersion": V2,
        "kind": "ResourceReservation",
        "metadata": METADATA,
        "spec": {"reservations": slots},
        "status": {"pods": {name: f"pod-of-{name}" for name in slots}},
    }


def source(case: str) -> dict[str, Any]:
    node, amounts = CASES["conv/v1beta2-to-v1beta1-gpu"]["source"]["driver"]
    assert node == "test_node"
    assert CASES[case]["status"] == "upstream"
    return reservation(driver=slot(amounts["cpu"], amounts["memory"], amounts["gpu"]))


def test_cpu_and_memory_get_fields_and_the_whole_spec_an_annotation() -> None:
    original = source("conv/v1beta2-to-v1beta1-gpu")
    old = convert(original, V1)
    assert old["apiVersion"] == V1
    assert old["spec"] == {"reservations": {"driver": {"node": "test_node", "cpu": "1", "memory": "2"}}}
    assert json.loads(old["metadata"]["annotations"][ANNOTATION]) == original["spec"]
    assert old["status"] == original["status"]
    assert {key: value for key, value in old["metadata"].items() if key != "annotations"} == METADATA


def test_gpus_come_back_and_the_annotation_goes() -> None:
    original = source("conv/v1beta1-to-v1beta2-gpu")
    assert convert(convert(original, V1), V2) == original


def test_without_annotation_there_are_no_gpus() -> None:
    assert CASES["conv/v1beta1-to-v1beta2-nogpu"]["status"] == "upstream"
    old = convert(source("conv/v1beta1-to-v1beta2-nogpu"), V1)
    del old["metadata"]["annotations"]
    assert convert(old, V2)["spec"] == {"reservations": {"driver": slot("1", "2")}}
    assert "annotations" not in convert(old, V2)["metadata"]


def test_a_changed_field_wins_over_the_annotation() -> None:
    old = convert(source("conv/roundtrip-changed-field"), V1)
    old["spec"]["reservations"]["driver"]["cpu"] = "10"
    assert convert(old, V2)["spec"] == {"reservations": {"driver": slot("10", "2", "3")}}


def test_a_slot_added_in_v1beta1_has_no_gpus() -> None:
    old = convert(source("conv/roundtrip-added-reservation"), V1)
    old["spec"]["reservations"]["executor"] = {"node": "test_node", "cpu": "20", "memory": "20"}
    old["status"]["pods"]["executor"] = "pod"
    new = convert(old, V2)
    assert new["spec"] == {"reservations": {"driver": slot("1", "2", "3"), "executor": slot("20", "20")}}
    assert new["status"]["pods"] == {"driver": "pod-of-driver", "executor": "pod"}


def test_a_slot_removed_in_v1beta1_stays_removed() -> None:
    assert CASES["conv/roundtrip-removed-reservation"]["status"] == "upstream"
    old = convert(reservation(driver=slot("1", "2", "3"), executor=slot("4", "5", "6")), V1)
    del old["spec"]["reservations"]["executor"]
    del old["status"]["pods"]["executor"]
    assert convert(old, V2)["spec"] == {"reservations": {"driver": slot("1", "2", "3")}}


def test_other_annotations_and_unknown_resources_survive_both_ways() -> None:
    original = reservation(driver={"node": "n", "resources": {"cpu": "1", "memory": "2", "example.com/fpga": "4"}})
    original["metadata"] = METADATA | {"annotations": {"team": "a"}}
    assert convert(convert(original, V1), V2) == original


def test_missing_amounts_are_nothing_in_v1beta1() -> None:
    old = convert(reservation(driver={"node": "n", "resources": {}}), V1)
    assert old["spec"]["reservations"]["driver"] == {"node": "n", "cpu": "0", "memory": "0"}


@pytest.mark.parametrize(
    ("changes", "desired", "reason"),
    [
        ({}, V2, "cannot convert 'ResourceReservation' from .*v1beta2' to .*v1beta2'"),
        ({}, A1, "cannot convert"),
        ({"kind": "Pod"}, V1, "cannot convert 'Pod'"),
        ({"kind": None}, V1, "cannot convert 'None'"),
        (
            {"spec": {"reservations": {"driver": []}}},
            V1,
            "ResourceReservation 'app' is not one of .*v1beta2: Expected `object`",
        ),
        ({"spec": []}, V1, "spec must be an object, found list"),
        (
            {"apiVersion": V1, "metadata": METADATA | {"annotations": {ANNOTATION: "{"}}},
            V2,
            "annotation .*reservation-spec is not the JSON of a spec",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(changes: dict[str, Any], desired: str, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason):
        convert(reservation(driver=slot("1", "2")) | changes, desired)


OLD_DEMAND: dict[str, Any] = {
    "apiVersion": A1,
    "kind": "Demand",
    "metadata": METADATA,
    "spec": {
        "units": [{"count": 2, "cpu": "1", "memory": "1Gi"}, {"count": 1, "cpu": "1", "memory": "1Gi", "gpu": "2"}],
        "instance-group": "batch",
        "is-long-lived": True,
    },
    "status": {"phase": "pending", "last-transition-time": "2023-04-20T12:00:00Z"},
}


def test_an_old_demand_gets_named_resources() -> None:
    new = convert(OLD_DEMAND, A2)
    assert new["spec"] == {
        "units": [
            {"resources": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "0"}, "count": 2},
            {"resources": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "2"}, "count": 1},
        ],
        "instance-group": "batch",
        "is-long-lived": True,
        "enforce-single-zone-scheduling": False,
    }
    assert (new["metadata"], new["status"]) == (METADATA, OLD_DEMAND["status"])


def test_an_old_demand_loses_zones_and_pod_names() -> None:
    new = convert(OLD_DEMAND, A2)
    new["spec"] |= {"zone": "z1", "enforce-single-zone-scheduling": True}
    new["spec"]["units"][0]["pod-names-by-namespace"] = {"ns": ["x"]}
    new["status"]["fulfilled-zone"] = "z1"
    old = convert(new, A1)
    expected = json.loads(json.dumps(OLD_DEMAND))
    expected["spec"]["units"][0]["gpu"] = "0"
    assert old == expected


def test_a_demand_for_something_else_has_no_old_form() -> None:
    new = convert(OLD_DEMAND, A2)
    new["spec"]["units"][0]["resources"]["example.com/fpga"] = "1"
    with pytest.raises(ConversionError, match=r"not example\.com/fpga"):
        convert(new, A1)


def reviewed(desired: str, *objects: Any, version: str = "apiextensions.k8s.io/v1") -> dict[str, Any]:
    request = {"uid": "705ab4f5", "desiredAPIVersion": desired, "objects": objects}
    review = {"apiVersion": version, "kind": "ConversionReview", "request": request}
    answer: dict[str, Any] = json.loads(answer_review(json.dumps(review).encode()))
    return answer


@pytest.mark.parametrize("version", ["apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"])
def test_a_review_is_answered_in_its_own_version(version: str) -> None:
    one, other = reservation(driver=slot("1", "2", "3")), reservation(driver=slot("4", "5"))
    assert reviewed(V1, one, other, version=version) == {
        "apiVersion": version,
        "kind": "ConversionReview",
        "response": {
            "uid": "705ab4f5",
            "convertedObjects": [convert(one, V1), convert(other, V1)],
            "result": {"status": "Success"},
        },
    }


def test_one_bad_object_fails_the_review() -> None:
    response = reviewed(V1, reservation(driver=slot("1", "2")), {"kind": "Pod", "apiVersion": "v1"})["response"]
    assert response["convertedObjects"] == []
    assert response["result"]["status"] == "Failure"
    assert "cannot convert 'Pod'" in response["result"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1"}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","desiredAPIVersion":"a/v1"}}',
        b'{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1","request":{"uid":"u","desiredAPIVersion":"a/v1",'
        b'"objects":[1]}}',
    ],
    ids=range(6),
)
def test_what_is_no_review_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(BadConversion, match="expected a ConversionReview"):
        answer_review(body)
