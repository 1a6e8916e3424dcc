"""What can happen: the scheduler's only input. Frozen values with their time ``at`` (seconds, never decreasing)."""

from __future__ import annotations

import msgspec

from muster.cluster.nodes import Node
from muster.queueing.config import QueueConfig
from muster.queueing.preemption import ExecutorLoss
from muster.scheduling.model import Application, ApplicationKey, GangStatus, Pod, PodRef, Reservation


class NodeSeen(msgspec.Struct, frozen=True, tag=True):
    """A node was added or changed."""

    at: float
    node: Node


class NodeGone(msgspec.Struct, frozen=True, tag=True):
    at: float
    name: str


class PodSeen(msgspec.Struct, frozen=True, tag=True):
    """A pod was added or changed: any pod that holds or may hold room on a node, Spark's or not."""

    at: float
    pod: Pod


class PodGone(msgspec.Struct, frozen=True, tag=True):
    """A pod no longer exists."""

    at: float
    pod: PodRef


class ApplicationFound(msgspec.Struct, frozen=True, tag=True):
    """The sizes of an application are known (again): it waits, or is adopted when its driver already runs."""

    at: float
    application: Application


class ApplicationInvalid(msgspec.Struct, frozen=True, tag=True):
    """The sizes cannot be had: bad values, sources that disagree, no ConfigMap in time. Nobody waits for it."""

    at: float
    key: ApplicationKey
    driver_pod: PodRef
    reason: str
    """``InvalidSize``, ``ConfigMapMissing``, …"""
    message: str


class ReservationRestored(msgspec.Struct, frozen=True, tag=True):
    """Read back from a ``Gang`` object after a restart, before ``Synced``."""

    at: float
    application: Application
    reservation: Reservation
    status: GangStatus | None = None
    """What the ``Gang`` said last: its timestamps go on."""


class LossesKnown(msgspec.Struct, frozen=True, tag=True):
    """What would be lost with each executor of an application, by Spark's executor id; as far as its driver told."""

    at: float
    key: ApplicationKey
    losses: tuple[tuple[str, ExecutorLoss], ...]


class QueuesChanged(msgspec.Struct, frozen=True, tag=True):
    """The queues are these from now on, those that are not named are none; told before ``Synced``, and at each change.

    They make a sound tree (``queueing.tree.QueueTree``).
    """

    at: float
    queues: tuple[QueueConfig, ...]


class Synced(msgspec.Struct, frozen=True, tag=True):
    """Everything that exists has been told: decisions may be made from here on."""

    at: float


class TimePassed(msgspec.Struct, frozen=True, tag=True):
    """Nothing happened, but it is later now: expiry, ageing."""

    at: float


Event = (
    NodeSeen
    | NodeGone
    | PodSeen
    | PodGone
    | ApplicationFound
    | ApplicationInvalid
    | ReservationRestored
    | LossesKnown
    | QueuesChanged
    | Synced
    | TimePassed
)
