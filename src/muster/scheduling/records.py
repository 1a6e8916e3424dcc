"""What the scheduler remembers of pods and applications: mutable, owned by one ``State``, no behaviour but sums."""

from __future__ import annotations

from collections import deque

import msgspec

from muster.cluster.nodes import Int64s
from muster.cluster.resources import Resources
from muster.queueing.fifo import Waiting
from muster.queueing.usage import Refusal
from muster.scheduling.model import (
    Application,
    ApplicationKey,
    GangStatus,
    Phase,
    Placement,
    Pod,
    PodRef,
    PodShape,
    Reservation,
    Role,
)
from muster.scheduling.story import StoryEntry

PodId = tuple[str, str]
"""Namespace and name: all that is known of a pod at admission."""

NOTHING = Resources()

Footprint = tuple[Int64s, Int64s]
"""Distinct rows [K] of the node table, and the amounts [R, K] held there."""

Place = tuple[str, str, str]
"""Of a queue all ("", ""), or what one ("user", name) or ("group", name) has there."""

GANG_PROFILE = 0
"""Spark's default resource profile: the gang's slots are for executors of it."""


class Shortfall(msgspec.Struct, frozen=True):
    """An attempt to start that failed because fewer executors fit than the minimum."""

    nodes_version: int
    executors: int
    """How many were missing."""
    freed_amounts: tuple[int, ...]
    freed_times: int


HeldKind = tuple[int, PodShape]
"""Resource profile, and what an executor of it needs."""


class PodRecord:
    """A pod that was seen, or whose placement was answered and that will appear."""

    __slots__ = (
        "answer",
        "bound",
        "charged",
        "claim",
        "expires",
        "gone",
        "held_as",
        "id",
        "leaving",
        "outside",
        "pod",
        "promised",
        "room",
        "seen",
        "since",
    )

    def __init__(self, pod: Pod) -> None:
        self.id: PodId = (pod.namespace, pod.name)
        self.pod = pod
        self.seen = False
        """False while only its admission was asked about."""
        self.gone = False
        self.claim = ""
        """Node it is on, pinned to or promised, whether that node is known or not."""
        self.room = ""
        """Node whose amounts it is charged to; "" when it holds nothing."""
        self.charged = NOTHING
        self.outside = False
        """Charged as overhead: neither Muster's slot nor its extra."""
        self.promised = ""
        """Node given to it by a decision that the pod itself does not show yet."""
        self.held_as: HeldKind | None = None
        """How it is counted among the held executors of its gang."""
        self.answer: Placement | None = None
        self.expires = 0.0
        """When a placement whose pod never appeared is taken back, seconds."""
        self.bound = False
        """Counted among its application's running executors."""
        self.since = 0.0
        """When it got its room, seconds."""
        self.leaving: ApplicationKey = ""
        """The application for which it was called back."""

    @property
    def ref(self) -> PodRef:
        return PodRef(self.pod.namespace, self.pod.name, self.pod.uid)

    @property
    def waits(self) -> bool:
        """Gated, with nothing promised: a held executor."""
        pod = self.pod
        return self.seen and pod.gated and not (self.promised or pod.node or pod.finished or pod.terminating)

    @property
    def in_gang(self) -> bool:
        """An executor of the default profile that has room."""
        return bool(self.room) and self.pod.role is Role.EXECUTOR and self.pod.profile == GANG_PROFILE

    def turn(self) -> tuple[float, PodId]:
        """Held executors are released in this order."""
        return (self.pod.created, self.id)


class Journal:
    """Of which executors and nodes something changed in what an application holds, since somebody looked."""

    __slots__ = ("executors", "nodes")

    LIMIT = 10_000
    """Entries; beyond them it is cheaper to look at everything again."""

    def __init__(self) -> None:
        self.executors: dict[PodId, None] = {}
        self.nodes: dict[str, None] = {}

    @property
    def is_full(self) -> bool:
        return len(self.executors) + len(self.nodes) > self.LIMIT


class Pressed:
    """An application that waits for room which others could give back."""

    __slots__ = ("asked", "next", "since", "until")

    def __init__(self, since: float) -> None:
        self.since = since
        """Since when it waits, seconds."""
        self.next = 0.0
        """When a plan may be made for it again."""
        self.until = 0.0
        """When what was called back for it is gone at last: what is free by then is meant for it, too."""
        self.asked = False
        """The drivers of those that could give room have been asked what they would lose."""


class Gang:
    """One application: its sizes, its pods, the slots it holds and those it is owed.

    While it holds slots (``Reserved``, ``Running``), with ``placed`` executors of the default profile:
    unfilled slots + owed slots = max(0, minimum - placed). So a pod never is *in* a particular slot, and an executor
    counts as extra only when no slot is unfilled; which pods came first does not matter after a restart.
    """

    def __init__(self, key: ApplicationKey, at: float, story_length: int) -> None:
        self.key = key
        self.application: Application | None = None
        self.phase = Phase.PENDING
        self.reason = ""
        self.message = ""

        self.pods: dict[PodId, PodRecord] = {}
        """All its pods that exist or are promised."""
        self.driver: PodRecord | None = None
        self.held: dict[PodId, PodRecord] = {}
        """Executors that wait behind the gate."""
        self.held_kinds: dict[HeldKind, int] = {}
        """How many of them are alike."""
        self.placed: dict[int, int] = {}
        """Executors that have room, by resource profile."""
        self.running = 0

        self.driver_slot = ""
        """Node where room is kept for a driver that is not bound yet."""
        self.driver_charged = NOTHING
        """What is kept there: the driver pod's own requests."""
        self.free: dict[str, int] = {}
        """Unfilled slots by node."""
        self.unfilled = 0
        """Sum of ``free``."""
        self.owed = 0
        """Slots of the minimum that could not be placed."""
        self.reserved_driver = ""
        """The driver's node in the reservation."""
        self.revision = 0
        self.durable: dict[str, int] | None = None
        """Slots by node in the newest reservation that was decided; ``None`` when a new one is due in any case."""
        self.drifted = False
        """The reservation may differ from ``durable``: to be compared when a slot is unfilled or owed."""
        self.journal: Journal | None = None
        """``None`` while nobody follows what it holds, or when too much has changed to list it."""
        self.restored: Reservation | None = None
        """Read back after a restart, until everything else has been told."""
        self.executor_seen = False
        """An executor of the default profile has shown the real size: the prediction is not corrected again."""

        self.shelved = False
        """Its turn came, but nobody asked where its driver goes: it waits outside the queue's order until then."""
        self.failed_at = -1
        """``State.freed`` when it last did not fit: unless room was freed since, it does not fit now."""
        self.shortfall: Shortfall | None = None
        """By how much it did not fit then."""
        self.excess_at = -1
        self.excess = ""
        self.footprint: Footprint | None = None
        """What it holds, when that was last added up and has not changed since."""
        self.footprint_at = -1
        """``State.nodes_version`` then."""
        self.charged: tuple[int, int, bool, Resources] | None = None
        """What its queue is charged with: slots, placed executors, a driver, and the size of an executor."""
        self.kind: int | None = None
        """The number of its shapes in ``State.kinds``, when it was looked up."""
        self.ruled_at = -1
        self.ruled: tuple[str, str] | None = None
        """Reason and message why the queues' configuration keeps it waiting, as of ``State.rules_version`` then."""
        self.over: Refusal | None = None
        """The limit that it was last told to wait for."""
        self.asked: tuple[int, Resources, Resources] | None = None
        """Executors, driver, and what they ask of the queue together."""
        self.ends: float | None = None
        """When it is expected to end, as it stands in ``State.ends``; seconds."""
        self.closes: Place | None = None
        """Where it waits for quota and keeps others from passing."""
        self.over_quota = False
        """Its held executors wait for the quota of their queue: more nodes would not help."""

        self.found = at
        self.reserved: float | None = None
        self.driver_bound: float | None = None
        self.minimum_reached: float | None = None
        self.ended: float | None = None
        self.empty_since: float | None = at
        """Since when it has no pods at all."""

        self.reported: GangStatus | None = None
        self.announced = ""
        """The reason that was last published as an event, and when, seconds."""
        self.announced_at = float("-inf")
        self.demand: tuple[tuple[PodShape, int], ...] = ()
        self.story: deque[StoryEntry] = deque(maxlen=story_length)

    @property
    def minimum(self) -> int:
        return self.application.minimum if self.application is not None else 0

    @property
    def client(self) -> bool:
        """The driver is no pod of ours."""
        return self.application is not None and self.application.driver is None

    @property
    def holds(self) -> bool:
        """It has slots, or had to be given none."""
        return self.phase is Phase.RESERVED or self.phase is Phase.RUNNING

    @property
    def pool(self) -> str:
        return self.application.pool if self.application is not None else ""

    @property
    def waiting(self) -> Waiting:
        """Its place in the queue of its pool."""
        return Waiting(self.application.created if self.application is not None else self.found, self.key)

    @property
    def placed_in_gang(self) -> int:
        """Executors of the default profile that have room."""
        return self.placed.get(GANG_PROFILE, 0)

    @property
    def extras(self) -> int:
        """Executors with room above the minimum, all profiles."""
        return max(0, sum(self.placed.values()) - min(self.placed_in_gang, self.minimum))
