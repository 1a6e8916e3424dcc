"""The plans themselves: repeatable, complete, and quiet in the end."""

from __future__ import annotations

import pytest

from tests.faults.fault_plan import (
    ApiRequest,
    CutAllWatches,
    CutWatch,
    Delay,
    ExpireWatch,
    FaultPlan,
    KillLeader,
    LoseAnswer,
    Pass,
    PauseLeader,
    Refuse,
    RestartApiServer,
    classify,
    draw_plan,
)

EVENTS = {KillLeader: 3.0, PauseLeader: 2.0, RestartApiServer: 1.0, CutAllWatches: 2.0}


def plan_of(seed: int) -> FaultPlan:
    return draw_plan(seed, faulty_seconds=10.0, longest_delay=35.0, weights=EVENTS, most_events=4)


def requests(verb: str) -> list[ApiRequest]:
    return [
        ApiRequest(verb, "pods", f"/api/v1/namespaces/a/pods/{n}", attempt) for n in range(50) for attempt in (0, 1)
    ]


def test_a_seed_always_gives_the_same_plan_and_the_same_fates() -> None:
    assert plan_of(7) == plan_of(7)
    patches = requests("patch")
    forwards = [plan_of(7).fate(request, 1.0) for request in patches]
    backwards = [plan_of(7).fate(request, 1.0) for request in reversed(patches)]
    assert forwards == backwards[::-1]
    assert plan_of(7) != plan_of(8)


def test_faults_end() -> None:
    for verb in ("patch", "list", "watch"):
        assert {plan_of(3).fate(request, 10.0) for request in requests(verb)} == {Pass()}


def test_every_kind_of_fault_comes_up_over_twenty_seeds() -> None:
    fates = [
        plan_of(seed).fate(request, 1.0) for seed in range(20) for request in requests("patch") + requests("watch")
    ]
    assert {type(fate) for fate in fates} == {Pass, Refuse, LoseAnswer, Delay, CutWatch, ExpireWatch}
    assert {fate.code for fate in fates if isinstance(fate, Refuse)} == {409, 429, 500, 503}
    assert {fate.code for fate in fates if isinstance(fate, LoseAnswer)} == {0, 500}
    assert max(fate.seconds for fate in fates if isinstance(fate, Delay)) > 30.0, "longer than a client waits"
    assert {type(event) for seed in range(20) for event in plan_of(seed).events} == set(EVENTS)


def test_events_come_in_order_and_before_the_faults_end() -> None:
    for seed in range(20):
        times = [event.at for event in plan_of(seed).events]
        assert times == sorted(times)
        assert all(0.0 <= at < 10.0 for at in times)


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/pods", {}, ("list", "pods")),
        ("GET", "/api/v1/pods", {"watch": "True"}, ("watch", "pods")),
        ("GET", "/api/v1/namespaces/a/configmaps/b", {}, ("get", "configmaps")),
        ("PATCH", "/apis/muster.dev/v1alpha1/namespaces/a/gangs/b/status", {}, ("patch", "gangs/status")),
        ("POST", "/api/v1/namespaces/a/pods/b/binding", {}, ("create", "pods/binding")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/muster", {}, ("update", "leases")),
        ("DELETE", "/api/v1/namespaces/a/pods", {}, ("deletecollection", "pods")),
        ("GET", "/api/v1/namespaces/a", {}, ("get", "namespaces")),
        ("GET", "/readyz", {}, ("", "")),
    ],
)
def test_requests_are_classified_as_rbac_names_them(
    method: str, path: str, query: dict[str, str], expected: tuple[str, str]
) -> None:
    assert classify(method, path, query) == expected
