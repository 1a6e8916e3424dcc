"""The nouns of scheduling: applications, pods, slots, placements, status. All frozen values."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from muster.cluster.constraints import PodConstraints
from muster.cluster.resources import Resources

ApplicationKey = str
"""``<namespace>/<spark-app-selector>``: the only identity of an application; pod names never are."""


class Role(StrEnum):
    DRIVER = "driver"
    EXECUTOR = "executor"
    OTHER = "other"


class Mode(StrEnum):
    """How an executor gets its node (docs/architecture.md, "How an application flows")."""

    BIND = "bind"
    PIN = "pin"
    HOLD = "hold"


class Phase(StrEnum):
    PENDING = "Pending"
    RESERVED = "Reserved"
    RUNNING = "Running"
    FINISHED = "Finished"
    INVALID = "Invalid"


class PodRef(msgspec.Struct, frozen=True, gc=False, order=True):
    namespace: str
    name: str
    uid: str = ""


class PodShape(msgspec.Struct, frozen=True, gc=False):
    """What a pod asks of a node: its requests (without the one of ``pods``) and its placement constraints."""

    requests: Resources
    constraints: PodConstraints = PodConstraints()


class Application(msgspec.Struct, frozen=True):
    """A Spark application and the size of its gang, as read from Spark's own configuration."""

    key: ApplicationKey
    name: str
    created: float
    """Creation of the driver pod (client mode: of the first executor), seconds."""
    driver: PodShape | None
    """``None`` in client mode, when the driver is no pod of ours."""
    executor: PodShape
    """Executors of the default resource profile (id 0): the gang is made of these."""
    minimum: int
    """Executors that must hold slots before the driver is released (0 is allowed)."""
    maximum: int | None
    """Ceiling with dynamic allocation; ``None`` means no ceiling; equal to ``minimum`` without."""
    driver_pod: PodRef | None = None
    queue: str = "default"
    pool: str = ""
    """Node pool: value of the configured label in the driver's selector or affinity; "" when it names none."""
    profiles: tuple[tuple[int, PodShape], ...] = ()
    """Shapes of further resource profiles, by id, as far as known."""
    user: str = ""
    """Kubernetes user that created the driver, as admission saw it; "" when unknown."""
    groups: tuple[str, ...] = ()
    priority: int = 0
    """``spec.priority`` of the driver."""
    run_seconds: float | None = None
    """How long it is expected to run, seconds; ``None`` when nobody knows."""


class Pod(msgspec.Struct, frozen=True, gc=False):
    """What scheduling needs of a pod, Spark's or not."""

    namespace: str
    name: str
    uid: str = ""
    requests: Resources = Resources()
    node: str = ""
    created: float = 0.0
    role: Role = Role.OTHER
    application: ApplicationKey = ""
    profile: int = 0
    """``spark-exec-resourceprofile-id``."""
    constraints: PodConstraints = PodConstraints()
    gated: bool = False
    """Carries the scheduling gate ``muster.dev/gang``."""
    running: bool = False
    finished: bool = False
    """Phase Succeeded or Failed: holds nothing any more."""
    terminating: bool = False
    """Has a deletion timestamp; still holds its node until finished or gone."""
    assigned: str = ""
    """Node named in the annotation ``muster.dev/slot``: the durable record of which slot the pod took."""
    extra: bool = False
    """That slot was an extra one, above the minimum."""
    pin_reasons: tuple[str, ...] = ()
    """Why the pod must not be born bound (volumes, host ports, affinity, …); empty when it may be."""
    gang_count: int | None = None
    """``muster.dev/executor-count`` on executors of client mode."""
    queue: str = ""
    """Named by ``muster.dev/queue`` on executors of client mode, whose driver cannot say it."""
    owner: str = ""
    """Name of the pod that owns it: the driver in cluster mode, perhaps a notebook's pod in client mode."""
    grace: float = 30.0
    """``terminationGracePeriodSeconds``: what it is given to end."""


class Slot(msgspec.Struct, frozen=True, gc=False, order=True):
    """``count`` slots of one resource profile on one node. Slots of a kind on a node are interchangeable."""

    node: str
    count: int
    profile: int = 0


class Reservation(msgspec.Struct, frozen=True):
    """What one application holds: written to its ``Gang`` object, read back after a restart."""

    application: ApplicationKey
    revision: int
    """Raised by every change; a writer drops what is older than what it has written."""
    driver_node: str
    """"" when the driver is not ours to place."""
    slots: tuple[Slot, ...]
    """The minimum's slots, sorted by node. Extras are recorded on their pods only."""


class Placement(msgspec.Struct, frozen=True, gc=False):
    """The answer to one executor pod."""

    mode: Mode
    node: str = ""
    """"" with ``HOLD``."""
    extra: bool = False
    reason: str = ""
    """Why it is held or pinned, in words for people; "" for ``BIND``."""


class Outcome(StrEnum):
    """What came of asking where an unbound pod goes, with a choice of nodes on offer."""

    ALREADY = "already-placed"
    SLOT = "slot"
    MOVED = "slot-moved"
    """A slot of its gang, moved to an offered node."""
    EXTRA = "extra"
    BEHIND = "behind-earlier"
    NO_ROOM = "no-room"
    FULL = "full"
    """Its application has all the executors it may have."""
    UNKNOWN = "unknown"


class Choice(msgspec.Struct, frozen=True):
    """One of the offered nodes, or why none."""

    outcome: Outcome
    node: str = ""
    reason: str = ""
    """In words for people; "" when there is a node."""


class Holding(msgspec.Struct, frozen=True):
    """What an application holds at this moment, pod by pod."""

    driver_node: str
    unfilled: tuple[Slot, ...]
    """Slots of the minimum without an executor, in the packer's order."""
    owed: int
    """Slots of the minimum that could not be placed."""
    executors: tuple[tuple[str, str], ...]
    """Executors with room: name and node, oldest first as far as they were told in that order."""
    whole: bool = True
    """False: only the nodes and executors of which something changed since the last look; 0 where no slot is unfilled
    any more, "" for executors that have no room any more."""


class GangStatus(msgspec.Struct, frozen=True, gc=False):
    """The status of a ``Gang``: phase, why, counts, and when (seconds; ``None`` = not yet)."""

    phase: Phase
    reason: str = ""
    """CamelCase, stable: ``WaitingForCapacity``, ``BehindEarlier``, ``ExceedsCluster``, ``InvalidSize``, …"""
    message: str = ""
    running: int = 0
    """Executors bound to a node and not finished."""
    held: int = 0
    """Executors gated, waiting for room."""
    extras: int = 0
    found: float | None = None
    reserved: float | None = None
    driver_bound: float | None = None
    minimum_reached: float | None = None
    ended: float | None = None
