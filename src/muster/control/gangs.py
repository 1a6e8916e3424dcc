"""The custom resource ``Gang`` from the core's values, and back after a restart. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from muster.cluster.constraints import PodConstraints, Requirement, Term, Toleration
from muster.cluster.quantity import QuantityError
from muster.cluster.resources import Resources
from muster.kube import objects as k
from muster.kube import resources as r
from muster.kube.timestamps import format_micro_time, parse_time
from muster.scheduling.model import (
    Application,
    ApplicationKey,
    GangStatus,
    Phase,
    PodRef,
    PodShape,
    Reservation,
    Slot,
)
from muster.spark.names import APPLICATION_ANNOTATION

_RESERVED_NOTHING = Reservation("", 0, "", ())
_PHASES = frozenset(Phase)


class BadGang(ValueError):
    """A ``Gang`` that does not say enough to go on with."""


def key_of(gang: r.Gang) -> ApplicationKey:
    return f"{gang.metadata.namespace}/{gang.metadata.name}"


def spec_of(application: Application, reservation: Reservation | None) -> dict[str, Any]:
    """The whole ``spec``; without a reservation its ``revision`` is 0."""
    held = reservation or _RESERVED_NOTHING
    pod = application.driver_pod
    driver = None
    if pod is not None:
        driver = r.GangDriver(pod.name, pod.uid, _shape(application.driver or PodShape(Resources())))
    spec = r.GangSpec(
        application_id=application.key.split("/", 1)[1],
        application_name=application.name,
        queue=application.queue,
        pool=application.pool,
        user=application.user,
        groups=application.groups,
        priority=application.priority,
        expected_run_seconds=application.run_seconds,
        driver=driver,
        executor=r.GangExecutor(_shape(application.executor)),
        min_executors=application.minimum,
        max_executors=application.maximum,
        profiles=tuple(r.GangProfile(number, _shape(shape)) for number, shape in application.profiles),
        revision=held.revision,
        driver_node=held.driver_node,
        slots=tuple(r.GangSlots(slot.node, slot.count, slot.profile) for slot in held.slots),
    )
    body: dict[str, Any] = msgspec.to_builtins(spec)
    return body


def spec_of_unknown(key: ApplicationKey, driver: PodRef) -> dict[str, Any]:
    """The ``spec`` for an application whose sizes cannot be had."""
    spec = r.GangSpec(application_id=key.split("/", 1)[1], driver=r.GangDriver(driver.name, driver.uid))
    body: dict[str, Any] = msgspec.to_builtins(spec)
    return body


def manifest(namespace: str, name: str, spec: dict[str, Any], owner: PodRef | None) -> dict[str, Any]:
    """A ``Gang`` to create; owned by the driver pod, so that it goes when the driver goes."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": {APPLICATION_ANNOTATION: name}}
    if owner is not None and owner.uid:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid, "controller": False}
        ]
    return {"apiVersion": r.API_VERSION, "kind": "Gang", "metadata": metadata, "spec": spec}


def status_of(status: GangStatus) -> dict[str, Any]:
    """The whole ``status`` as a merge patch: ``None`` takes a value back."""
    times = {
        "found": status.found,
        "reservedAt": status.reserved,
        "driverBound": status.driver_bound,
        "minimumReached": status.minimum_reached,
        "ended": status.ended,
    }
    return {
        "phase": status.phase.value,
        "reason": status.reason,
        "message": status.message,
        "running": status.running,
        "held": status.held,
        "extras": status.extras,
        "wait": waited(status),
        **{name: None if at is None else format_micro_time(at) for name, at in times.items()},
    }


def waited(status: GangStatus) -> str:
    """How long the gang waited for its reservation, ``3m20s``; "" while it waits, the column cannot grow by itself."""
    if status.found is None or status.reserved is None:
        return ""
    seconds = max(0, round(status.reserved - status.found))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def application_from(gang: r.Gang, created: float | None = None) -> Application:
    """The application a ``Gang`` was written for; ``created`` is that of its driver, if there is one.

    Raises ``BadGang`` when its sizes are not in it.
    """
    spec = gang.spec
    if spec.executor is None:
        raise BadGang("its spec has no executor shape")
    driver = spec.driver
    if created is None:
        stamp = gang.metadata.creation_timestamp
        created = parse_time(stamp) if stamp else 0.0
    try:
        return Application(
            key=key_of(gang),
            name=spec.application_name,
            created=created,
            driver=_pod_shape(driver.shape) if driver is not None else None,
            executor=_pod_shape(spec.executor.shape),
            minimum=spec.min_executors,
            maximum=spec.max_executors,
            driver_pod=PodRef(gang.metadata.namespace, driver.pod_name, driver.pod_uid) if driver is not None else None,
            queue=spec.queue,
            pool=spec.pool,
            profiles=tuple((profile.id, _pod_shape(profile.shape)) for profile in spec.profiles),
            user=spec.user,
            groups=spec.groups,
            priority=spec.priority,
            run_seconds=spec.expected_run_seconds,
        )
    except QuantityError as error:
        raise BadGang(str(error)) from None


def reservation_from(gang: r.Gang) -> Reservation | None:
    """What the ``Gang`` holds; ``None`` while it waits."""
    spec = gang.spec
    if spec.revision == 0:
        return None
    slots = tuple(Slot(slot.node, slot.count, slot.profile) for slot in spec.slots)
    return Reservation(key_of(gang), spec.revision, spec.driver_node, slots)


def status_from(gang: r.Gang) -> GangStatus | None:
    """The status written last; ``None`` when none was, or by a version with other phases."""
    status = gang.status
    if status.phase not in _PHASES:
        return None
    return GangStatus(
        phase=Phase(status.phase),
        reason=status.reason,
        message=status.message,
        running=status.running,
        held=status.held,
        extras=status.extras,
        found=_seconds(status.found),
        reserved=_seconds(status.reserved_at),
        driver_bound=_seconds(status.driver_bound),
        minimum_reached=_seconds(status.minimum_reached),
        ended=_seconds(status.ended),
    )


def _seconds(stamp: str | None) -> float | None:
    return None if stamp is None else parse_time(stamp)


def _shape(shape: PodShape) -> r.Shape:
    constraints = shape.constraints
    return r.Shape(
        requests=dict(shape.requests.quantities()),
        node_selector=dict(constraints.node_selector),
        terms=None if constraints.terms is None else tuple(_term(term) for term in constraints.terms),
        tolerations=tuple(k.Toleration(t.key, t.operator, t.value, t.effect) for t in constraints.tolerations),
    )


def _pod_shape(shape: r.Shape) -> PodShape:
    constraints = PodConstraints(
        node_selector=tuple(sorted(shape.node_selector.items())),
        terms=None if shape.terms is None else tuple(_term_from(term) for term in shape.terms),
        tolerations=tuple(Toleration(t.key, t.operator or "Equal", t.value, t.effect) for t in shape.tolerations),
    )
    return PodShape(_resources(tuple(shape.requests.items())), constraints)


@lru_cache(1024)
def _resources(requests: tuple[tuple[str, str], ...]) -> Resources:
    """Applications have sizes in common: a restart reads thousands of them."""
    return Resources.parse(dict(requests))


def _term(term: Term) -> k.NodeSelectorTerm:
    return k.NodeSelectorTerm(
        tuple(k.NodeSelectorRequirement(q.key, q.operator, q.values) for q in term.expressions),
        tuple(k.NodeSelectorRequirement(q.key, q.operator, q.values) for q in term.fields),
    )


def _term_from(term: k.NodeSelectorTerm) -> Term:
    return Term(
        tuple(Requirement(q.key, q.operator, tuple(q.values)) for q in term.match_expressions),
        tuple(Requirement(q.key, q.operator, tuple(q.values)) for q in term.match_fields),
    )
