"""What happened, from the API server's audit log: its own times and every write, whoever sent it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from muster.kube.timestamps import parse_time

COUNTED = frozenset({"pods", "pods/binding", "pods/status", "gangs", "gangs/status"})
"""Resources whose writes make up ``writes_per_pod``."""


class _ObjectRef(msgspec.Struct, frozen=True):
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class _ResponseStatus(msgspec.Struct, frozen=True):
    code: int = 0


class AuditEvent(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of an ``audit.k8s.io/v1`` Event that are used."""

    verb: str
    request_received_timestamp: str
    stage_timestamp: str
    stage: str = ""
    user_agent: str = ""
    object_ref: _ObjectRef | None = None
    response_status: _ResponseStatus | None = None

    @property
    def resource(self) -> str:
        """As in RBAC: ``pods/binding``."""
        if self.object_ref is None:
            return ""
        ref = self.object_ref
        return f"{ref.resource}/{ref.subresource}" if ref.subresource else ref.resource

    @property
    def succeeded(self) -> bool:
        return self.response_status is not None and 200 <= self.response_status.code < 300


class ApplicationPods(msgspec.Struct, frozen=True):
    """The names of one application's pods."""

    driver: str
    executors: tuple[str, ...]


class Timings(msgspec.Struct, frozen=True):
    """In seconds, by the API server's clock."""

    span: float
    """From the arrival of the first create to the last binding."""
    minimum_bound: tuple[float, ...]
    """Of each application: from the arrival of its driver's create until its last executor was bound."""
    driver_bound: tuple[float, ...]
    creating: float
    """From the arrival of the first create to the end of the last one."""


class IncompleteLog(ValueError):
    """The audit log lacks an event that must be there."""


def read_events(path: Path, namespace: str) -> Iterator[AuditEvent]:
    """The ended writes in this namespace. The log may still be written to: an unfinished last line is left out."""
    decode = msgspec.json.Decoder(AuditEvent).decode
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            event = decode(line)
            ref = event.object_ref
            if event.stage == "ResponseComplete" and ref is not None and ref.namespace == namespace:
                yield event


def timings(events: Iterable[AuditEvent], applications: Iterable[ApplicationPods]) -> Timings:
    """A pod counts as bound when its binding has succeeded; without one it was born bound, at the end of its create.

    Raises ``IncompleteLog``.
    """
    arrived: dict[str, float] = {}
    created: dict[str, float] = {}
    bound: dict[str, float] = {}
    for event in events:
        if not event.succeeded or event.object_ref is None or event.verb != "create":
            continue
        name = event.object_ref.name
        if event.resource == "pods":
            arrived[name] = parse_time(event.request_received_timestamp)
            created[name] = parse_time(event.stage_timestamp)
        elif event.resource == "pods/binding":
            bound[name] = parse_time(event.stage_timestamp)
    when_bound = created | bound
    minimum, drivers = [], []
    last = 0.0
    try:
        for application in applications:
            submitted = arrived[application.driver]
            complete = max(when_bound[executor] for executor in application.executors)
            minimum.append(complete - submitted)
            drivers.append(when_bound[application.driver] - submitted)
            last = max(last, complete)
    except KeyError as error:
        raise IncompleteLog(f"the audit log has no successful create of pod {error.args[0]}") from None
    first = min(arrived.values())
    return Timings(last - first, tuple(minimum), tuple(drivers), max(created.values()) - first)


def count_writes(events: Iterable[AuditEvent], spark: str, others: str) -> dict[str, int]:
    """Successful writes as ``create pods/binding`` → how many.

    The agent ``spark`` plays Spark and the kubelets: the pods it creates count, its other objects and its status do
    not. What ``others`` writes is left out.
    """
    counter: Counter[str] = Counter()
    for event in events:
        theirs = event.user_agent == spark and (event.verb, event.resource) != ("create", "pods")
        if event.succeeded and not theirs and event.user_agent != others:
            counter[f"{event.verb} {event.resource}"] += 1
    return dict(sorted(counter.items()))


def count_failures(events: Iterable[AuditEvent]) -> dict[str, int]:
    """Writes that the API server refused: ``patch pods 409`` → how many."""
    counter: Counter[str] = Counter()
    for event in events:
        if not event.succeeded and event.response_status is not None:
            counter[f"{event.verb} {event.resource} {event.response_status.code}"] += 1
    return dict(sorted(counter.items()))


def writes_that_count(writes: dict[str, int]) -> int:
    """Pod creates, bindings, pod patches and custom resource writes; Events and Spark's other objects not."""
    return sum(count for call, count in writes.items() if call.split(" ", 1)[1] in COUNTED)
