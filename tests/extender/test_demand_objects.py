"""``Demand`` objects as the archived scheduler wrote them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from muster.control.extender.demands import (
    DEMANDS,
    Demand,
    DemandPhase,
    DemandSpec,
    DemandStatus,
    DemandUnit,
    application_units,
    executor_units,
    new_demand,
    ours_under_their_status,
)
from muster.control.extender.pods import application_id, application_of, instance_group
from tests.extender.spark_objects import ANNOTATIONS, cases, driver_pod

CASES = cases("demand-units")


def written(demand: Any) -> Any:
    return json.loads(msgspec.json.encode(demand))


def test_a_driver_without_minimum_asks_for_itself_alone() -> None:
    case = CASES["demand/driver-unit"]
    namespace, name = case["driver_pod"].split("/")
    cpu, memory, gpu = case["app"]["driver"]
    annotations = ANNOTATIONS | {
        "spark-driver-cpu": str(cpu),
        "spark-driver-mem": str(memory),
        "spark-driver-nvidia.com/gpu": str(gpu),
        "spark-executor-count": str(case["app"]["min"]),
    }
    pod = driver_pod(name, namespace, metadata={"annotations": annotations})
    [unit] = application_units(pod, application_of(pod))
    [expected] = case["expected_units"]
    assert written(unit) == {
        "count": expected["count"],
        "resources": {"cpu": str(cpu), "memory": str(memory), "nvidia.com/gpu": str(gpu)},
        "pod-names-by-namespace": expected["pod_names_by_namespace"],
    }


def test_a_waiting_driver_asks_for_its_whole_application() -> None:
    case = CASES["demand/full-object"]
    expected = case["expected"]
    requirement = {"key": "resource_channel", "operator": "In", "values": [expected["spec"]["instance-group"]]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}
    pod = driver_pod(
        "podName",
        "podNamespace",
        metadata={"labels": {"spark-role": "driver", "spark-app-id": "appID1"}},
        spec={"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}},
    )
    group = instance_group(pod.spec)
    assert group is not None
    demand = written(
        new_demand(pod, application_id(pod), group, application_units(pod, application_of(pod)), single_zone=False)
    )
    units = expected["spec"]["units"]
    assert demand["metadata"]["name"] == expected["name"]
    assert demand["metadata"]["namespace"] == expected["namespace"]
    assert demand["metadata"]["labels"] == expected["labels"]
    assert demand["metadata"]["ownerReferences"] == [expected["owner"] | {"uid": "uid-of-podName"}]
    assert demand["spec"] == expected["spec"] | {
        "units": [
            {"resources": units[0]["resources"], "count": 1, "pod-names-by-namespace": units[0]["pods"]},
            {"resources": units[1]["resources"], "count": 4},
        ]
    }
    assert demand["status"] == {"phase": "", "last-transition-time": None}


def test_an_executor_asks_for_itself_in_the_zone_it_is_bound_to() -> None:
    driver, executor = driver_pod(), driver_pod("exec-7")
    units = executor_units(executor, application_of(driver))
    demand = written(new_demand(executor, "app-1", "batch", units, single_zone=True, zone="z1"))
    assert demand["spec"] == {
        "units": [
            {
                "resources": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "0"},
                "count": 1,
                "pod-names-by-namespace": {"ns": ["exec-7"]},
            }
        ],
        "instance-group": "batch",
        "is-long-lived": False,
        "enforce-single-zone-scheduling": True,
        "zone": "z1",
    }
    assert demand["metadata"]["name"] == "demand-exec-7"


def test_the_wire_form_is_the_originals_to_the_byte() -> None:
    unit = DemandUnit({"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "0"}, 1, {"ns": ["x"]})
    demand = new_demand(driver_pod(), "app-1", "ig", (unit,), single_zone=False, zone="z1")
    assert msgspec.json.encode({"spec": demand.spec, "status": demand.status}) == (
        b'{"spec":{"units":[{"resources":{"cpu":"1","memory":"1Gi","nvidia.com/gpu":"0"},"count":1,'
        b'"pod-names-by-namespace":{"ns":["x"]}}],"instance-group":"ig","is-long-lived":false,'
        b'"enforce-single-zone-scheduling":false,"zone":"z1"},'
        b'"status":{"phase":"","last-transition-time":null}}'
    )


def test_what_an_autoscaler_wrote_is_read() -> None:
    stored = {
        "metadata": {"name": "demand-x", "namespace": "ns"},
        "spec": {"units": [{"resources": {}, "count": 1, "pod-names-by-namespace": None}], "instance-group": "ig"},
        "status": {"phase": "fulfilled", "last-transition-time": "2023-04-20T12:00:00Z", "fulfilled-zone": "z2"},
    }
    demand = msgspec.json.decode(json.dumps(stored), type=Demand)
    assert demand.status.phase == DemandPhase.FULFILLED
    assert demand.status.fulfilled_zone == "z2"
    assert demand.spec == DemandSpec((DemandUnit({}, 1, None),), "ig")
    assert DEMANDS.path("ns", "demand-x") == "/apis/scaler.palantir.com/v1alpha2/namespaces/ns/demands/demand-x"


def test_writing_over_a_demand_leaves_its_status_to_the_autoscaler() -> None:
    units = (DemandUnit({"cpu": "1"}, 1),)
    ours = new_demand(driver_pod(), "app-1", "batch", units, single_zone=False)
    status = DemandStatus(DemandPhase.FULFILLED, "2023-04-20T12:00:00Z")
    metadata = msgspec.structs.replace(ours.metadata, uid="u", resource_version="7")
    theirs = Demand(metadata, DemandSpec(instance_group="old"), status)
    written_over = ours_under_their_status(theirs, ours)
    assert (written_over.metadata, written_over.spec, written_over.status) == (metadata, ours.spec, status)
