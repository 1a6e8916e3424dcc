"""What an operator may choose about scheduling."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from muster.cluster.ordering import LabelPriority
from muster.queueing.fifo import FifoPolicy


class PressureConfig(msgspec.Struct, frozen=True):
    """When and how room is taken back for an application that waits (``scheduling.pressure``)."""

    enabled: bool = True
    after: float = 10.0
    """Seconds that an application must have waited."""
    interval: float = 30.0
    """Seconds until room is taken back for the same application again."""
    grace: float = 60.0
    """Seconds an executor is given to hand on its data, unless its own ``terminationGracePeriodSeconds`` is longer."""
    round_limit: int = 1
    """The most whole applications that are preempted for one that waits, at a time."""
    loss_wait: float = 0.0
    """Seconds to wait for what drivers tell about their executors before a plan is made; 0: they are not asked."""


class SchedulerConfig(msgspec.Struct, frozen=True):
    """Checked by ``Scheduler``: a packer that does not exist raises ``packing.UnknownPackerError``."""

    packer: str = "tightly-pack"
    driver_priority: LabelPriority | None = None
    """Nodes preferred for drivers, on top of the packer's order."""
    executor_priority: LabelPriority | None = None
    fifo: bool = True
    """Older waiting gangs block younger ones of their pool."""
    enforce_after: float = 0.0
    """Age in seconds from which on they do; 0: always."""
    enforce_after_by_pool: Mapping[str, float] = MappingProxyType({})
    pool_label: str = "muster.dev/pool"
    """Node label whose value, if an executor of client mode asks for one, names its pool."""
    placement_expiry: float = 30.0
    """Seconds after which a placement whose pod never appeared is taken back."""
    asked: bool = False
    """An external scheduler binds the pods and asks for each of them first (``Scheduler.choose``): executors are only
    placed when asked about, nothing is released by decision."""
    unasked_expiry: float = 60.0
    """Seconds after which a reserved gang gives its room back if nobody has asked where its driver goes."""
    bind_enabled: bool = True
    """False: no pod is born bound, all are pinned."""
    pressure: PressureConfig = PressureConfig()
    backfill: bool = True
    """Applications whose run time is expected, or that need nothing of what the head of the queue will need, may start
    before it. Only where expected run times tell when the head will start; else nobody passes."""
    backfill_depth: int = 100
    """Applications behind the head that are tried for that at a time (Slurm's ``bf_max_job_test``): the first ones at
    once, the others in turn as time passes."""
    story_length: int = 64
    """Entries kept per application by ``Scheduler.story``."""
    ended_kept: int = 1000
    """Ended applications whose story and status are kept."""

    @property
    def policy(self) -> FifoPolicy:
        return FifoPolicy(self.fifo, self.enforce_after, self.enforce_after_by_pool)
