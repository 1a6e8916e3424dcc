"""Muster's custom resources ``Gang`` and ``Queue`` (``muster.dev/v1alpha1``) as structs (schemas: ``definitions``)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from muster.kube.kinds import Resource
from muster.kube.objects import Condition, KubeStruct, NodeSelectorTerm, ObjectMeta, Toleration

GROUP = "muster.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Quantities = dict[str, str | int]
"""Kubernetes quantities by resource name."""


class GangPhase(StrEnum):
    PENDING = "Pending"
    RESERVED = "Reserved"
    RUNNING = "Running"
    FINISHED = "Finished"
    INVALID = "Invalid"


class QueuePolicy(StrEnum):
    """Who goes first: by creation; by least use (dominant resource fairness); by ``spec.priority``, then creation."""

    FIFO = "fifo"
    FAIR = "fair"
    PRIORITY = "priority"


class PreemptionPolicy(StrEnum):
    """What may be taken from a queue that uses more than its guarantee."""

    NEVER = "never"
    EXTRAS = "extras"
    """Executors above the minimum, by decommissioning."""
    APPLICATIONS = "applications"
    """Whole applications too, their drivers included."""


class Shape(KubeStruct, frozen=True):
    """What one pod asks of its node."""

    requests: Quantities = msgspec.field(default_factory=dict)
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    terms: tuple[NodeSelectorTerm, ...] | None = None
    """Required node affinity, ORed; ``None`` is none, empty matches no node."""
    tolerations: tuple[Toleration, ...] = ()


class GangDriver(KubeStruct, frozen=True):
    pod_name: str
    pod_uid: str = ""
    shape: Shape = Shape()


class GangExecutor(KubeStruct, frozen=True):
    shape: Shape = Shape()


class GangProfile(KubeStruct, frozen=True):
    """A further Spark resource profile (``spark-exec-resourceprofile-id``)."""

    id: int
    shape: Shape = Shape()


class GangSlots(KubeStruct, frozen=True):
    """``count`` slots of one profile on one node."""

    node: str
    count: int
    profile: int = 0


class GangSpec(KubeStruct, frozen=True):
    application_id: str
    application_name: str = ""
    queue: str = "default"
    pool: str = ""
    user: str = ""
    """Kubernetes user that created the driver; empty when not known."""
    groups: tuple[str, ...] = ()
    priority: int = 0
    """``spec.priority`` of the driver."""
    expected_run_seconds: float | None = None
    driver: GangDriver | None = None
    """``None`` in client mode."""
    executor: GangExecutor | None = None
    """``None`` while (or because) the sizes are not known."""
    min_executors: int = 0
    max_executors: int | None = None
    """``None`` means no ceiling."""
    profiles: tuple[GangProfile, ...] = ()
    revision: int = 0
    driver_node: str = ""
    slots: tuple[GangSlots, ...] = ()


class GangStatus(KubeStruct, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    running: int = 0
    held: int = 0
    extras: int = 0
    wait: str = ""
    """How long it waited for its reservation, for people: ``3m20s``; empty while it waits."""
    found: str | None = None
    reserved_at: str | None = None
    driver_bound: str | None = None
    minimum_reached: str | None = None
    ended: str | None = None
    conditions: tuple[Condition, ...] = ()


class Gang(KubeStruct, frozen=True, omit_defaults=False):
    """One Spark application and what is reserved for it. Named after its ``spark-app-selector``."""

    metadata: ObjectMeta
    spec: GangSpec
    status: GangStatus = GangStatus()
    api_version: str = API_VERSION
    kind: str = "Gang"


class QueueLimit(KubeStruct, frozen=True):
    """What one user (or group) may have running in the queue; ``*`` is everybody who is not named, each for himself."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    max: Quantities = msgspec.field(default_factory=dict)
    max_applications: int | None = None


class QueueSubmitters(KubeStruct, frozen=True):
    """Who may start applications in the queue: whoever is named by one of the lists; ``*`` is everybody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    """``namespace/name``, or a name alone for that of any namespace."""


class QueueSpec(KubeStruct, frozen=True):
    parent: str = ""
    """Empty: directly below the root."""
    node_pools: tuple[str, ...] = ()
    """Empty means every pool."""
    policy: QueuePolicy = QueuePolicy.FIFO
    guaranteed: Quantities = msgspec.field(default_factory=dict)
    max: Quantities = msgspec.field(default_factory=dict)
    weight: int = 1
    limits: tuple[QueueLimit, ...] = ()
    max_applications: int | None = None
    driver_share: int = 100
    """Percent of the queue's maximum (of the cluster, where that names no such resource) that drivers may hold."""
    preemption: PreemptionPolicy = PreemptionPolicy.EXTRAS
    min_runtime_seconds: int = 600
    """How long an application is safe from being preempted as a whole."""
    submitters: QueueSubmitters | None = None
    """``None``: everybody whom the queues above allow."""


class QueueStatus(KubeStruct, frozen=True):
    waiting: int = 0
    running: int = 0
    used: Quantities = msgspec.field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()


class Queue(KubeStruct, frozen=True, omit_defaults=False):
    """Where applications wait for their turn, and what they may have together."""

    metadata: ObjectMeta
    spec: QueueSpec = msgspec.field(default=QueueSpec())
    status: QueueStatus = QueueStatus()
    api_version: str = API_VERSION
    kind: str = "Queue"


GANGS = Resource(GROUP, VERSION, "gangs", "Gang", Gang)
QUEUES = Resource(GROUP, VERSION, "queues", "Queue", Queue, namespaced=False)
