"""What is to be done: the scheduler's only output, carried out by ``control`` in the order given, per application."""

from __future__ import annotations

import msgspec

from muster.scheduling.model import Application, ApplicationKey, GangStatus, PodRef, PodShape, Reservation


class Reserve(msgspec.Struct, frozen=True, tag=True):
    """Write the reservation into the application's ``Gang``; must be durable before a later ``ReleaseDriver``."""

    application: Application
    reservation: Reservation
    status: GangStatus


class ReleaseDriver(msgspec.Struct, frozen=True, tag=True):
    """Take the gate off the driver. ``node`` pins it there; "" leaves it to ordinary scheduling (no gang)."""

    key: ApplicationKey
    pod: PodRef
    node: str
    reason: str


class Place(msgspec.Struct, frozen=True, tag=True):
    """Release a held executor: pin it to ``node`` and take its gate off."""

    key: ApplicationKey
    pod: PodRef
    node: str
    extra: bool


class Evict(msgspec.Struct, frozen=True, tag=True):
    """Call a pod back: delete it, with the time it needs to hand on what it keeps (decommissioning)."""

    key: ApplicationKey
    pod: PodRef
    grace_seconds: float
    reason: str
    """CamelCase, stable: ``ExecutorCalledBack``, ``ApplicationPreempted``."""
    core_seconds: float = 0.0
    """Work that is lost with it, at most."""


class Appraise(msgspec.Struct, frozen=True, tag=True):
    """Find out what would be lost with executors of this application, if that can be had; told by ``LossesKnown``."""

    key: ApplicationKey


class Demand(msgspec.Struct, frozen=True, tag=True):
    """Room that is missing for an application (shape × count), for autoscalers; empty when none is any more."""

    key: ApplicationKey
    missing: tuple[tuple[PodShape, int], ...]


class Condition(msgspec.Struct, frozen=True, tag=True):
    """The status of the application's ``Gang`` changed (may be written late and coalesced)."""

    key: ApplicationKey
    status: GangStatus


class Publish(msgspec.Struct, frozen=True, tag=True):
    """A Kubernetes Event on a pod."""

    key: ApplicationKey
    pod: PodRef
    warning: bool
    reason: str
    message: str


Decision = Reserve | ReleaseDriver | Place | Evict | Appraise | Demand | Condition | Publish
