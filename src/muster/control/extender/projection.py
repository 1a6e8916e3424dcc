"""A ``ResourceReservation`` is a picture of what the scheduler holds: kept in step with it, with as little changed as
possible, and in time that depends on what changed alone, for applications of many thousand executors. Pure.

Slots have names there, and none in the scheduler, where slots of a kind on a node are interchangeable. So a pod keeps
the slot it has, a free slot stays where room is still kept, and only what is left over moves. Slots are never removed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest

import msgspec

from muster.control.extender.reservations import (
    DRIVER_SLOT,
    ReservationSpec,
    ReservationStatus,
    ResourceReservation,
    Slot,
    executor_slot,
)
from muster.scheduling.model import Holding
from muster.scheduling.model import Slot as Room

_Place = tuple[int, str]
"""A slot's number, by which slots are ordered, and its name."""


class Projection(msgspec.Struct, frozen=True):
    reservation: ResourceReservation
    soft: dict[str, str]
    """Executors above the minimum, by name: their nodes. Known from the pods alone."""


def projected(
    previous: ResourceReservation,
    holding: Holding,
    minimum: int,
    resources: Mapping[str, str],
    *,
    ended: Collection[str] = frozenset(),
    asked: str = "",
) -> Projection:
    """``previous`` brought in line with all of ``holding``. Arguments as ``Picture.follow``."""
    picture = Picture(previous)
    picture.follow(holding, minimum, resources, ended=ended, asked=asked)
    return Projection(picture.on(previous), picture.soft)


class Picture:
    """One application's reservation. Made from an object that others may have written, it shows what is held as soon
    as it has followed everything that is held; from then on it follows changes.
    """

    def __init__(self, reservation: ResourceReservation) -> None:
        self._spec, self._status = reservation.spec, reservation.status
        self._slots = dict(reservation.spec.reservations)
        self._names = dict(reservation.status.pods)
        self._is_changed = False
        self._last = 0
        """The highest number of an executor's slot."""
        self._free: dict[str, list[_Place]] = {}
        """Slots without an executor that has room, by node; in order."""
        self._room: dict[str, int] = {}
        """Unfilled slots that the scheduler keeps, by node."""
        self._unfilled = 0
        """Sum of ``_room``."""
        self._uneven: dict[str, None] = {}
        """Nodes with more free slots than room is kept, or fewer."""
        self._seated: dict[str, None] = {}
        """Executors that have room, and a slot."""
        self._slots_of: dict[str, list[str]] = {}
        """Executors' slots by the pod that is named there, whether it still has room or not. One, as a rule."""
        self.soft: dict[str, str] = {}
        """Executors that have room and no slot: their nodes."""
        for name, slot in self._slots.items():
            if name == DRIVER_SLOT:
                continue
            place = _place(name)
            self._last = max(self._last, place[0])
            self._free.setdefault(slot.node, []).append(place)
            if pod := self._names.get(name):
                self._slots_of.setdefault(pod, []).append(name)
        for places in self._free.values():
            places.sort()
        self._uneven = dict.fromkeys(self._free)

    def on(self, reservation: ResourceReservation) -> ResourceReservation:
        """The object with this content."""
        self._draw()
        return msgspec.structs.replace(reservation, spec=self._spec, status=self._status)

    def is_on(self, reservation: ResourceReservation) -> bool:
        """Whether the object holds this content, made by ``on``, and nothing that others wrote since."""
        self._draw()
        return reservation.spec is self._spec and reservation.status is self._status

    def _draw(self) -> None:
        if self._is_changed:
            self._spec, self._status = ReservationSpec(dict(self._slots)), ReservationStatus(dict(self._names))
            self._is_changed = False

    def slot_of(self, pod: str) -> str | None:
        """The slot that names this executor."""
        return next(iter(self._slots_of.get(pod, ())), None)

    def follow(
        self,
        changes: Holding,
        minimum: int,
        resources: Mapping[str, str],
        *,
        ended: Collection[str] = frozenset(),
        asked: str = "",
    ) -> None:
        """Bring it in line with ``changes`` of what is held (the first time: all of it).

        ``minimum``: executors that have slots. ``resources``: of slots that have to be added. ``ended``: names of
        executors that are over but not deleted; their slots go to new executors only. ``asked``: the one that was
        answered just now.
        """
        if changes.driver_node and DRIVER_SLOT in self._slots:
            self._put(DRIVER_SLOT, changes.driver_node)
        for pod, node in changes.executors:
            if node:
                self._enter(pod, node)
            else:
                self._leave(pod)
        for each in changes.unfilled:
            self._keep_room(each)
        if self._uneven or self.soft:
            self._settle(minimum - self._unfilled - changes.owed, resources, ended, asked)

    # What changed

    def _enter(self, pod: str, node: str) -> None:
        """An executor has room on this node, and keeps a slot that names it."""
        slots = self._slots_of.get(pod)
        if slots is None:
            self.soft[pod] = node
            return
        if pod not in self._seated:
            for slot in slots:
                self._unfree(slot)
            self._seated[pod] = None
        for slot in slots:
            self._put(slot, node)

    def _leave(self, pod: str) -> None:
        self.soft.pop(pod, None)
        if pod in self._seated:
            del self._seated[pod]
            for slot in self._slots_of[pod]:
                self._set_free(slot)

    def _keep_room(self, room: Room) -> None:
        before = self._room.pop(room.node, 0)
        if room.count:
            self._room[room.node] = room.count
        self._unfilled += room.count - before
        self._weigh(room.node)

    # What follows

    def _settle(self, filled: int, resources: Mapping[str, str], ended: Collection[str], asked: str) -> None:
        """``filled``: slots that executors should have, those of executors that are over included."""
        left = _Left()
        for place in sorted(self._beyond_room()):
            left.add(place, self._slots[place[1]].node, is_dead=self._names.get(place[1]) in ended)
        if asked in self.soft:
            slot = left.take(self.soft[asked], dead_too=True)
            if slot:
                self._seat(slot, asked)
        due = filled - len(self._seated) - left.dead
        for pod in nsmallest(due, self.soft, key=_place) if due > 0 else ():
            node = self.soft[pod]
            slot = left.take(node) or left.take(dead_too=pod == asked)
            self._seat(slot or self._add(node, resources), pod)
        for node in sorted(self._uneven):
            for _ in range(self._room.get(node, 0) - len(self._free.get(node, ()))):
                slot = left.take() or left.take(dead_too=True)
                if slot:
                    self._unfree(slot)
                    self._put(slot, node)
                    self._set_free(slot)
                else:
                    self._set_free(self._add(node, resources))

    def _beyond_room(self) -> Iterable[_Place]:
        """Free slots for which no room is kept: the lowest numbers of each node."""
        for node in self._uneven:
            places = self._free.get(node, [])
            yield from places[: max(0, len(places) - self._room.get(node, 0))]

    def _seat(self, slot: str, pod: str) -> None:
        self._unfree(slot)
        before = self._names.get(slot)
        if before:
            others = self._slots_of[before]
            others.remove(slot)
            if not others:
                del self._slots_of[before]
        self._names[slot] = pod
        self._slots_of[pod] = [slot]
        self._seated[pod] = None
        self._is_changed = True
        self._put(slot, self.soft.pop(pod))

    def _add(self, node: str, resources: Mapping[str, str]) -> str:
        self._last += 1
        name = executor_slot(self._last)
        self._slots[name] = Slot(node, dict(resources))
        self._is_changed = True
        return name

    def _put(self, slot: str, node: str) -> None:
        held = self._slots[slot]
        if held.node != node:
            self._slots[slot] = Slot(node, held.resources)
            self._is_changed = True

    def _set_free(self, slot: str) -> None:
        node = self._slots[slot].node
        insort(self._free.setdefault(node, []), _place(slot))
        self._weigh(node)

    def _unfree(self, slot: str) -> None:
        """Does nothing for a slot that was just added."""
        node, place = self._slots[slot].node, _place(slot)
        places = self._free.get(node, [])
        at = bisect_left(places, place)
        if places[at : at + 1] != [place]:
            return
        del places[at]
        if not places:
            del self._free[node]
        self._weigh(node)

    def _weigh(self, node: str) -> None:
        if len(self._free.get(node, ())) == self._room.get(node, 0):
            self._uneven.pop(node, None)
        else:
            self._uneven[node] = None


class _Left:
    """Free slots for which no room is kept. Those of executors that are over are ``dead``: taken only where said."""

    def __init__(self) -> None:
        self.dead = 0
        self._left: set[str] = set()
        self._queues: dict[tuple[str, bool], deque[_Place]] = {}
        """By node ("" for any of them) and whether they are dead, in order; those that were taken are still in some."""

    def add(self, place: _Place, node: str, *, is_dead: bool) -> None:
        """Called in the order of the slots' numbers."""
        self._left.add(place[1])
        self.dead += is_dead
        for where in (node, ""):
            self._queues.setdefault((where, is_dead), deque()).append(place)

    def take(self, node: str = "", *, dead_too: bool = False) -> str | None:
        """The one with the lowest number, on a node if one is named."""
        firsts = {is_dead: self._first(node, is_dead) for is_dead in ((False, True) if dead_too else (False,))}
        found = min(((place, is_dead) for is_dead, place in firsts.items() if place is not None), default=None)
        if found is None:
            return None
        (_, slot), is_dead = found
        self._left.remove(slot)
        self.dead -= is_dead
        return slot

    def _first(self, node: str, is_dead: bool) -> _Place | None:
        queue = self._queues.get((node, is_dead), deque())
        while queue and queue[0][1] not in self._left:
            queue.popleft()
        return queue[0] if queue else None


def in_rounds(rooms: Iterable[Room]) -> list[str]:
    """Nodes of single executors when they are dealt out one per node and round (``distribute-evenly``)."""
    waiting = deque((each.node, each.count) for each in rooms)
    dealt = []
    while waiting:
        node, count = waiting.popleft()
        dealt.append(node)
        if count > 1:
            waiting.append((node, count - 1))
    return dealt


def node_by_node(rooms: Iterable[Room]) -> list[str]:
    """Nodes of single executors when one node is filled after the other."""
    return [each.node for each in rooms for _ in range(each.count)]


def _place(name: str) -> _Place:
    """Slots, and executors, in the order of the numbers that they end in; names without one come first."""
    number = name.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, name)
