"""What may be asked of the history, and what is answered. Frozen values; nothing here knows SQL."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from muster.history.records import FinishedApplication

MOST_ROWS = 500


class Sort(StrEnum):
    """Newest, longest or most first; names from A to Z."""

    ENDED = "ended"
    CREATED = "created"
    WAIT = "wait"
    RUN = "run"
    COST = "cost"
    """Core-seconds held."""
    WASTE = "waste"
    """Core-seconds reserved but unbound, bound but idle, or lost."""
    EXECUTORS = "executors"
    NAME = "name"


class By(StrEnum):
    """What a summary has a row for."""

    QUEUE = "queue"
    USER = "user"
    NAMESPACE = "namespace"
    POOL = "pool"


class Query(msgspec.Struct, frozen=True):
    """Which applications; empty fields restrict nothing."""

    namespace: str = ""
    queue: str = ""
    user: str = ""
    name: str = ""
    """Of the application; ``*``, ``?`` and ``[…]`` as in a shell."""
    application: str = ""
    """Id or exact name."""
    since: float | None = None
    """Ended then or later, Unix seconds."""
    sort: Sort = Sort.ENDED
    limit: int = 50
    """Rows, at most ``MOST_ROWS``."""


class Page(msgspec.Struct, frozen=True):
    """Applications of one file in the order in which they were written, for another replica to copy."""

    origin: str
    """Which file: the numbers mean something there only."""
    last: int
    """Number of the last one on this page; the next page begins after it."""
    applications: tuple[FinishedApplication, ...] = ()
    """With their timelines."""


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """Sums over the applications of one queue, user, namespace or pool; units as in ``records.Use``."""

    key: str
    applications: int
    failed: int
    core_seconds: float
    memory_byte_seconds: float
    unbound_core_seconds: float
    idle_core_seconds: float
    lost_core_seconds: float
    pair_seconds: float
    cross_zone_pair_seconds: float
    wait_seconds: float
    """Sum of the waits."""
    estimated: int
    """Applications that ran, and whose run time had been estimated."""
    estimate_kept: int
    """Of these, the ones that ended within their estimate."""
    stranded_cpu: float | None = None
    """Pools: mean share of allocatable cpu that was free on nodes without memory; ``None``: nothing was sampled."""
    stranded_memory: float | None = None
    """The other way round."""
