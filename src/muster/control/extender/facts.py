"""From pods to the scheduler's values, as this mode has it: sizes come from the driver's annotations. Pure."""

from __future__ import annotations

import sys

import msgspec

from muster.cluster.constraints import PodConstraints
from muster.cluster.quantity import QuantityError
from muster.cluster.resources import Resources
from muster.control import facts
from muster.control.extender import pods
from muster.kube import objects as k
from muster.scheduling import model
from muster.scheduling.model import Role
from muster.spark import names

_NO_POD = "-"
"""An owner that no pod can be: executors are never taken for those of a client-mode application."""


def is_spark(pod: k.Pod) -> bool:
    """A driver or executor that says of which application it is."""
    return facts.role_of(pod) is not Role.OTHER and bool(pods.application_id(pod))


def is_scheduled_by_us(pod: k.Pod) -> bool:
    return pod.spec.scheduler_name == names.ARCHIVED_SCHEDULER_NAME


def key_of(pod: k.Pod) -> model.ApplicationKey:
    """``<namespace>/<application id>``: applications of two namespaces are never mixed up."""
    return sys.intern(f"{pod.metadata.namespace}/{pods.application_id(pod)}")


def application_from(driver: k.Pod, read: pods.Application, label: str) -> model.Application:
    """The gang that a driver's annotations ask for; executors may go where the driver may.

    ``label``: the node label of instance groups.
    """
    sizes = read.sizes
    assert sizes.driver is not None, "the archived annotations always size the driver"
    constraints = facts.constraints_of(driver.spec)
    return model.Application(
        key=key_of(driver),
        name=pods.application_id(driver),
        created=facts.created_at(driver),
        driver=model.PodShape(at_least(sizes.driver.requests, driver), constraints),
        executor=model.PodShape(sizes.executor.requests, constraints),
        minimum=sizes.minimum,
        maximum=sizes.maximum,
        driver_pod=facts.pod_ref(driver),
        pool=pods.instance_group(driver.spec, label) or "",
    )


def foreign_pod(pod: k.Pod) -> model.Pod:
    """A pod of no concern here: it holds room where it runs, and nothing more is known of it."""
    return facts.pod_from(pod, scheduler_names=())


def driver_pod(pod: k.Pod, annotated: Resources | None) -> model.Pod:
    """``annotated``: the driver's size by its annotations, ``None`` when they cannot be read."""
    return _spark_pod(pod, Role.DRIVER, annotated, facts.constraints_of(pod.spec))


def executor_pod(pod: k.Pod, shape: model.PodShape | None, promised: str = "") -> model.Pod:
    """``shape``: of the application's executors, ``None`` while it is not known. ``promised``: the node of the
    slot that was written for it before this process began; it may be about to be bound there.

    The executor's own selectors and tolerations do not count here: kube-scheduler offers only nodes that satisfy them.
    """
    constraints = shape.constraints if shape is not None else facts.constraints_of(pod.spec)
    told = _spark_pod(pod, Role.EXECUTOR, shape.requests if shape is not None else None, constraints)
    return msgspec.structs.replace(told, assigned=promised, gated=False) if promised and told.gated else told


def at_least(annotated: Resources | None, pod: k.Pod) -> Resources:
    """What a pod takes: the larger of annotation and requests, so that a wrong annotation never overfills a node."""
    own = requests_of(pod)
    return own if annotated is None else annotated.largest(own)


def requests_of(pod: k.Pod) -> Resources:
    try:
        return facts.requests_of(pod)
    except QuantityError:  # the API server validates quantities, kube-scheduler would not know the pod
        return Resources()


def effective(read: pods.Application, driver: k.Pod) -> pods.Application:
    """What is written into custom resources: as annotated, save where the driver itself requests more."""
    return msgspec.structs.replace(read, driver=_raised(read.driver, requests_of(driver)))


def _raised(annotated: pods.Quantities, requests: Resources) -> pods.Quantities:
    amounts, larger = Resources.parse(annotated), requests.quantities()
    return {name: text if requests.get(name) <= amounts.get(name) else larger[name] for name, text in annotated.items()}


def exceeds(pod: k.Pod, annotated: Resources) -> list[str]:
    """Resources of which a pod requests more than its annotations say."""
    return [name for name, amount in requests_of(pod).amounts if amount > annotated.get(name)]


def _spark_pod(pod: k.Pod, role: Role, annotated: Resources | None, constraints: PodConstraints) -> model.Pod:
    meta, spec = pod.metadata, pod.spec
    ended = pods.is_terminated(pod)
    return model.Pod(
        namespace=sys.intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        requests=at_least(annotated, pod),
        node=sys.intern(spec.node_name),
        created=facts.created_at(pod),
        role=role,
        application=key_of(pod),
        constraints=constraints,
        gated=not spec.node_name and not spec.scheduling_gates and not ended,
        running=pod.status.phase == "Running",
        finished=ended,
        terminating=meta.deletion_timestamp is not None,
        owner=_NO_POD if role is Role.EXECUTOR else "",
    )
