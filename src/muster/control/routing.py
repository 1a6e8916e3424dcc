"""Which queue a driver's application goes to: from the pod to what the rules look at. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from muster.control.identity import groups_of, user_of
from muster.kube import objects as k
from muster.queueing.rules import Rule, Submission, queue_of

LONGEST_NAME = 253
"""Of a queue, as of every object. A longer one is cut, so that a ``Gang`` can hold it; no queue has it."""


def submission_of(driver: k.Pod) -> Submission:
    """What is known of a driver and of who created it."""
    meta = driver.metadata
    return Submission(
        namespace=meta.namespace,
        service_account=driver.spec.service_account_name,
        user=user_of(meta.annotations),
        groups=groups_of(meta.annotations),
        labels=meta.labels,
        annotations=meta.annotations,
    )


def routed(submission: Submission, rules: Sequence[Rule]) -> str:
    """The name of its queue, whether there is one of that name or not."""
    return queue_of(submission, rules)[:LONGEST_NAME]
