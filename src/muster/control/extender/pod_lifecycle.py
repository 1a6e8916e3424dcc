"""The gauges ``pod.lifecycle.*``: how long pods take from one stage to the next, and how many are on their way. Pure.

Go of the archived scheduler: ``internal/metrics/queue.go``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from muster.control.extender.pods import condition_time, instance_group
from muster.control.facts import created_at
from muster.kube.objects import Pod
from muster.kube.timestamps import parse_time
from muster.spark import names

DECAY = 60.0
"""Seconds for which a transition that is over still counts."""
STUCK = 12 * 3600.0
"""Seconds in one stage after which a pod is told about."""


class Stage(StrEnum):
    """The tag ``lifecycle``: what a pod is waiting for."""

    QUEUED = "queued"
    """To be scheduled (condition ``PodScheduled``)."""
    INITIALIZING = "initializing"
    """Its init containers (``Initialized``)."""
    READY = "ready"
    """Its containers (``Ready``)."""


_CONDITIONS = {Stage.QUEUED: "PodScheduled", Stage.INITIALIZING: "Initialized", Stage.READY: "Ready"}


class StageKey(msgspec.Struct, frozen=True, order=True):
    """Tags of a series, in the order of the metrics' table."""

    instance_group: str
    role: str
    stage: Stage


class StageTimes(msgspec.Struct, frozen=True):
    """Of one series: seconds of the pods in the stage and of those that left it lately."""

    count: int
    """Pods that are in the stage now."""
    maximum: float
    p95: float
    p50: float


class Start(msgspec.Struct, frozen=True):
    """How far a pod has come."""

    namespace: str
    name: str
    instance_group: str
    role: str
    stages: tuple[tuple[Stage, float, float | None], ...]
    """The stages it has entered: when it did, and when it left (``None``: it has not)."""


class Stuck(msgspec.Struct, frozen=True):
    start: Start
    stage: Stage
    seconds: float


def start_of(pod: Pod, label: str) -> Start:
    """``label``: the node label of instance groups."""
    metadata = pod.metadata
    return Start(
        namespace=metadata.namespace,
        name=metadata.name,
        instance_group=instance_group(pod.spec, label) or "",
        role=metadata.labels.get(names.SPARK_ROLE_LABEL, ""),
        stages=tuple(_stages(pod)),
    )


def is_starting(start: Start, now: float) -> bool:
    """Whether it is not ready yet, or became so within the last minute."""
    _, _, ended = start.stages[-1]
    return ended is None or now - ended <= DECAY


def stage_times(starts: Iterable[Start], now: float) -> dict[StageKey, StageTimes]:
    """Every series that has something to tell."""
    times: dict[tuple[str, str, Stage], list[float]] = defaultdict(list)
    counts: dict[tuple[str, str, Stage], int] = defaultdict(int)
    for start in starts:
        for stage, begun, ended in start.stages:
            key = (start.instance_group, start.role, stage)
            if ended is None:
                counts[key] += 1
                times[key].append(now - begun)
            elif now - ended <= DECAY:
                times[key].append(ended - begun)
    return {StageKey(*key): _summary(counts[key], sorted(seconds)) for key, seconds in times.items()}


def stuck_pods(starts: Iterable[Start], now: float) -> list[Stuck]:
    """Pods that have been in one stage for twelve hours or more."""
    return [
        Stuck(start, stage, now - begun)
        for start in starts
        for stage, begun, ended in start.stages
        if ended is None and now - begun >= STUCK
    ]


def _stages(pod: Pod) -> Iterator[tuple[Stage, float, float | None]]:
    begun = created_at(pod)
    for stage, condition in _CONDITIONS.items():
        text = condition_time(pod, condition)
        ended = None if text is None else (parse_time(text) if text else begun)
        yield stage, begun, ended
        if ended is None:
            return
        begun = ended


def percentile(ordered: Sequence[float], share: float) -> float:
    """Between the two samples next to position ``share * (n + 1)`` (rcrowley/go-metrics ``SamplePercentiles``)."""
    position = share * (len(ordered) + 1)
    if position < 1:
        return ordered[0]
    if position >= len(ordered):
        return ordered[-1]
    lower, upper = ordered[int(position) - 1], ordered[int(position)]
    return lower + (position - int(position)) * (upper - lower)


def _summary(count: int, ordered: Sequence[float]) -> StageTimes:
    return StageTimes(count, ordered[-1], percentile(ordered, 0.95), percentile(ordered, 0.5))
