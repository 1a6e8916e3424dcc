"""The onlooker's arithmetic, on hand-made histories of a cluster: would it notice what must never happen?"""

from __future__ import annotations

from typing import Any

import pytest

from muster.cli.demo.measure import (
    Expected,
    GangObserved,
    Measurement,
    NodeObserved,
    Observation,
    Outcome,
    PodObserved,
    measure,
)
from muster.cluster.resources import Resources

NODE = Resources.of(cpu=4000, memory=8 << 30, pods=10)
CORE = Resources.of(cpu=1000, memory=1 << 30)


class History:
    """A cluster's changes in order; a second passes with each, unless told otherwise."""

    def __init__(self, *nodes: str) -> None:
        self.changes: list[Observation] = []
        self.now = 0.0
        for node in nodes:
            self._add(NodeObserved, name=node, allocatable=NODE)

    def driver(self, app: str, node: str = "", **more: Any) -> History:
        return self._pod(f"{app}-driver", app, driver=True, app_name=app, node=node, **more)

    def executor(self, app: str, number: int, node: str = "", **more: Any) -> History:
        return self._pod(f"{app}-{number}", app, node=node, **more)

    def gang(self, app: str, *slots: tuple[str, int], reason: str = "") -> History:
        return self._add(GangObserved, application=f"default/{app}", slots=slots, reason=reason)

    def later(self, seconds: float) -> History:
        self.now += seconds
        return self

    def measured(self, *away: tuple[float, float], **minimums: int) -> Measurement:
        expected = [Expected(name, minimum, CORE) for name, minimum in minimums.items()]
        return measure(expected, {}, self.changes, self.now, away)

    def _pod(self, uid: str, app: str, *, requests: Resources = CORE, **more: Any) -> History:
        return self._add(PodObserved, uid=uid, application=f"default/{app}", requests=requests, **more)

    def _add(self, kind: type[Observation], **fields: Any) -> History:
        self.now += 1
        self.changes.append(kind(version=len(self.changes) + 1, at=self.now, **fields))
        return self


def test_a_gang_that_starts_whole_is_timed_and_not_partial() -> None:
    history = History("n1").driver("a").gang("a", ("n1", 2)).driver("a", "n1")
    measured = history.executor("a", 1, "n1").executor("a", 2, "n1").measured(a=2)
    app = measured.applications["a"]
    assert measured.partial == []
    assert (app.driver_bound, app.minimum_reached) == (4.0, 6.0)
    assert app.submitted == 2.0
    assert app.outcome is Outcome.RUNNING


def test_the_time_of_submission_told_by_the_submitter_counts() -> None:
    history = History("n1").driver("a").driver("a", "n1")
    measured = measure([Expected("a", 0, CORE)], {"a": 0.25}, history.changes, 9.0)
    assert measured.applications["a"].submitted == 0.25


def test_a_gang_of_none_has_its_minimum_with_its_driver() -> None:
    app = History("n1").driver("a").driver("a", "n1").measured(a=0).applications["a"]
    assert app.minimum_reached == app.driver_bound == 3.0
    assert app.partial == ""


def test_a_driver_bound_without_any_reservation_is_a_partial_gang() -> None:
    measured = History("n1").driver("a").driver("a", "n1").measured(a=2)
    assert [app.partial for app in measured.partial] == ["room for 0 of 2 when its driver was bound"]


def test_a_driver_bound_before_its_reservation_is_written_is_a_partial_gang() -> None:
    measured = History("n1").driver("a").driver("a", "n1").gang("a", ("n1", 2)).measured(a=2)
    assert len(measured.partial) == 1


def test_order_is_the_apis_not_that_of_the_watches() -> None:
    history = History("n1").driver("a").gang("a", ("n1", 2)).driver("a", "n1")
    history.executor("a", 1, "n1").executor("a", 2, "n1")
    scrambled = list(reversed(history.changes))
    assert measure([Expected("a", 2, CORE)], {}, scrambled, history.now).partial == []


def test_slots_for_fewer_than_the_minimum_are_a_partial_gang() -> None:
    measured = History("n1").driver("a").gang("a", ("n1", 1)).driver("a", "n1").measured(a=2)
    assert measured.applications["a"].partial == "room for 1 of 2 when its driver was bound"


def test_slots_on_a_node_without_room_are_not_believed() -> None:
    history = History("n1").driver("big").gang("big", ("n1", 3)).driver("big", "n1")
    history.executor("big", 1, "n1").executor("big", 2, "n1")
    # two of three slots are filled: with both drivers and the third slot, all four cores are spoken for
    measured = history.driver("a").gang("a", ("n1", 1)).driver("a", "n1").measured(big=3, a=1)
    assert measured.applications["a"].partial == "room for 0 of 1 when its driver was bound"


def test_slots_of_an_application_that_has_had_its_minimum_are_not_held_against_others() -> None:
    history = History("n1", "n2").driver("old").gang("old", ("n1", 2)).driver("old", "n2")
    history.executor("old", 1, "n1").executor("old", 2, "n1").executor("old", 1, "n1", finished=True)
    measured = history.driver("a").gang("a", ("n1", 3)).driver("a", "n2").measured(a=3, old=2)
    assert measured.applications["a"].partial == ""


def test_slots_of_an_application_that_has_ended_hold_nothing() -> None:
    history = History("n1").driver("old").gang("old", ("n1", 3)).driver("old", "n1")
    history.driver("old", "n1", finished=True, succeeded=True)
    measured = history.driver("a").gang("a", ("n1", 3)).driver("a", "n1").measured(a=3, old=0)
    assert measured.applications["a"].partial == ""


def test_an_extra_executor_fills_no_slot_of_the_minimum() -> None:
    history = History("n1").driver("a").gang("a", ("n1", 1)).executor("a", 7, "n1", extra=True)
    filled_by_extra = history.driver("a", "n1").measured(a=2)
    assert filled_by_extra.applications["a"].partial == ""  # one bound, and one slot still free with room behind it


def test_an_executor_left_waiting_while_others_start_is_a_partial_gang() -> None:
    history = History("n1", "n2").driver("a").gang("a", ("n1", 2)).driver("a", "n1")
    history.executor("a", 1, "n1").executor("a", 2).driver("b").driver("b", "n2").later(11)
    measured = history.executor("a", 2).measured(a=2, b=0)
    assert "1 of 2 executors for" in measured.applications["a"].partial


def test_an_executor_that_waits_while_nothing_else_starts_is_not_called_partial() -> None:
    history = History("n1").driver("a").gang("a", ("n1", 2)).driver("a", "n1")
    history.executor("a", 1, "n1").executor("a", 2).later(11)
    assert history.executor("a", 2).measured(a=2).partial == []


def test_waiting_is_noticed_even_when_nothing_more_happens() -> None:
    history = History("n1", "n2").driver("a").gang("a", ("n1", 2)).driver("a", "n1")
    history.executor("a", 1).driver("b").driver("b", "n2").later(60)
    assert [app.expected.name for app in history.measured(a=2, b=0).partial] == ["a"]


def test_a_slow_driver_is_not_a_waiting_executor() -> None:
    history = History("n1", "n2").driver("a").gang("a", ("n1", 2)).driver("a", "n1").driver("b").driver("b", "n2")
    history.later(60).executor("a", 1, "n1").executor("a", 2, "n1")
    assert history.measured(a=2, b=0).partial == []


def test_a_driver_that_ends_without_ever_having_had_what_it_asked_for_is_a_partial_gang() -> None:
    history = History("n1").driver("a").gang("a", ("n1", 2)).driver("a", "n1").executor("a", 1, "n1").executor("a", 2)
    measured = history.driver("a", "n1", finished=True, succeeded=True).measured(a=2)
    assert measured.applications["a"].partial == "ended without ever having 2 executors"
    assert measured.applications["a"].outcome is Outcome.SUCCEEDED


def test_a_driver_that_never_asked_for_its_minimum_is_not_called_partial() -> None:
    history = History("n1").driver("a").gang("a", ("n1", 2)).driver("a", "n1").executor("a", 1, "n1")
    measured = history.driver("a", "n1", finished=True).measured(a=2)
    assert measured.partial == []
    assert measured.applications["a"].minimum_reached is None
    assert measured.applications["a"].outcome is Outcome.FAILED


def test_a_driver_created_while_muster_was_away_is_unguarded_and_not_partial() -> None:
    history = History("n1").driver("a").driver("a", "n1")
    measured = history.measured((1.5, 2.5), a=2)
    assert measured.partial == []
    assert [app.expected.name for app in measured.unguarded] == ["a"]


def test_a_driver_created_before_or_after_that_is_partial() -> None:
    history = History("n1").later(20).driver("a").driver("a", "n1")
    assert len(history.measured((1.5, 20.0), a=2).partial) == 1
    assert len(history.measured((25.0, 30.0), a=2).partial) == 1


def test_a_driver_that_was_held_before_muster_went_away_must_be_whole_when_it_is_released() -> None:
    history = History("n1").driver("a", gated=True).later(20).driver("a", "n1")
    assert len(history.measured((5.0, 10.0), a=2).partial) == 1


def test_a_gang_that_was_starting_when_muster_went_away_is_unguarded() -> None:
    history = History("n1").driver("a", gated=True).gang("a", ("n1", 2)).driver("a", "n1").executor("a", 1)
    history.executor("a", 2).driver("a", "n1", finished=True)
    assert [app.expected.name for app in history.measured((5.0, 5.5), a=2).unguarded] == ["a"]


def test_requests_above_allocatable_are_an_overcommitted_node() -> None:
    history = History("n1")
    for number in range(5):
        history.executor("a", number, "n1")
    assert history.measured(a=0).overcommitted == {"n1": "cpu: 5000 of 4000"}


def test_a_node_overcommitted_for_an_instant_stays_counted() -> None:
    history = History("n1").executor("a", 0, "n1", requests=Resources.of(memory=9 << 30))
    history.executor("a", 0, "n1", finished=True)
    assert set(history.measured(a=0).overcommitted) == {"n1"}


def test_more_pods_than_a_node_takes_are_an_overcommitted_node() -> None:
    history = History("n1")
    for number in range(11):
        history.executor("a", number, "n1", requests=Resources.of(cpu=1))
    assert history.measured(a=0).overcommitted == {"n1": "pods: 11 of 10"}


def test_a_resource_the_node_does_not_have_is_overcommitted() -> None:
    history = History("n1").executor("a", 0, "n1", requests=Resources.of(**{"nvidia.com/gpu": 1}))
    assert set(history.measured(a=0).overcommitted) == {"n1"}


@pytest.mark.parametrize("end", [{"finished": True}, {"finished": True, "succeeded": True}])
def test_a_finished_pod_holds_nothing(end: dict[str, bool]) -> None:
    history = History("n1")
    for number in range(4):
        history.executor("a", number, "n1")
    history.executor("a", 3, "n1", **end).executor("a", 4, "n1")
    measured = history.measured(a=0)
    assert measured.overcommitted == {}
    assert measured.used["n1"]["cpu"] == 4000


def test_pods_that_are_not_sparks_take_room_but_are_no_pods_of_the_demo() -> None:
    history = History("n1").executor("a", 1, "n1")
    history.changes.append(PodObserved(99, 9.0, "daemon", "", node="n1", requests=Resources.of(cpu=3500)))
    measured = history.measured(a=0)
    assert measured.pods_seen == 1
    assert set(measured.overcommitted) == {"n1"}


def test_a_gang_that_exceeds_the_cluster_is_told_from_one_that_waits() -> None:
    history = History("n1").driver("a").gang("a", reason="ExceedsCluster")
    assert history.measured(a=50).applications["a"].outcome is Outcome.TOO_LARGE
