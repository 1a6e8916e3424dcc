"""The plain projection: all slots of a reservation drawn anew from everything that is held, however long it takes.

What ``muster.control.extender.projection`` is compared with, which looks only at what changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec

from muster.control.extender.projection import Projection
from muster.control.extender.reservations import (
    DRIVER_SLOT,
    ReservationSpec,
    ReservationStatus,
    ResourceReservation,
    Slot,
    executor_slot,
)
from muster.scheduling.model import Holding


def plainly_projected(
    previous: ResourceReservation,
    holding: Holding,
    minimum: int,
    resources: Mapping[str, str],
    *,
    ended: Collection[str] = frozenset(),
    asked: str = "",
) -> Projection:
    """As ``projection.projected``."""
    slots, names = dict(previous.spec.reservations), dict(previous.status.pods)
    placed = dict(sorted(holding.executors, key=lambda placed: _number(placed[0])))
    if holding.driver_node and DRIVER_SLOT in slots:
        slots[DRIVER_SLOT] = _at(slots[DRIVER_SLOT], holding.driver_node)
    executor_slots = sorted((name for name in slots if name != DRIVER_SLOT), key=_number)
    kept = [name for name in executor_slots if names.get(name) in placed]
    for name in kept:
        slots[name] = _at(slots[name], placed[names[name]])
    seated = {names[name] for name in kept}
    standing = [pod for pod in placed if pod not in seated]
    room = Counter({each.node: each.count for each in sorted(holding.unfilled, key=lambda slot: slot.node)})
    left = _keep_free(slots, [name for name in executor_slots if name not in kept], room)
    dead = [name for name in left if names.get(name) in ended]

    if asked in standing:
        taken = next((name for name in left if slots[name].node == placed[asked]), None)
        if taken is not None:
            _seat(names, left, standing, taken, asked)
            dead = [name for name in dead if name != taken]
    filled = minimum - sum(each.count for each in holding.unfilled) - holding.owed
    due = filled - (len(placed) - len(standing)) - len(dead)
    for pod in standing[:]:
        if due <= 0:
            break
        allowed = [name for name in left if name not in dead or pod == asked]
        taken = min(allowed, key=lambda name: slots[name].node != placed[pod], default=None)
        if taken is None:
            taken = _add(slots, placed[pod], resources)
            left.append(taken)
        slots[taken] = _at(slots[taken], placed[pod])
        _seat(names, left, standing, taken, pod)
        due -= 1
    _move_or_add(slots, [name for name in left if name not in dead] + dead, room, resources)
    return Projection(
        msgspec.structs.replace(previous, spec=ReservationSpec(slots), status=ReservationStatus(names)),
        {pod: placed[pod] for pod in standing},
    )


def _keep_free(slots: Mapping[str, Slot], free: Iterable[str], room: Counter[str]) -> list[str]:
    """Free slots stay on nodes where room is still kept, those with the highest numbers; the others, in order.

    ``room`` is left with what has no slot yet.
    """
    left = []
    for name in reversed(list(free)):
        if room[slots[name].node] > 0:
            room[slots[name].node] -= 1
        else:
            left.append(name)
    return left[::-1]


def _move_or_add(slots: dict[str, Slot], left: list[str], room: Counter[str], resources: Mapping[str, str]) -> None:
    for node, count in room.items():
        for _ in range(count):
            if left:
                name = left.pop(0)
                slots[name] = _at(slots[name], node)
            else:
                _add(slots, node, resources)


def _seat(names: dict[str, str], left: list[str], standing: list[str], slot: str, pod: str) -> None:
    names[slot] = pod
    left.remove(slot)
    standing.remove(pod)


def _add(slots: dict[str, Slot], node: str, resources: Mapping[str, str]) -> str:
    numbers = [_number(name) for name in slots if name != DRIVER_SLOT]
    name = executor_slot(max((number for number, _ in numbers), default=0) + 1)
    slots[name] = Slot(node, dict(resources))
    return name


def _at(slot: Slot, node: str) -> Slot:
    return slot if slot.node == node else Slot(node, slot.resources)


def _number(slot: str) -> tuple[int, str]:
    """Slots in the order of their numbers; names that others made up come first."""
    number = slot.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, slot)
