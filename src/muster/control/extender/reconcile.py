"""What a ``ResourceReservation`` means to the scheduler, at the start and when another replica wrote it. Pure.

Executors are not told apart: the scheduler finds by itself which of them fill slots. A driver that runs without a
reservation gets one: its executors where they are, and what is missing of its minimum on the newest nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from muster.control.extender.reservations import DRIVER_SLOT, ResourceReservation
from muster.kube.objects import Pod
from muster.scheduling.model import Application, Reservation, Slot


def belongs_to(reservation: ResourceReservation, driver: Pod) -> bool:
    """Whether it was made for this very driver, and not for an earlier one of the same application id."""
    owners = [owner.uid for owner in reservation.metadata.owner_references if owner.kind == "Pod"]
    return not owners or not driver.metadata.uid or driver.metadata.uid in owners


def written(reservation: ResourceReservation, application: Application, driver: Pod) -> Reservation:
    """What a reservation object says. The driver's slot is never an executor's."""
    slots = reservation.spec.reservations
    node = driver.spec.node_name or (slots[DRIVER_SLOT].node if DRIVER_SLOT in slots else "")
    counts = Counter(slot.node for name, slot in slots.items() if name != DRIVER_SLOT)
    return Reservation(application.key, 0, node, _slots(counts))


def rebuilt(
    application: Application, driver: Pod, executors: Iterable[str], newest_first: Sequence[tuple[str, int]]
) -> Reservation:
    """A reservation for a driver that runs without one.

    ``executors``: the nodes of those that run. ``newest_first``: nodes that further ones may go to, and how many fit
    on each; of those, as many are reserved as fit.
    """
    counts = Counter(list(executors)[: application.minimum])
    missing = application.minimum - counts.total()
    for node, room in newest_first:
        taken = min(room, missing)
        if taken > 0:
            counts[node] += taken
            missing -= taken
    return Reservation(application.key, 0, driver.spec.node_name, _slots(counts))


def _slots(counts: Counter[str]) -> tuple[Slot, ...]:
    return tuple(Slot(node, count) for node, count in sorted(counts.items()))
