"""Who created a driver: what the API server says of the asker, not what the pod says of itself."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonpatch
import pytest

from muster.control.admission import Admission
from muster.control.identity import LONGEST_NAME, groups_of, groups_text, identity_notes, user_of
from muster.control.metrics import Metrics
from muster.kube.objects import UserInfo
from muster.scheduling.model import Mode, Placement
from tests.control.spark_pods import driver_pod, executor_pod
from tests.control.test_admission_reviews import review_of

OPERATOR = "system:serviceaccount:spark-operator:spark-operator"
ALICE = {"username": "alice@example.com", "groups": ["data", "system:authenticated"]}


def created(
    pod: dict[str, Any], asker: dict[str, Any], trusted: tuple[str, ...] = (), **changes: Any
) -> dict[str, Any]:
    """The pod as the API server stores it."""
    admission = Admission(lambda _: Placement(Mode.HOLD), ("default-scheduler",), Metrics(), trusted)
    response = json.loads(admission.review(review_of(pod, userInfo=asker, **changes)))["response"]
    stored: dict[str, Any] = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response.get("patch", "W10="))))
    return stored


def identity(pod: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    annotations = pod["metadata"].get("annotations", {})
    return user_of(annotations), groups_of(annotations)


def claiming(user: str, groups: str = "") -> dict[str, Any]:
    pod = driver_pod()
    pod["metadata"]["annotations"] = {"muster.dev/user": user, "muster.dev/groups": groups, "team": "a"}
    return pod


def test_a_driver_tells_who_created_it() -> None:
    assert identity(created(driver_pod(), ALICE)) == ("alice@example.com", ("data",))


def test_nobody_says_himself_who_he_is() -> None:
    stored = created(claiming("root", "admins"), ALICE)
    assert identity(stored) == ("alice@example.com", ("data",))
    assert stored["metadata"]["annotations"]["team"] == "a", "other annotations stay"


@pytest.mark.parametrize(
    "trick",
    [{"schedulingGates": [{"name": "muster.dev/gang"}]}, {"nodeName": "node-1"}],
    ids=["a gate of ours already", "a node of its own choice"],
)
def test_a_pod_that_needs_no_gate_cannot_claim_to_be_another_either(trick: dict[str, Any]) -> None:
    pod = claiming("root")
    pod["spec"] |= trick
    stored = created(pod, ALICE)
    assert identity(stored)[0] == "alice@example.com"
    assert {name: stored["spec"].get(name) for name in trick} == trick, "and nothing else is changed"


def test_executors_carry_no_identity() -> None:
    assert identity(created(executor_pod(), ALICE)) == ("", ())


def test_a_trusted_submitter_names_the_user_and_mixes_in_nothing_of_its_own() -> None:
    operator = {"username": OPERATOR, "groups": ["operators"]}
    assert identity(created(claiming("bob", "ml,data"), operator, (OPERATOR,))) == ("bob", ("ml", "data"))
    assert identity(created(claiming("bob"), operator, (OPERATOR,))) == ("bob", ())


def test_a_trusted_submitter_that_names_nobody_is_the_user() -> None:
    operator = {"username": OPERATOR, "groups": ["operators"]}
    assert identity(created(driver_pod(), operator, (OPERATOR,))) == (OPERATOR, ("operators",))


def test_an_operator_that_is_not_trusted_cannot_speak_for_others() -> None:
    assert identity(created(claiming("bob"), {"username": OPERATOR})) == (OPERATOR, ())


@pytest.mark.parametrize(
    "groups",
    [
        ("data", "ml"),
        ("cn=data,ou=groups,dc=example,dc=com", "ml"),
        ("100%", "%2C", "a b"),
        ("größe",),
        (),
    ],
)
def test_groups_come_back_as_they_were(groups: tuple[str, ...]) -> None:
    """LDAP's distinguished names have commas in them: they must not become several groups."""
    assert groups_of({"muster.dev/groups": groups_text(groups)}) == groups


def test_hundreds_of_groups_stay_bounded_and_none_is_cut_in_two() -> None:
    many = [f"group-{number:04}-{'x' * 200}" for number in range(500)]
    notes = identity_notes(UserInfo("alice", groups=tuple(many)), {})
    assert len(notes["muster.dev/groups"]) <= 8192
    kept = groups_of(notes)
    assert kept == tuple(many[: len(kept)]) and len(kept) >= 30


def test_a_name_that_no_gang_could_carry_counts_as_unknown() -> None:
    """Cut to size it could be somebody else's."""
    notes = {"muster.dev/user": "x" * (LONGEST_NAME + 1), "muster.dev/groups": f"ml,{'y' * (LONGEST_NAME + 1)}"}
    assert (user_of(notes), groups_of(notes)) == ("", ("ml",))
