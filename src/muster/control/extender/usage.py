"""``resource.usage.*``: what reservations take on each node, and for whom nobody has come yet. Pure.

Counted on from the last time: of thousands of reservations, a few have changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from muster.cluster.quantity import QuantityError
from muster.cluster.resources import CPU, GPU, MEMORY
from muster.control.extender.object_states import Key, key_of
from muster.control.extender.reservations import ReservationSpec, ReservationStatus, ResourceReservation, Slot

SLICE = 1000
"""Slots that are counted in one go."""

Amounts = tuple[int, int, int]
"""Millicores, bytes, GPUs."""

NOTHING: Amounts = (0, 0, 0)


class Usage:
    def __init__(self) -> None:
        self.unbound: Amounts = NOTHING
        """Of all slots that no pod has taken yet."""
        self.nodes: dict[str, Amounts] = {}
        """By node, of every slot there."""
        self.changed: dict[str, None] = {}
        """Nodes whose amounts changed since somebody cleared this."""
        self._slots: dict[str, int] = {}
        self._counted: dict[Key, tuple[ReservationSpec, ReservationStatus]] = {}

    def count(self, reservations: Iterable[ResourceReservation]) -> Iterator[None]:
        """These are all that there are. Gives way after each slice."""
        gone, done = dict.fromkeys(self._counted), 0
        for each in reservations:
            key, now = key_of(each), (each.spec, each.status)
            gone.pop(key, None)
            before = self._counted.get(key)
            done += 1
            if before is None or before[0] is not now[0] or before[1] is not now[1]:
                done += self._replace(key, now)
            if done >= SLICE:
                done = 0
                yield
        for key in gone:
            done += self._replace(key, None)
            if done >= SLICE:
                done = 0
                yield

    def _replace(self, key: Key, now: tuple[ReservationSpec, ReservationStatus] | None) -> int:
        """Returns how many slots were looked at."""
        before = self._counted.pop(key, None)
        looked = self._add(*before, -1) if before is not None else 0
        if now is not None:
            self._counted[key] = now
            looked += self._add(*now, 1)
        return looked

    def _add(self, spec: ReservationSpec, status: ReservationStatus, sign: int) -> int:
        for name, slot in spec.reservations.items():
            try:
                amounts = _amounts(*map(slot.resources.get, (CPU, MEMORY, GPU)))
            except QuantityError:  # edited by hand
                continue
            node = slot.node
            self.changed[node] = None
            self.nodes[node] = _sum(self.nodes.get(node, NOTHING), amounts, sign)
            self._slots[node] = self._slots.get(node, 0) + sign
            if not self._slots[node]:
                del self._slots[node], self.nodes[node]
            if not status.pods.get(name):
                self.unbound = _sum(self.unbound, amounts, sign)
        return len(spec.reservations)


def _sum(one: Amounts, other: Amounts, sign: int) -> Amounts:
    return one[0] + sign * other[0], one[1] + sign * other[1], one[2] + sign * other[2]


@lru_cache(maxsize=4096)
def _amounts(cpu: str | int | None, memory: str | int | None, gpu: str | int | None) -> Amounts:
    """Slots of an application are alike, and many applications are. Raises ``QuantityError``."""
    texts = {CPU: cpu, MEMORY: memory, GPU: gpu}
    requests = Slot("", {name: text for name, text in texts.items() if text is not None}).requests
    return requests.get(CPU), requests.get(MEMORY), requests.get(GPU)
