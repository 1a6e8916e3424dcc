"""The onlooker's own judgement: a sound story passes, and each way in which it could go wrong is seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.cluster_history import LASTING, Change, History, startable

APP = "spark-1"
KEY = f"team/{APP}"
CORE = {"cpu": "1", "memory": "1Gi"}


def node(name: str, cpu: str = "3") -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"}}}


def pod(role: str, name: str, *, on: str = "", slot: str = "", gated: bool = False, **more: Any) -> dict[str, Any]:
    annotations = {"muster.dev/slot": slot} if slot else {}
    if more.get("extra"):
        annotations["muster.dev/extra"] = "true"
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": more.get("uid", name),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"spark-role": role, "spark-app-selector": more.get("application", APP)},
            "annotations": annotations,
        },
        "spec": {
            "nodeName": on,
            "containers": [{"resources": {"requests": CORE}}],
            "schedulingGates": [{"name": "muster.dev/gang"}] if gated else [],
        },
        "status": {"phase": more.get("phase", "Pending")},
    }


def gang(slots: dict[str, int], *, driver_node: str = "a", minimum: int = 2, application: str = APP) -> dict[str, Any]:
    return {
        "metadata": {"name": application, "namespace": "team"},
        "spec": {
            "applicationId": application,
            "minExecutors": minimum,
            "revision": 1,
            "driverNode": driver_node,
            "driver": {"shape": {"requests": CORE}},
            "executor": {"shape": {"requests": CORE}},
            "slots": [{"node": name, "count": count} for name, count in slots.items()],
        },
    }


NODES = [("nodes", "a", node("a")), ("nodes", "b", node("b"))]
GATED = ("pods", "driver", pod("driver", "driver", gated=True))
RESERVED = ("gangs", APP, gang({"a": 1, "b": 1}))
RELEASED = ("pods", "driver", pod("driver", "driver", slot="a"))
BOUND = ("pods", "driver", pod("driver", "driver", slot="a", on="a"))
FIRST = ("pods", "x1", pod("executor", "x1", slot="a", on="a"))
SECOND = ("pods", "x2", pod("executor", "x2", slot="b", on="b"))
ENDED = ("pods", "driver", pod("driver", "driver", slot="a", on="a", phase="Succeeded"))
SOUND = [*NODES, GATED, RESERVED, RELEASED, BOUND, FIRST, SECOND, ENDED]


def told(*steps: tuple[str, str, dict[str, Any] | None]) -> History:
    history = History()
    for revision, (kind, name, body) in reversed(list(enumerate(steps))):  # the order of arrival must not matter
        history.add(Change(revision, kind, "" if kind == "nodes" else "team", name, body))
    return history


def breaches(*steps: tuple[str, str, dict[str, Any] | None]) -> list[str]:
    return told(*steps).judge({KEY: 2})[1].breaches


def test_a_sound_story_has_no_breach() -> None:
    cluster, verdict = told(*SOUND).judge({KEY: 2})
    assert verdict.breaches == []
    assert verdict.ungated == set()
    assert verdict.released == {KEY: 4}
    assert cluster.free("a") == {"cpu": 2000, "memory": 63 * 2**30, "pods": 109}


OTHERS = [("pods", name, pod("", name, on="b")) for name in ("o", "p", "q")]
RIVAL = [
    ("pods", "rival", pod("driver", "rival", gated=True, application="spark-2")),
    ("gangs", "spark-2", gang({"b": 3}, application="spark-2", minimum=3)),
]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([*NODES, GATED, RELEASED, RESERVED], "released without a reservation"),
        (
            [*NODES, GATED, ("gangs", APP, gang({"a": 1})), RELEASED],
            "released with {'a': 1} reserved, its minimum is 2",
        ),
        ([*NODES, GATED, ("gangs", APP, gang({"a": 2}, driver_node="b")), RELEASED], "reserved is 'b'"),
        ([*NODES, GATED, ("gangs", APP, gang({"a": 3}, minimum=3))], "node a is overcommitted"),
        ([*NODES, GATED, RESERVED, *OTHERS], "node b is overcommitted"),
        ([*SOUND[:8], *OTHERS], "node b is overcommitted"),
        ([*NODES, GATED, RESERVED, *RIVAL], "node b is overcommitted"),
        ([*SOUND[:8], ("pods", "x3", pod("executor", "x3", slot="a", on="a"))], "3 executors in the 2 slots"),
        ([*SOUND[:6], ("pods", "again", pod("driver", "again", gated=True))], "second driver"),
        ([*SOUND[:6], ("pods", "driver", pod("driver", "driver", slot="a", on="b"))], "moved from a to b"),
    ],
)
def test_each_breach_is_seen(steps: list[tuple[str, str, dict[str, Any] | None]], said: str) -> None:
    found = breaches(*steps)
    assert any(said in breach for breach in found), found


def other_changes(number: int) -> list[tuple[str, str, dict[str, Any] | None]]:
    return [("pods", "calm", pod("", "calm", uid=f"calm {turn}")) for turn in range(number)]


def test_a_slot_that_another_gang_has_got_may_be_written_off_a_moment_later() -> None:
    """What the gang lost is said after the other one has it; for long it must not be left unsaid."""
    moved = ("gangs", APP, gang({"a": 2}))
    rival = [RIVAL[0], ("gangs", "spark-2", gang({"b": 3}, driver_node="a", application="spark-2", minimum=3))]
    wide = [("nodes", "a", node("a", "8")), ("nodes", "b", node("b"))]
    assert breaches(*wide, GATED, RESERVED, *rival, *other_changes(LASTING // 2), moved) == []
    assert breaches(*wide, GATED, RESERVED, *rival, *other_changes(2 * LASTING), moved) != []
    assert breaches(*wide, GATED, RESERVED, *rival) != [], "and not at the end"


def test_what_fits_to_the_last_core_is_no_breach() -> None:
    assert breaches(*SOUND[:8], *OTHERS[:2]) == []


def test_an_executor_elsewhere_leaves_its_slot_behind() -> None:
    elsewhere = ("pods", "x2", pod("executor", "x2", slot="a", on="a"))
    assert breaches(*SOUND[:7], elsewhere, *OTHERS) == []


def test_an_extra_stands_in_for_an_executor_that_has_ended() -> None:
    extra = ("pods", "x3", pod("executor", "x3", slot="a", on="a", extra=True))
    assert breaches(*SOUND[:8], extra, ("pods", "x2", None), *OTHERS) == []
    assert breaches(*SOUND[:8], ("pods", "x2", None), *OTHERS) != []


def test_pods_that_no_webhook_has_seen_are_told_apart() -> None:
    stray = ("pods", "x9", pod("executor", "x9", on="b"))
    _, verdict = told(*SOUND[:8], stray, ("pods", "x8", pod("executor", "x8", uid="8", on="b"))).judge({KEY: 2})
    assert verdict.ungated == {"x9", "8"}
    assert verdict.breaches == []


def test_the_oldest_application_that_fits_should_not_wait() -> None:
    sizes = {KEY: (2, {"cpu": 1000, "memory": 2**30, "pods": 1}), "team/spark-2": (1, {"cpu": 1000, "pods": 1})}
    younger = pod("driver", "younger", gated=True, application="spark-2")
    younger["metadata"]["creationTimestamp"] = "2026-01-01T00:00:01Z"
    waiting = [GATED, ("pods", "younger", younger)]
    assert startable(told(*NODES, *waiting).now(), sizes) == KEY
    full = [("pods", f"o{number}", pod("", f"o{number}", on="ab"[number % 2])) for number in range(4)]
    assert startable(told(*NODES, *waiting, *full).now(), sizes) == "", "the younger one must wait behind the older one"
    assert startable(told(*SOUND).now(), sizes) == ""
