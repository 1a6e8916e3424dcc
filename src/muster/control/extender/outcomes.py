"""What a call of the extender came to, and what kube-scheduler is told then, as in the archived scheduler.

Outcomes are for metrics and logs, never on the wire; the messages are what users see in their pods' events.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The tag ``outcome``."""

    SUCCESS = "success"
    SUCCESS_ALREADY_BOUND = "success-already-bound"
    """The executor's slot, hard or soft, is on a node that was offered."""
    SUCCESS_RESCHEDULED = "success-rescheduled"
    """The executor's slot was moved to a node that was offered."""
    SUCCESS_SCHEDULED_EXTRA_EXECUTOR = "success-scheduled-extra-executor"
    """The executor got a soft reservation."""
    FAILURE_UNBOUND = "failure-unbound"
    """The application has no slot for another executor."""
    FAILURE_FIT = "failure-fit"
    FAILURE_EARLIER_DRIVER = "failure-earlier-driver"
    FAILURE_NON_SPARK_POD = "failure-non-spark-pod"
    FAILURE_INTERNAL = "failure-internal"

    @property
    def succeeded(self) -> bool:
        return self.value.startswith("success")


NON_SPARK_POD = "can not schedule non spark pod"
DOES_NOT_FIT = "application does not fit to the cluster"
EARLIER_DRIVERS = "earlier drivers do not fit to the cluster"
NO_FREE_SPOT = "application has no free executor spots to schedule this one"
NO_ROOM_FOR_EXECUTOR = "not enough capacity to reschedule the executor"
NO_RESERVATION = "failed to get resource reservations"
NO_SCHEDULED_PODS = "Application has no scheduled pods, can't make scheduling decisions based on AZ"
NO_ZONE_LABEL = "Could not read zone label from node, unable to make scheduling decisions based on AZ"

SPARK_RESOURCES = "failed to get spark resources"
RESCHEDULE = "failed to reschedule executor"
ALREADY_BOUND = "error when looking for already bound reservations"


def wrapped(outer: str, inner: str) -> str:
    """A message with its cause, as the archived scheduler composed them."""
    return f"{outer}: {inner}"
