"""``scheduling.waste``: what a pod's wait was made of, told when it is scheduled. Pure.

Go of the archived scheduler: ``internal/metrics/waste.go``.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from muster.control.extender.outcomes import Outcome

NO_DEMAND = "total-time-no-demand"
BEFORE_DEMAND = "before-demand-creation"
AFTER_FULFILLED = "after-demand-fulfilled"
NO_FAILURES = "after-demand-fulfilled-no-failures"
SINCE_LAST_FAILURE = "after-demand-fulfilled-since-last-failure"


class Wait(msgspec.Struct, frozen=True):
    """What happened to a pod, in seconds since the epoch; ``None`` for what did not."""

    created: float
    demanded: float | None = None
    """A ``Demand`` was created for it."""
    fulfilled: float | None = None
    """That demand was seen in phase ``fulfilled``."""
    failed: float | None = None
    """Its last attempt that failed."""
    outcome: Outcome = Outcome.FAILURE_FIT
    """Of that attempt."""


def waste(wait: Wait, scheduled: float) -> Iterator[tuple[str, float]]:
    """The tag ``wastetype`` and seconds of each part of the wait of a pod that was scheduled now."""
    if wait.demanded is None:
        yield NO_DEMAND, scheduled - wait.created
        return
    yield BEFORE_DEMAND, wait.demanded - wait.created
    if wait.fulfilled is None:
        return
    yield AFTER_FULFILLED, scheduled - wait.fulfilled
    if wait.failed is not None and wait.failed > wait.fulfilled:
        yield f"{AFTER_FULFILLED}-failure-{wait.outcome}", wait.failed - wait.fulfilled
        yield SINCE_LAST_FAILURE, scheduled - wait.failed
    else:
        yield NO_FAILURES, scheduled - wait.fulfilled
