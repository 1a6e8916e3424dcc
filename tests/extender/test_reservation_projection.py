"""A reservation object follows what the scheduler holds: names stay, what is left over moves, nothing is removed."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from muster.control.extender.projection import in_rounds, node_by_node, projected
from muster.control.extender.reservations import ResourceReservation, bound, new_reservation
from muster.scheduling.model import Holding, Slot
from tests.extender.spark_objects import driver_pod

SIZE = {"cpu": "1", "memory": "1Gi"}


def reservation(*nodes: str, **pods: str) -> ResourceReservation:
    """Executor slots on ``nodes``; ``executor_1="pod"`` binds one."""
    made = new_reservation(driver_pod(), "app", "n0", nodes, SIZE, SIZE)
    for slot, pod in pods.items():
        made = bound(made, slot.replace("_", "-"), pod)
    return made


def holding(unfilled: dict[str, int], executors: dict[str, str], owed: int = 0) -> Holding:
    return Holding("n0", tuple(Slot(node, count) for node, count in unfilled.items()), owed, tuple(executors.items()))


def slots(value: ResourceReservation) -> dict[str, tuple[str, str]]:
    return {name: (slot.node, pod) for name, slot, pod in value.slots() if name != "driver"}


def test_what_is_in_line_does_not_change() -> None:
    before = reservation("n1", "n1", "n2", executor_2="e")

    after = projected(before, holding({"n1": 1, "n2": 1}, {"e": "n1"}), 3, SIZE)

    assert after.reservation == before
    assert after.soft == {}


def test_a_new_executor_takes_the_lowest_free_slot_of_its_node() -> None:
    after = projected(reservation("n2", "n1", "n1"), holding({"n2": 1, "n1": 1}, {"e": "n1"}), 3, SIZE, asked="e")

    assert slots(after.reservation) == {"executor-1": ("n2", ""), "executor-2": ("n1", "e"), "executor-3": ("n1", "")}


def test_a_slot_moves_to_the_executor_that_took_it() -> None:
    after = projected(reservation("n1"), holding({}, {"e": "n2"}), 1, SIZE, asked="e")

    assert slots(after.reservation) == {"executor-1": ("n2", "e")}


def test_an_executor_above_the_minimum_has_no_slot() -> None:
    after = projected(reservation("n1", executor_1="e1"), holding({}, {"e1": "n1", "e2": "n2"}), 1, SIZE, asked="e2")

    assert slots(after.reservation) == {"executor-1": ("n1", "e1")}
    assert after.soft == {"e2": "n2"}


def test_a_new_executor_takes_the_slot_of_one_that_ended_there() -> None:
    before = reservation("n1", executor_1="dead")
    held = holding({}, {"old": "n1", "new": "n1"})

    after = projected(before, held, 1, SIZE, ended={"dead"}, asked="new")

    assert slots(after.reservation) == {"executor-1": ("n1", "new")}
    assert after.soft == {"old": "n1"}


def test_the_slot_of_one_that_ended_waits_for_a_new_executor() -> None:
    before = reservation("n1", executor_1="dead")

    after = projected(before, holding({}, {"old": "n2"}), 1, SIZE, ended={"dead"})

    assert after.reservation == before
    assert after.soft == {"old": "n2"}


def test_the_slot_of_one_that_was_deleted_goes_to_the_oldest_without_a_slot() -> None:
    before = reservation("n1", executor_1="gone")

    after = projected(before, holding({}, {"old": "n2", "young": "n3"}), 1, SIZE)

    assert slots(after.reservation) == {"executor-1": ("n2", "old")}
    assert after.soft == {"young": "n3"}


def test_free_slots_follow_the_room_that_is_kept() -> None:
    after = projected(reservation("lost", "n1"), holding({"n1": 1, "n3": 1}, {}), 2, SIZE)

    assert slots(after.reservation) == {"executor-1": ("n3", ""), "executor-2": ("n1", "")}


def test_slots_without_room_stay_where_they_were() -> None:
    before = reservation("lost", "n1")

    assert projected(before, holding({"n1": 1}, {}, owed=1), 2, SIZE).reservation == before


def test_slots_that_were_missing_are_added_behind_the_last() -> None:
    after = projected(reservation("n1"), holding({"n1": 1, "n2": 2}, {}), 3, SIZE)

    assert slots(after.reservation) == {"executor-1": ("n1", ""), "executor-2": ("n2", ""), "executor-3": ("n2", "")}
    assert after.reservation.spec.reservations["executor-3"].resources == SIZE


def test_executors_are_dealt_out_or_fill_node_after_node() -> None:
    rooms = (Slot("n1", 3), Slot("n2", 1), Slot("n3", 2))

    assert in_rounds(rooms) == ["n1", "n2", "n3", "n1", "n3", "n1"]
    assert node_by_node(rooms) == ["n1", "n1", "n1", "n2", "n3", "n3"]


NODES = st.sampled_from(["n1", "n2", "n3"])


@given(data=st.data())
def test_whatever_is_held_each_executor_of_the_gang_has_one_slot_and_all_kept_room_is_shown(
    data: st.DataObject,
) -> None:
    minimum = data.draw(st.integers(0, 5))
    made = reservation(*data.draw(st.lists(NODES, min_size=minimum, max_size=minimum)))
    seen: set[str] = set()
    for step in range(data.draw(st.integers(1, 6))):
        placed = data.draw(st.dictionaries(st.sampled_from([f"e{n}" for n in range(6)]), NODES, max_size=6))
        unfilled = max(0, minimum - len(placed))
        room = Counter(data.draw(st.lists(NODES, min_size=unfilled, max_size=unfilled)))
        seen |= set(placed)
        asked = data.draw(st.sampled_from(["", *placed]))
        held = holding(dict(room), placed)

        after = projected(made, held, minimum, SIZE, asked=asked)
        assert projected(after.reservation, held, minimum, SIZE).reservation == after.reservation, "it is stable"

        assert set(made.spec.reservations) <= set(after.reservation.spec.reservations), "slots are never removed"
        pods = [pod for _, pod in slots(after.reservation).values() if pod in placed]
        assert len(pods) == len(set(pods)) == min(minimum, len(placed)), step
        assert set(placed) - set(pods) == set(after.soft)
        assert all(placed[pod] == node for node, pod in slots(after.reservation).values() if pod in placed)
        free = Counter(node for node, pod in slots(after.reservation).values() if pod not in placed)
        assert room <= free
        made = after.reservation
