"""Reviews of Spark pods as the API server sends them, and the patches that come back."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import jsonpatch
import pytest

from muster.control.admission import Admission, BadReview, decode_review
from muster.control.metrics import Metrics
from muster.scheduling.model import Mode, Placement, Pod
from tests.control.spark_pods import driver_pod, executor_pod

HELD = Placement(Mode.HOLD, reason="no room")


class Asked:
    """A scheduler that always gives the same answer and remembers the questions."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.pods: list[Pod] = []

    def __call__(self, pod: Pod) -> Placement:
        self.pods.append(pod)
        return self.placement


def review_of(pod: dict[str, Any], **changes: Any) -> bytes:
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": pod["metadata"]["name"],
        "namespace": "team-a",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:team-a:spark", "groups": ["system:authenticated"]},
        "object": pod,
        "dryRun": False,
    } | changes
    return json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}).encode()


def admitted(pod: dict[str, Any], placement: Placement = HELD, **changes: Any) -> tuple[dict[str, Any], Asked]:
    """The pod as the API server would store it after the review."""
    asked = Asked(placement)
    admission = Admission(asked, ("default-scheduler",), Metrics())
    answer = json.loads(admission.review(review_of(pod, **changes)))
    assert answer["kind"] == "AdmissionReview"
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    response = answer["response"]
    assert response["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    assert response["allowed"] is True, "a Spark pod is held, never rejected"
    if "patch" not in response:
        return pod, asked
    assert response["patchType"] == "JSONPatch"
    patch = json.loads(base64.b64decode(response["patch"]))
    return jsonpatch.apply_patch(copy.deepcopy(pod), patch), asked


def test_a_driver_is_gated_and_nothing_is_asked() -> None:
    pod, asked = admitted(driver_pod())
    assert pod["spec"]["schedulingGates"] == [{"name": "muster.dev/gang"}]
    assert not asked.pods


def test_a_gate_of_somebody_else_stays() -> None:
    before = driver_pod()
    before["spec"]["schedulingGates"] = [{"name": "example.com/quota"}]
    pod, _ = admitted(before)
    assert pod["spec"]["schedulingGates"] == [{"name": "example.com/quota"}, {"name": "muster.dev/gang"}]


def test_an_executor_with_a_slot_is_born_bound() -> None:
    pod, asked = admitted(executor_pod(), Placement(Mode.BIND, "node-7"))
    assert pod["spec"]["nodeName"] == "node-7"
    assert "schedulingGates" not in pod["spec"]
    assert pod["metadata"]["annotations"] == {
        "muster.dev/application": "spark-0123456789abcdef0123456789abcdef",
        "muster.dev/mode": "bind",
        "muster.dev/slot": "node-7",
    }
    [question] = asked.pods
    assert question.application == "team-a/spark-0123456789abcdef0123456789abcdef"
    assert (question.requests.get("cpu"), question.requests.get("memory")) == (1000, 1408 * 2**20)


def test_annotations_that_are_there_stay_and_an_extra_slot_says_so() -> None:
    before = executor_pod()
    before["metadata"]["annotations"] = {"prometheus.io/scrape": "true"}
    pod, _ = admitted(before, Placement(Mode.BIND, "node-7", extra=True))
    assert pod["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    assert pod["metadata"]["annotations"]["muster.dev/extra"] == "true"


def test_a_pinned_executor_keeps_its_own_affinity_in_every_term() -> None:
    before = executor_pod()
    zone = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}
    disk = {"key": "disk", "operator": "Exists"}
    preferred = [{"weight": 1, "preference": {"matchExpressions": [disk]}}]
    before["spec"]["affinity"] = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [zone]}, {"matchExpressions": [disk]}]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        }
    }
    pod, _ = admitted(before, Placement(Mode.PIN, "node-7"))
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    name = [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]
    assert affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchExpressions": [zone], "matchFields": name},
        {"matchExpressions": [disk], "matchFields": name},
    ]
    assert affinity["preferredDuringSchedulingIgnoredDuringExecution"] == preferred
    assert "nodeName" not in pod["spec"]


@pytest.mark.parametrize("affinity", [None, {"podAffinity": {}}, {"nodeAffinity": {}}])
def test_a_pin_is_added_whatever_affinity_there_was(affinity: dict[str, Any] | None) -> None:
    before = executor_pod()
    if affinity is not None:
        before["spec"]["affinity"] = affinity
    pod, _ = admitted(before, Placement(Mode.PIN, "node-7"))
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]}
    ]


@pytest.mark.parametrize("mode", [Mode.BIND, Mode.PIN])
def test_whoever_is_asked_again_the_first_answer_stands(mode: Mode) -> None:
    """The API server refuses a gated pod with a node: "cannot be set until all schedulingGates have been cleared"."""
    first, _ = admitted(executor_pod(), Placement(mode, "node-7"))
    again, asked = admitted(first, HELD)
    assert again == first
    assert not asked.pods


def test_a_held_executor_is_not_gated_twice() -> None:
    first, _ = admitted(executor_pod(), HELD)
    again, asked = admitted(first, Placement(Mode.BIND, "node-7"))
    assert again == first
    assert not asked.pods


def test_a_slot_that_was_only_copied_from_another_pod_counts_for_nothing() -> None:
    copied = executor_pod()
    copied["metadata"].setdefault("annotations", {})["muster.dev/slot"] = "node-7"
    pod, _ = admitted(copied, Placement(Mode.BIND, "node-8"))
    assert pod["spec"]["nodeName"] == pod["metadata"]["annotations"]["muster.dev/slot"] == "node-8"


def test_an_executor_without_room_is_held() -> None:
    pod, _ = admitted(executor_pod())
    assert pod["spec"]["schedulingGates"] == [{"name": "muster.dev/gang"}]
    assert pod["metadata"]["annotations"]["muster.dev/mode"] == "hold"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"operation": "UPDATE"}, "only creation is of interest"),
        ({"subResource": "status"}, "a subresource is no pod"),
        ({"dryRun": True}, "a dry run must take no slot"),
    ],
)
def test_other_requests_pass_untouched(changes: dict[str, Any], why: str) -> None:
    pod, asked = admitted(executor_pod(), Placement(Mode.BIND, "node-7"), **changes)
    assert pod == executor_pod(), why
    assert not asked.pods, why


def test_a_dry_run_shows_that_a_driver_would_be_gated() -> None:
    pod, asked = admitted(driver_pod(), dryRun=True)
    assert pod["spec"]["schedulingGates"] == [{"name": "muster.dev/gang"}]
    assert not asked.pods


def test_pods_of_other_schedulers_and_pods_without_application_pass_untouched() -> None:
    for change in ("scheduler", "selector", "role"):
        before = executor_pod()
        if change == "scheduler":
            before["spec"]["schedulerName"] = "volcano"
        elif change == "selector":
            del before["metadata"]["labels"]["spark-app-selector"]
        else:
            del before["metadata"]["labels"]["spark-role"]
        pod, asked = admitted(before, Placement(Mode.BIND, "node-7"))
        assert pod == before
        assert not asked.pods


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":{"uid":"1"}}',
        b'{"kind":"Pod","apiVersion":"v1","request":{"uid":"1"}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","object":[1]}}',
        b'{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","object":{"spec":{"containers":3}}}}',
    ],
)
def test_what_is_no_review_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(BadReview) as failure:
        decode_review(body)
    assert len(str(failure.value)) > 20
