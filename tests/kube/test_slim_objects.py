"""The slim structs read what Kubernetes and Spark write, and nothing stands in their way that they do not need."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kube.errors import ApiError
from muster.kube.objects import (
    AdmissionAnswer,
    AdmissionResponse,
    AdmissionReview,
    Node,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    Secret,
)
from muster.kube.retry import RetryPolicy
from muster.kube.timestamps import format_micro_time, format_time, parse_time

DRIVER = json.loads((Path(__file__).parent / "data" / "spark-4.3.0-driver-pod.json").read_text())["pod"]


def read_pod(**spec) -> Pod:
    return msgspec.json.decode(json.dumps({"spec": {"containers": [{"name": "c"}], **spec}}), type=Pod)


def test_a_driver_as_spark_submit_creates_it():
    pod = msgspec.json.decode(json.dumps(DRIVER), type=Pod)
    assert pod.metadata.labels["spark-role"] == "driver"
    [container] = pod.spec.containers or ()
    assert container.name == "spark-kubernetes-driver"
    assert container.resources.requests == {"cpu": "1", "memory": "1433Mi"}
    assert container.resources.limits == {"memory": "1433Mi"}
    [conf] = [volume for volume in pod.spec.volumes if volume.config_map is not None]
    assert conf.name == "spark-conf-volume-driver"
    assert conf.config_map is not None
    assert conf.config_map.name.startswith("spark-drv-")


def test_required_node_affinity_and_the_presence_of_the_other_kinds():
    term = {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}
    pod = read_pod(
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
                }
            },
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]},
        }
    )
    affinity = pod.spec.affinity
    assert affinity is not None and affinity.node_affinity is not None and affinity.node_affinity.required is not None
    assert affinity.node_affinity.required.node_selector_terms == (
        NodeSelectorTerm(match_expressions=(NodeSelectorRequirement("zone", "In", ("a",)),)),
    )
    assert affinity.pod_affinity is None
    assert affinity.pod_anti_affinity is not None


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ({"topologySpreadConstraints": [{"maxSkew": 1}]}, lambda s: len(s.topology_spread_constraints) == 1),
        ({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]}, lambda s: s.volumes[0].ephemeral),
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
            lambda s: s.volumes[0].persistent_volume_claim.claim_name == "data",
        ),
        ({"resourceClaims": [{"name": "gpu", "resourceClaimName": "x"}]}, lambda s: s.resource_claims[0].name == "gpu"),
        (
            {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 8080}]}]},
            lambda s: s.containers[0].ports[0].host_port == 8080,
        ),
        ({"hostNetwork": True}, lambda s: s.host_network),
        ({"overhead": {"cpu": "250m"}}, lambda s: s.overhead == {"cpu": "250m"}),
        ({"resources": {"requests": {"cpu": "2"}}}, lambda s: s.resources.requests == {"cpu": "2"}),
        (
            {"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]},
            lambda s: s.init_containers[0].restart_policy == "Always",
        ),
        (
            {"tolerations": [{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
            lambda s: s.tolerations[0].operator == "Exists" and s.tolerations[0].toleration_seconds == 300,
        ),
    ],
)
def test_what_decides_where_a_pod_may_go_is_read(spec, seen):
    assert seen(read_pod(**spec).spec)


def test_the_state_of_a_pod_is_read():
    status = {
        "phase": "Failed",
        "podIP": "10.1.2.3",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": None}],
        "containerStatuses": [
            {
                "name": "c",
                "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                "allocatedResources": {"cpu": "2"},
            }
        ],
    }
    pod = msgspec.json.decode(json.dumps({"status": status}), type=Pod)
    assert (pod.status.phase, pod.status.pod_ip) == ("Failed", "10.1.2.3")
    assert pod.status.conditions[0].reason == "SchedulingGated"
    terminated = pod.status.container_statuses[0].state.terminated
    assert terminated is not None
    assert (terminated.exit_code, terminated.reason) == (137, "OOMKilled")
    assert pod.status.container_statuses[0].allocated_resources == {"cpu": "2"}


def test_a_node_is_read():
    node = msgspec.json.decode(
        json.dumps(
            {
                "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "a"}},
                "spec": {
                    "unschedulable": True,
                    "providerID": "aws:///a/i-1",
                    "taints": [{"key": "k", "effect": "NoSchedule"}],
                },
                "status": {
                    "allocatable": {"cpu": "15890m", "pods": "110"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "images": [{"names": ["a"], "sizeBytes": 1}],
                },
            }
        ),
        type=Node,
    )
    assert node.spec.unschedulable
    assert node.spec.provider_id == "aws:///a/i-1"
    assert (node.spec.taints[0].key, node.spec.taints[0].effect) == ("k", "NoSchedule")
    assert node.status.allocatable == {"cpu": "15890m", "pods": "110"}
    assert node.status.conditions[0].type == "Ready"


def test_a_secret_is_bytes_here_and_base64_there():
    secret = msgspec.json.decode(b'{"data":{"token":"czNjcjN0"}}', type=Secret)
    assert secret.data == {"token": b"s3cr3t"}
    assert msgspec.json.decode(msgspec.json.encode(secret))["data"] == {"token": "czNjcjN0"}
    assert "s3cr3t" not in repr(secret)


def test_an_admission_review_is_answered_in_its_own_words():
    asked = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u", "namespace": "spark", "operation": "CREATE", "dryRun": False, "object": DRIVER},
    }
    review = msgspec.json.decode(json.dumps(asked), type=AdmissionReview[Pod])
    assert review.request.object.metadata.labels["spark-role"] == "driver"
    answer = AdmissionAnswer(AdmissionResponse("u", True, patch=b"[]", patch_type="JSONPatch"))
    assert msgspec.json.decode(msgspec.json.encode(answer)) == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "u", "allowed": True, "patch": "W10=", "patchType": "JSONPatch"},
    }


# metav1.Time and metav1.MicroTime


def test_times_are_read_and_written_as_kubernetes_does():
    assert parse_time("2026-11-25T04:00:00Z") == 1795579200.0
    assert parse_time("2026-11-25T05:00:00+01:00") == 1795579200.0
    assert parse_time("2026-11-25T04:00:00.250000Z") == 1795579200.25
    assert format_time(1795579200.99) == "2026-11-25T04:00:00Z"
    assert format_micro_time(1795579200.25) == "2026-11-25T04:00:00.250000Z"


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_micro_time_survives_being_written_and_read(micros):
    assert round(parse_time(format_micro_time(micros / 1e6)) * 1e6) == micros


@pytest.mark.parametrize("text", ["yesterday", "2026-11-25T04:00:00", ""])
def test_what_is_no_time_is_named(text):
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text)


# Back-off


@given(st.integers(1, 1000), st.floats(0, 1, exclude_max=True))
def test_a_delay_keeps_between_half_and_the_whole_of_its_step_and_under_the_ceiling(failures, random):
    policy = RetryPolicy()
    step = min(10.0, 0.25 * 2.0 ** (failures - 1) if failures < 60 else 10.0)
    assert step / 2 <= policy.delay(failures, random) <= step


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 410, 415, 422, 501])
def test_what_will_fail_again_is_not_tried_again(code, repeatable):
    error = ApiError("GET /x", code, "", "")
    assert RetryPolicy().wait(error, failures=1, repeatable=repeatable, random=0.0) is None
