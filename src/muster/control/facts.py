"""From Kubernetes objects to the core's values: what scheduling needs of pods and nodes, and nothing else. Pure."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration
from muster.cluster.nodes import Node
from muster.cluster.quantity import QuantityError
from muster.cluster.resources import Resources
from muster.kube import objects as k
from muster.kube.timestamps import parse_time
from muster.scheduling.model import Pod, PodRef, Role
from muster.spark import names
from muster.spark.annotations import client_gang
from muster.spark.errors import InvalidSizeError

_ROLES = {names.SPARK_ROLE_DRIVER: Role.DRIVER, names.SPARK_ROLE_EXECUTOR: Role.EXECUTOR}
_ENDED = ("Succeeded", "Failed")
DEFAULT_SCHEDULER = "default-scheduler"
GRACE = 30.0
"""``terminationGracePeriodSeconds`` of a pod that does not say."""
UI_PORT = 4040
"""``spark.ui.port``."""

_SHARED = 8192
"""Different requests and constraints remembered: pods alike share one value, which is quicker to make and to keep."""

_Items = tuple[tuple[str, str], ...]


def node_from(node: k.Node) -> Node:
    """A node as scheduling sees it; ``Ready`` is the condition of that type."""
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
    return Node(
        name=node.metadata.name,
        allocatable=Resources.parse(node.status.allocatable),
        labels=node.metadata.labels,
        taints=tuple(Taint(t.key, t.effect, t.value) for t in node.spec.taints),
        ready=ready,
        unschedulable=node.spec.unschedulable,
    )


def pod_ref(pod: k.Pod) -> PodRef:
    return PodRef(pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)


def role_of(pod: k.Pod) -> Role:
    return _ROLES.get(pod.metadata.labels.get(names.SPARK_ROLE_LABEL, ""), Role.OTHER)


def application_key(pod: k.Pod, namespace: str = "") -> str:
    """``<namespace>/<spark-app-selector>``, "" for a pod that names no application."""
    selector = pod.metadata.labels.get(names.SPARK_APP_SELECTOR_LABEL, "")
    return f"{pod.metadata.namespace or namespace}/{selector}" if selector else ""


def created_at(pod: k.Pod) -> float:
    """Seconds since the epoch; 0 at admission, when the pod has no timestamp yet."""
    stamp = pod.metadata.creation_timestamp
    return _seconds(stamp) if stamp else 0.0


def has_ended(pod: k.Pod) -> bool:
    return pod.status.phase in _ENDED


def is_gated(pod: k.Pod) -> bool:
    gates = pod.spec.scheduling_gates
    return bool(gates) and any(gate.name == names.GANG_GATE for gate in gates)


def is_ours(pod: k.Pod, scheduler_names: Collection[str]) -> bool:
    """Whether Muster schedules this pod: Spark's, with an application id, and not given to another scheduler."""
    return (
        role_of(pod) is not Role.OTHER
        and bool(application_key(pod, "-"))
        and (pod.spec.scheduler_name or DEFAULT_SCHEDULER) in scheduler_names
    )


def pod_from(pod: k.Pod, namespace: str = "", scheduler_names: Collection[str] = (DEFAULT_SCHEDULER,)) -> Pod:
    """A pod as scheduling sees it. ``namespace`` stands in where an admission review's object has none yet.

    A pod that is not ours holds room like any other, and nothing more is known of it.
    """
    meta, spec = pod.metadata, pod.spec
    role = role_of(pod)
    application = application_key(pod, namespace) if role is not Role.OTHER else ""
    phase = pod.status.phase
    if not application or (spec.scheduler_name or DEFAULT_SCHEDULER) not in scheduler_names:
        return Pod(
            namespace=sys.intern(meta.namespace or namespace),
            name=meta.name,
            uid=meta.uid,
            requests=_requests_or_nothing(pod),
            node=sys.intern(spec.node_name),
            created=created_at(pod),
            running=phase == "Running",
            finished=phase in _ENDED,
            terminating=meta.deletion_timestamp is not None,
        )
    executor = role is Role.EXECUTOR
    annotations = meta.annotations
    # names that many pods share are kept once
    return Pod(
        namespace=sys.intern(meta.namespace or namespace),
        name=meta.name,
        uid=meta.uid,
        requests=_requests_or_nothing(pod),
        node=sys.intern(spec.node_name),
        created=created_at(pod),
        role=role,
        application=sys.intern(application),
        profile=_profile(meta.labels),
        constraints=constraints_of(spec),
        gated=is_gated(pod),
        running=phase == "Running",
        finished=phase in _ENDED,
        terminating=meta.deletion_timestamp is not None,
        assigned=sys.intern(annotations.get(names.SLOT_ANNOTATION, "")),
        extra=annotations.get(names.EXTRA_ANNOTATION) == "true",
        pin_reasons=pin_reasons(spec) if executor else (),
        gang_count=_gang_count(annotations) if executor and annotations else None,
        queue=_queue(annotations, meta.labels) if executor else "",
        owner=_owner(pod) if executor else "",
        grace=_grace(spec),
    )


def _queue(annotations: Mapping[str, str], labels: Mapping[str, str]) -> str:
    return annotations.get(names.QUEUE_ANNOTATION, "") or labels.get(names.QUEUE_ANNOTATION, "")


def _grace(spec: k.PodSpec) -> float:
    """The API server fills in 30 where a pod does not say."""
    seconds = spec.termination_grace_period_seconds
    return GRACE if seconds is None or seconds == GRACE else float(seconds)


def ui_port_of(driver: k.Pod) -> int:
    """Where a driver's UI listens: Spark names the port on its container (``BasicDriverFeatureStep``)."""
    ports = [port for container in driver.spec.containers or () for port in container.ports]
    return next((port.container_port for port in ports if port.name == "spark-ui"), UI_PORT)


def constraints_of(spec: k.PodSpec) -> PodConstraints:
    """Node selector, required node affinity and tolerations of a pod."""
    required = spec.affinity.node_affinity.required if spec.affinity and spec.affinity.node_affinity else None
    return _constraints(tuple(sorted(spec.node_selector.items())), required, spec.tolerations)


def pin_reasons(spec: k.PodSpec) -> tuple[str, ...]:
    """Why kube-scheduler must see this pod: work that only its plug-ins do (volume binding, DRA, ports, affinity).

    Claims count whether bound or not: an admission webhook cannot know, and a claim that OnDemand creates
    comes after its pod.
    """
    affinity = spec.affinity
    claims = ephemeral = False
    for volume in spec.volumes:
        if volume.persistent_volume_claim is not None:
            claims = True
        if volume.ephemeral is not None:
            ephemeral = True
    reasons = []
    if claims:
        reasons.append("it mounts a persistent volume claim")
    if ephemeral:
        reasons.append("it has an ephemeral volume")
    if spec.resource_claims:
        reasons.append("it has resource claims (DRA)")
    if spec.host_network or _asks_host_ports(spec):
        reasons.append("it asks for host ports")
    if affinity is not None and affinity.pod_affinity is not None:
        reasons.append("it has pod affinity")
    if affinity is not None and affinity.pod_anti_affinity is not None:
        reasons.append("it has pod anti-affinity")
    if spec.topology_spread_constraints:
        reasons.append("it has topology spread constraints")
    if spec.scheduling_gates:
        reasons.append("it has a scheduling gate")
    return tuple(reasons)


def requests_of(pod: k.Pod) -> Resources:
    """What kube-scheduler counts for a pod: containers, sidecars, the largest moment of initialisation, overhead.

    KEP-753 (sidecars), KEP-2837 (pod-level resources) and KEP-1287 (in-place resize: the larger of spec and what the
    kubelet has set aside). Raises ``QuantityError``.
    """
    spec = pod.spec
    return _requests(
        # lists rather than generators: this runs for every state of every pod
        tuple([(c.name, tuple(c.resources.requests.items())) for c in spec.containers or ()]),
        tuple([(c.restart_policy == "Always", _items(c.resources.requests)) for c in spec.init_containers])
        if spec.init_containers
        else (),
        _items(spec.resources.requests) if spec.resources is not None else (),
        _items(spec.overhead) if spec.overhead else (),
        tuple(
            [
                (s.name, tuple(s.allocated_resources.items()))
                for s in pod.status.container_statuses
                if s.allocated_resources
            ]
        ),
    )


@lru_cache(_SHARED)
def _requests(
    containers: tuple[tuple[str, _Items], ...],
    init_containers: tuple[tuple[bool, _Items], ...],
    pod_level: _Items,
    overhead: _Items,
    allocated: tuple[tuple[str, _Items], ...],
) -> Resources:
    """``requests_of`` from what it depends on; init containers say first whether they are sidecars."""
    set_aside = dict(allocated)
    running = Resources()
    for name, requests in containers:
        asked = Resources.parse(dict(requests))
        running += _largest((asked, Resources.parse(dict(set_aside[name])))) if name in set_aside else asked
    sidecars, initialising = Resources(), Resources()
    for is_sidecar, requests in init_containers:
        asked = Resources.parse(dict(requests))
        if is_sidecar:
            sidecars += asked
            initialising = _largest((initialising, sidecars))
        else:
            initialising = _largest((initialising, asked + sidecars))
    total = _largest((running + sidecars, initialising))
    if pod_level:
        level = Resources.parse(dict(pod_level))
        named = {name for name, _ in level.amounts}
        rest = tuple((name, amount) for name, amount in total.amounts if name not in named)
        total = Resources(tuple(sorted((*level.amounts, *rest))))
    return total + Resources.parse(dict(overhead)) if overhead else total


_seconds = lru_cache(_SHARED)(parse_time)


def _items(amounts: Mapping[str, str]) -> _Items:
    return tuple(amounts.items())


def config_map_of(driver: k.Pod) -> str:
    """Name of the driver's ConfigMap, "" when the pod mounts none (then it was not made by ``spark-submit``)."""
    for volume in driver.spec.volumes:
        if volume.name == names.DRIVER_CONF_VOLUME and volume.config_map is not None:
            return volume.config_map.name
    return ""


def _requests_or_nothing(pod: k.Pod) -> Resources:
    try:
        return requests_of(pod)
    except QuantityError:  # the API server validates quantities: unreachable through it, and no reason to die
        return Resources()


def _largest(vectors: Iterable[Resources]) -> Resources:
    largest: dict[str, int] = {}
    for vector in vectors:
        for name, amount in vector.amounts:
            largest[name] = max(amount, largest.get(name, 0))
    return Resources(tuple(sorted(largest.items())))


@lru_cache(_SHARED)
def _constraints(
    selector: _Items, required: k.NodeSelector | None, tolerations: tuple[k.Toleration, ...]
) -> PodConstraints:
    return PodConstraints(
        node_selector=selector,
        terms=None if required is None else tuple(_term(term) for term in required.node_selector_terms),
        tolerations=tuple(Toleration(t.key, t.operator or "Equal", t.value, t.effect) for t in tolerations),
    )


def _asks_host_ports(spec: k.PodSpec) -> bool:
    for container in (*(spec.containers or ()), *spec.init_containers):
        for port in container.ports:
            if port.host_port:
                return True
    return False


def _owner(pod: k.Pod) -> str:
    """The pod that owns it, "" for none."""
    for owner in pod.metadata.owner_references:
        if owner.kind == "Pod":
            return owner.name
    return ""


def _term(term: k.NodeSelectorTerm) -> Term:
    return Term(
        tuple(Requirement(r.key, r.operator, tuple(r.values)) for r in term.match_expressions),
        tuple(Requirement(r.key, r.operator, tuple(r.values)) for r in term.match_fields),
    )


def _profile(labels: Mapping[str, str]) -> int:
    text = labels.get(names.SPARK_EXEC_RESOURCE_PROFILE_LABEL, "")
    return int(text) if text.isdecimal() else names.DEFAULT_RESOURCE_PROFILE_ID


def _gang_count(annotations: dict[str, str]) -> int | None:
    try:
        return client_gang(annotations)
    except InvalidSizeError:  # no gang can be made of it: its executors are placed as they come
        return None
