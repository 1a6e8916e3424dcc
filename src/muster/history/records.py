"""The rows of the history: finished applications, and samples of stranded capacity. Frozen values."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from muster.scheduling.story import StoryEntry


class Outcome(StrEnum):
    """How an application ended, as its driver pod tells."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    DELETED = "Deleted"
    """The driver pod went away before it finished."""
    ENDED = "Ended"
    """Client mode: its last pod went away, and no driver pod tells more."""


class Requests(msgspec.Struct, frozen=True, rename="camel"):
    """What one pod asked for."""

    cpu: int = 0
    """Millicores."""
    memory: int = 0
    """Bytes."""


class Use(msgspec.Struct, frozen=True, rename="camel"):
    """What an application held, and how much of that was of no use to it: sums over its life up to its end.

    Held is what pods on nodes request, and what is reserved for pods that are not bound yet.
    """

    core_seconds: float = 0.0
    memory_byte_seconds: float = 0.0
    unbound_slot_seconds: float = 0.0
    """Reserved for a pod (driver or executor) that was not bound: one slot for one second is 1."""
    unbound_core_seconds: float = 0.0
    """The same in cores."""
    idle_pod_seconds: float = 0.0
    """Executors on a node whose containers were not running and ready."""
    idle_core_seconds: float = 0.0
    pair_seconds: float = 0.0
    """Pairs of its pods on nodes, each of which may shuffle with each: one pair for one second is 1."""
    cross_zone_pair_seconds: float = 0.0
    """Of these, pairs in different zones."""
    lost_core_seconds: float = 0.0
    """What executors that were evicted or preempted had held until then: work to be done again, at worst."""


class FinishedApplication(msgspec.Struct, frozen=True, rename="camel"):
    """One application from its submission to its end. Times are Unix seconds; ``None``: it did not happen."""

    namespace: str
    name: str
    application_id: str
    queue: str
    user: str
    pool: str
    outcome: Outcome
    created: float
    """Creation of the driver pod (client mode: of the first executor)."""
    ended: float
    minimum: int
    maximum: int | None
    """``None``: no ceiling."""
    executors: int
    """Most executors on nodes at a time."""
    driver: Requests | None
    """``None`` in client mode."""
    executor: Requests
    found: float | None = None
    reserved: float | None = None
    driver_bound: float | None = None
    minimum_reached: float | None = None
    estimated_seconds: float | None = None
    """Run time that was expected when it was found, from annotation or history."""
    observed_since: float | None = None
    """Set when it was seen from then on only: another replica led before, and the sums begin there."""
    cross_zone_pairs: int = 0
    """Most pairs of its pods in different zones at a time (the archived scheduler's ``az.cross.traffic``)."""
    pairs: int = 0
    """All pairs of its pods at that moment (``total.traffic``)."""
    use: Use = Use()
    timeline: tuple[StoryEntry, ...] = ()

    @property
    def run_seconds(self) -> float | None:
        """From its reservation, since when it held room, to its end; ``None`` when it never started."""
        return None if self.reserved is None else max(0.0, self.ended - self.reserved)

    @property
    def is_sample(self) -> bool:
        """Its run time is known and tells of later runs: it succeeded, and its start was seen by Muster."""
        return (
            self.outcome is Outcome.SUCCEEDED
            and self.reserved is not None
            and (self.observed_since is None or self.reserved < self.observed_since)
        )

    @property
    def wait_seconds(self) -> float:
        """From its creation to its reservation, or to its end when it never got one."""
        return max(0.0, (self.ended if self.reserved is None else self.reserved) - self.created)


class StrandedSample(msgspec.Struct, frozen=True, rename="camel"):
    """What one node pool had free at one moment, and how much of that nobody could use."""

    at: float
    pool: str
    """"" for nodes without the pool's label."""
    nodes: int
    cpu: int
    """Allocatable, millicores."""
    memory: int
    """Allocatable, bytes."""
    free_cpu: int
    free_memory: int
    stranded_cpu: int
    """Free on nodes that have no memory left."""
    stranded_memory: int
    """Free on nodes that have no cpu left."""
