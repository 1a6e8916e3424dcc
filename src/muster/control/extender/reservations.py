"""``ResourceReservation`` (``sparkscheduler.palantir.com``): the slots of one application, and which pod holds which.

Values are frozen; every change gives a new one. Go of the archived scheduler: ``pkg/apis/sparkscheduler``,
``internal/extender/resourcereservations.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from muster.cluster.resources import CPU, GPU, MEMORY, Resources
from muster.kube.kinds import Resource
from muster.kube.objects import KubeStruct, ObjectMeta, OwnerReference, Pod

GROUP = "sparkscheduler.palantir.com"
V1BETA1 = f"{GROUP}/v1beta1"
V1BETA2 = f"{GROUP}/v1beta2"
KIND = "ResourceReservation"

DRIVER_SLOT = "driver"
APP_ID_LABEL = "app-id"
SPEC_ANNOTATION = f"{GROUP}/reservation-spec"
"""On v1beta1 objects: the whole v1beta2 spec as JSON, for the resources that v1beta1 has no field for."""

_COUNTED = (CPU, MEMORY, GPU)
_SMALL = 100
"""Slots."""
_PAUSE_PER_SLOT = 0.001
"""Seconds."""


class Slot(KubeStruct, frozen=True, omit_defaults=False):
    """Room for one pod on one node."""

    node: str = ""
    resources: dict[str, str | int] = msgspec.field(default_factory=dict)
    """Quantities by name; names other than cpu, memory and nvidia.com/gpu are kept and count for nothing."""

    @property
    def requests(self) -> Resources:
        """What the slot takes on its node. Raises ``QuantityError``."""
        return Resources.parse({name: self.resources[name] for name in _COUNTED if name in self.resources})


class ReservationSpec(KubeStruct, frozen=True, omit_defaults=False):
    reservations: dict[str, Slot] = msgspec.field(default_factory=dict)
    """By slot: ``driver``, ``executor-1`` and so on. Slots are never removed."""


class ReservationStatus(KubeStruct, frozen=True, omit_defaults=False):
    pods: dict[str, str] = msgspec.field(default_factory=dict)
    """Name of the pod by slot. A dead pod stays listed until another takes its slot."""


class ResourceReservation(KubeStruct, frozen=True, omit_defaults=False):
    """``v1beta2``. Named after the application id, owned by the driver pod; status is written with the object."""

    metadata: ObjectMeta
    spec: ReservationSpec = ReservationSpec()
    status: ReservationStatus = ReservationStatus()
    api_version: str = V1BETA2
    kind: str = KIND

    def slot_of(self, pod_name: str) -> str | None:
        """The slot that this pod holds."""
        return next((slot for slot, name in self.status.pods.items() if name == pod_name), None)

    def slots(self) -> Iterator[tuple[str, Slot, str]]:
        """Name, slot and the pod that holds it ("" for none)."""
        pods = self.status.pods
        return ((name, slot, pods.get(name, "")) for name, slot in self.spec.reservations.items())


RESOURCE_RESERVATIONS = Resource(GROUP, "v1beta2", "resourcereservations", KIND, ResourceReservation)


def executor_slot(number: int) -> str:
    """Name of the ``number``-th executor's slot, counted from 1."""
    return f"executor-{number}"


def new_reservation(
    driver: Pod,
    app_id: str,
    driver_node: str,
    executor_nodes: Iterable[str],
    driver_resources: Mapping[str, str],
    executor_resources: Mapping[str, str],
    created: str | None = None,
) -> ResourceReservation:
    """The reservation of an application that was just placed; its driver holds its slot already.

    ``executor_nodes``: one per executor, in the order in which the packer placed them. ``*_resources``: quantities;
    the GPUs' is written even where there are none. ``created``: RFC 3339; the API server puts its own time there.
    """
    executor = Slot("", _with_gpu(executor_resources)).resources
    slots = {DRIVER_SLOT: Slot(driver_node, _with_gpu(driver_resources))}
    slots |= {executor_slot(number): Slot(node, executor) for number, node in enumerate(executor_nodes, start=1)}
    return ResourceReservation(
        metadata=ObjectMeta(
            name=app_id,
            namespace=driver.metadata.namespace,
            labels={APP_ID_LABEL: app_id},
            owner_references=(owned_by(driver),),
            creation_timestamp=created,
        ),
        spec=ReservationSpec(slots),
        status=ReservationStatus({DRIVER_SLOT: driver.metadata.name}),
    )


def pause_after(reservation: ResourceReservation) -> float:
    """Seconds until it is written again.

    A write costs as much as there are slots: it is sent, converted, stored and watched whole. So one of thousands of
    slots is not written anew for each executor; until then the pods tell who is where.
    """
    slots = len(reservation.spec.reservations)
    return slots * _PAUSE_PER_SLOT if slots > _SMALL else 0.0


def owned_by(pod: Pod) -> OwnerReference:
    """The reference that lets Kubernetes' garbage collector remove an object with its pod."""
    return OwnerReference("v1", "Pod", pod.metadata.name, pod.metadata.uid, controller=True, block_owner_deletion=True)


def bound(reservation: ResourceReservation, slot: str, pod_name: str, node: str | None = None) -> ResourceReservation:
    """``reservation`` with ``pod_name`` in ``slot``, which moves to ``node`` first when one is given.

    Raises:
        KeyError: there is no such slot.
    """
    held = reservation.spec.reservations[slot]
    spec = reservation.spec
    if node is not None and node != held.node:
        spec = ReservationSpec({**spec.reservations, slot: Slot(node, held.resources)})
    status = ReservationStatus({**reservation.status.pods, slot: pod_name})
    return msgspec.structs.replace(reservation, spec=spec, status=status)


def free_slots(reservation: ResourceReservation, node_of: Callable[[str], str | None]) -> list[str]:
    """Executor slots that another pod may take, by number.

    ``node_of`` answers for a pod's name: ``None`` when there is no such pod or it has ended, "" while it has no node.
    A slot is free when it has no pod, its pod is gone or over, or runs on another node than the slot's. The driver's
    slot is never an executor's (the archived scheduler gave it away).
    """
    free = [
        name
        for name, slot, pod in reservation.slots()
        if name != DRIVER_SLOT and (not pod or (node := node_of(pod)) is None or (node and node != slot.node))
    ]
    return sorted(free, key=lambda name: (len(name), name))


def _with_gpu(resources: Mapping[str, str]) -> dict[str, str | int]:
    return {**resources, GPU: resources.get(GPU, "0")}
