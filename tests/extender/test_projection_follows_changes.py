"""A reservation that follows changes is the one that is drawn anew from everything, whatever the changes were."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.control.extender.projection import Picture, projected
from muster.control.extender.reservations import ReservationStatus, ResourceReservation, new_reservation
from muster.scheduling.model import Holding, Slot
from tests.extender.plain_projection import plainly_projected
from tests.extender.spark_objects import driver_pod

SIZE = {"cpu": "1", "memory": "1Gi"}
NODES = ["n1", "n2", "n3", "n4"]
PODS = [f"exec-{number}" for number in range(1, 13)]


class Held:
    """What a scheduler could hold of one application; changed at random, told whole or as changes."""

    def __init__(self, data: st.DataObject, minimum: int) -> None:
        self.data = data
        self.minimum = minimum
        self.driver = "n0"
        self.executors: dict[str, str] = {}
        self.room: Counter[str] = Counter()
        self.owed = minimum
        self.ended: set[str] = set()
        self._told = self.whole()

    def whole(self) -> Holding:
        rooms = tuple(Slot(node, count) for node, count in self.room.items() if count)
        return Holding(self.driver, rooms, self.owed, tuple(self.executors.items()))

    def changes(self) -> Holding:
        before, now = self._told, self.whole()
        self._told = now
        rooms = {slot.node: slot.count for slot in before.unfilled}
        placed = dict(before.executors)
        return Holding(
            self.driver,
            tuple(Slot(node, self.room[node]) for node in NODES if rooms.get(node, 0) != self.room[node]),
            self.owed,
            tuple((pod, self.executors.get(pod, "")) for pod in PODS if placed.get(pod) != self.executors.get(pod)),
            whole=False,
        )

    def act(self) -> str:
        """Returns the executor that was asked about, if one was."""
        node = self.data.draw(st.sampled_from(NODES))
        pod = self.data.draw(st.sampled_from(PODS))
        match self.data.draw(st.sampled_from(["place", "place", "place", "remove", "end", "lose", "repay", "driver"])):
            case "place":
                self.ended.discard(pod)
                self.executors[pod] = node
                return self.data.draw(st.sampled_from([pod, ""]))
            case "remove":
                self.executors.pop(pod, None)
                self.ended.discard(pod)
            case "end":
                if self.executors.pop(pod, None):
                    self.ended.add(pod)
            case "lose":
                self.owed += self.room.pop(node, 0)
            case "repay" if self.owed:
                self.room[node] += self.owed
                self.owed = 0
            case "driver":
                self.driver = node
        return ""

    def balance(self) -> None:
        """As the scheduler does: unfilled and owed slots are what is missing of the minimum."""
        missing = max(0, self.minimum - len(self.executors))
        while self.room.total() + self.owed > missing:
            if self.owed:
                self.owed -= 1
            else:
                node = self.data.draw(st.sampled_from(sorted(self.room.elements())))
                self.room[node] -= 1
        self.owed = missing - self.room.total()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_following_changes_draws_what_drawing_everything_anew_does(data: st.DataObject) -> None:
    minimum = data.draw(st.integers(0, 8))
    held = Held(data, minimum)
    written = new_reservation(
        driver_pod(), "app", "n0", data.draw(st.lists(st.sampled_from(NODES), max_size=9)), SIZE, SIZE
    )
    picture = Picture(written)
    for _ in range(data.draw(st.integers(1, 25))):
        asked = ""
        for _ in range(data.draw(st.integers(1, 3))):
            asked = held.act() or asked
        held.balance()
        if data.draw(st.integers(0, 9)) == 0:
            written = edited(data, written)
        changes = held.changes()
        if not picture.is_on(written):  # somebody else wrote
            picture, changes = Picture(written), held.whole()

        picture.follow(changes, minimum, SIZE, ended=held.ended, asked=asked)

        plain = plainly_projected(written, held.whole(), minimum, SIZE, ended=held.ended, asked=asked)
        assert picture.on(written) == plain.reservation
        assert picture.soft == plain.soft
        whole = projected(written, held.whole(), minimum, SIZE, ended=held.ended, asked=asked)
        assert whole == plain
        written = picture.on(written)


def edited(data: st.DataObject, reservation: ResourceReservation) -> ResourceReservation:
    """By hand, or by another replica: other names in slots."""
    spec, status = reservation.spec, reservation.status
    names = dict(status.pods)
    executors = [name for name in spec.reservations if name != "driver"]
    for name in executors:
        if data.draw(st.integers(0, 3)) == 0:
            names[name] = data.draw(st.sampled_from(PODS))
    return ResourceReservation(reservation.metadata, spec, ReservationStatus(names))


def test_what_does_not_change_stays_the_very_object() -> None:
    written = new_reservation(driver_pod(), "app", "n0", ["n1", "n2"], SIZE, SIZE)
    picture = Picture(written)

    picture.follow(Holding("n0", (Slot("n1", 1), Slot("n2", 1)), 0, ()), 2, SIZE)

    assert picture.is_on(written)
