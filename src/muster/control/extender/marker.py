"""Which waiting drivers are marked as larger than the whole cluster (condition ``PodExceedsClusterCapacity``). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from muster.control.facts import created_at, has_ended
from muster.kube.objects import Condition, Pod
from muster.kube.timestamps import format_time
from muster.spark import names
from muster.spark.errors import SparkConfigurationError

CONDITION = "PodExceedsClusterCapacity"
INTERVAL = 60.0
"""Seconds between two scans."""


class Mark(msgspec.Struct, frozen=True):
    """A condition to be written on a pod."""

    pod: Pod
    condition: Condition

    @property
    def patch(self) -> dict[str, Any]:
        """For ``pods/status``, as a strategic merge: conditions are merged by their type."""
        return {"status": {"conditions": [msgspec.to_builtins(self.condition)]}}


class Scan(msgspec.Struct, frozen=True):
    marks: tuple[Mark, ...]
    unreadable: tuple[tuple[Pod, SparkConfigurationError], ...] = ()
    """Drivers whose sizes cannot be had; they keep the condition that they have, and hinder nobody."""


def scan(pods: Iterable[Pod], now: float, timeout: float, exceeds: Callable[[Pod], bool]) -> Scan:
    """The conditions that should change, one by one: only what differs from what is on the pod.

    ``exceeds`` says whether a driver's whole application would not fit the cluster if nothing else ran on it; it may
    raise ``SparkConfigurationError``. ``timeout``: seconds that a driver may wait before it is asked about. A driver
    that waits longer and does fit gets the condition too, as ``False``.
    """
    marks: list[Mark] = []
    unreadable: list[tuple[Pod, SparkConfigurationError]] = []
    for pod in pods:
        if not is_overdue(pod, now, timeout):
            continue
        try:
            condition = _condition(exceeds(pod), now)
        except SparkConfigurationError as error:
            unreadable.append((pod, error))
            continue
        if _status(pod) != condition.status:
            marks.append(Mark(pod, condition))
    return Scan(tuple(marks), tuple(unreadable))


def is_overdue(pod: Pod, now: float, timeout: float) -> bool:
    """A driver of the archived scheduler's name that has waited for a node longer than ``timeout`` seconds."""
    metadata, spec = pod.metadata, pod.spec
    return (
        metadata.labels.get(names.SPARK_ROLE_LABEL) == names.SPARK_ROLE_DRIVER
        and spec.scheduler_name == names.ARCHIVED_SCHEDULER_NAME
        and not spec.node_name
        and metadata.deletion_timestamp is None
        and not has_ended(pod)
        and created_at(pod) + timeout < now
    )


def _condition(exceeds: bool, now: float) -> Condition:
    if exceeds:
        reason, message = "ExceedsCapacity", "the application would not fit the cluster if nothing else ran on it"
    else:
        reason, message = "FitsCapacity", "the application would fit the cluster if nothing else ran on it"
    return Condition(CONDITION, "True" if exceeds else "False", reason, message, format_time(now))


def _status(pod: Pod) -> str | None:
    return next((each.status for each in pod.status.conditions if each.type == CONDITION), None)
