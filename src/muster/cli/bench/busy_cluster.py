"""A seeded cluster, 70 % full, with applications that come and go: what ``bench core`` measures on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cached_property

import msgspec
import numpy as np

from muster.cli.bench.busy_queues import BusyQueues
from muster.cli.bench.full_cluster import FullCluster
from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration
from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.events import ApplicationFound, Event, NodeSeen, PodGone, PodSeen, Synced
from muster.scheduling.model import Application, Mode, Phase, Pod, PodRef, PodShape, Role
from muster.scheduling.scheduler import Scheduler

GIB, MIB = 2**30, 2**20
FULL = 0.7
APPLICATIONS_PER_NODE = 0.7
LARGE = 5000

_NODE_SIZES = ((32, 128), (64, 256), (64, 512), (96, 384))
"""Cores and GiB."""
_ZONES = ("a", "b", "c")
_DEDICATED = (Taint("dedicated", "NoSchedule", "spark"),)
_TOLERATIONS = (
    Toleration("dedicated", "Equal", "spark", "NoSchedule"),
    Toleration("node.kubernetes.io/not-ready", "Exists", "", "NoExecute"),
)
_ANY_POOL = Term((Requirement("muster.dev/pool", "In", ("general", "memory", "spark")),))
_CONSTRAINTS = (
    PodConstraints(tolerations=_TOLERATIONS),
    PodConstraints(terms=(_ANY_POOL,), tolerations=_TOLERATIONS),
    PodConstraints(terms=(Term((Requirement("kubernetes.io/arch", "NotIn", ("arm64",)),)),), tolerations=_TOLERATIONS),
    PodConstraints(node_selector=(("kubernetes.io/os", "linux"),)),
)
_DRIVER = Resources.of(cpu=1000, memory=5 * GIB)


class Running:
    """An application that is in place."""

    __slots__ = ("application", "driver", "executors", "number")

    def __init__(self, application: Application, driver: Pod) -> None:
        self.application = application
        self.driver = driver
        self.executors: list[Pod] = []
        self.number = 0


class BusyCluster:
    """Plays API server and kube-scheduler for one ``Scheduler``; times are CPU nanoseconds."""

    def __init__(self, nodes: int, seed: int) -> None:
        self.nodes = nodes
        self._seed = seed
        self.random = random.Random(seed)
        self.at = 1_000_000.0
        # Nobody is old enough to block others, so that every waiting gang has to be considered.
        self.scheduler = Scheduler(SchedulerConfig(enforce_after=86_400.0))
        self._running: list[Running] = []
        self._waiting: list[Running] = []
        self._bereaved: Running | None = None
        self._flipped = False
        self._numbers = 0
        for number in range(nodes):
            self._tell(NodeSeen(self.at, self._node(number)))
        self._tell(Synced(self.at))
        self._fill()

    @cached_property
    def queues(self) -> BusyQueues:
        """Queues of their own, beside the scheduler's."""
        return BusyQueues(self._seed)

    @cached_property
    def full(self) -> FullCluster:
        """A cluster of its own, in which 2,000 wait in 500 queues."""
        return FullCluster(self.nodes, self._seed)

    @property
    def large_enough(self) -> bool:
        """Whether 100,000 small executors fit at all."""
        return self.nodes >= LARGE

    # Shapes

    def random_shape(self) -> PodShape:
        """An executor of 2 to 8 cores; half of them of a size that was never seen before."""
        cores = self.random.choice((2, 4, 4, 8))
        memory = cores * self.random.choice((3, 4, 6)) * GIB
        if self.random.random() < 0.5:
            memory += self.random.randrange(1, 1024) * MIB
        return PodShape(Resources.of(cpu=cores * 1000, memory=memory), self.random.choice(_CONSTRAINTS))

    def tiny_shape(self) -> PodShape:
        memory = 128 * MIB + self.random.randrange(64) * MIB
        return PodShape(Resources.of(cpu=100, memory=memory), self.random.choice(_CONSTRAINTS[:3]))

    def more_than_fits(self, shape: PodShape) -> int:
        """More executors than fit now, fewer than the empty cluster would hold."""
        table = self.scheduler.table
        vector = table.vector(shape.requests)
        return table.total_capacity(vector, shape.constraints) + self.random.randint(1, 20)

    def flip(self) -> bool:
        self._flipped = not self._flipped
        return self._flipped

    # Measured

    def finds(self, app: Running) -> int:
        """The sizes of an application become known: it is decided."""
        return self._measured(ApplicationFound(self.at, app.application))

    def executor_finishes(self) -> int:
        """One executor of some application ends, and frees its room."""
        app = self._somebody(lambda running: bool(running.executors) and running.application.minimum == 0)
        pod = app.executors.pop()
        spent = self._measured(PodGone(self.at, PodRef(pod.namespace, pod.name, pod.uid)))
        self._bereaved = app
        return spent

    def asks(self, app: Running, *, extra: bool) -> int:
        """An executor is admitted; it appears."""
        pod = self._executor(app)
        begun = time.thread_time_ns()
        placement = self.scheduler.place_executor(pod, self.at)
        spent = time.thread_time_ns() - begun
        if placement.mode is not Mode.BIND or placement.extra is not extra:
            raise RuntimeError(f"{app.application.key}: expected {'an extra' if extra else 'a slot'}, got {placement}")
        self._appears(app, pod, placement.node)
        return spent

    # In between

    def arrives(self, shape: PodShape, minimum: int, maximum: int | None = None) -> Running:
        """A driver is created and gated."""
        self.at += 0.01
        self._numbers += 1
        name = f"spark-{self._numbers:08x}"
        driver = Pod(
            "team",
            f"{name}-driver",
            f"uid-{self._numbers}",
            _DRIVER,
            created=self.at,
            role=Role.DRIVER,
            application=f"team/{name}",
            constraints=shape.constraints,
            gated=True,
        )
        self._tell(PodSeen(self.at, driver))
        application = Application(
            key=driver.application,
            name=name,
            created=self.at,
            driver=PodShape(_DRIVER, shape.constraints),
            executor=shape,
            minimum=minimum,
            maximum=maximum,
            driver_pod=PodRef(driver.namespace, driver.name, driver.uid),
        )
        return Running(application, driver)

    def starts(self, app: Running, executors: int) -> None:
        """The driver is bound, and some executors come."""
        self._bind_driver(app)
        self._running.append(app)
        for _ in range(executors):
            pod = self._executor(app)
            placement = self.scheduler.place_executor(pod, self.at)
            if placement.mode is Mode.BIND:
                self._appears(app, pod, placement.node)

    def is_deleted(self, app: Running) -> None:
        """The driver goes, and with it everything."""
        for pod in (app.driver, *app.executors):
            self._tell(PodGone(self.at, PodRef(pod.namespace, pod.name, pod.uid)))

    def somebody_ends(self) -> None:
        app = self._running.pop(self.random.randrange(len(self._running)))
        self.is_deleted(app)

    def somebody_changes(self) -> None:
        """One application ends, another one starts in its place, an executor somewhere is replaced."""
        self.somebody_ends()
        while True:
            minimum = self.random.choice((0, 1, 8, 16, 24))
            app = self.arrives(self.random_shape(), minimum)
            self.finds(app)
            if self._phase(app) is Phase.RESERVED:
                break
            self.is_deleted(app)
        self.starts(app, executors=self.random.choice((minimum, minimum // 2, minimum + 4)))

    def executor_is_replaced(self) -> None:
        """The executor that finished last gets a successor, so that the cluster stays as full as it was."""
        app = self._bereaved
        if app is not None:
            pod = self._executor(app)
            placement = self.scheduler.place_executor(pod, self.at)
            if placement.mode is Mode.BIND:
                self._appears(app, pod, placement.node)
        self._bereaved = None

    def keep_waiting(self, count: int) -> None:
        """See that ``count`` gangs wait, each of its own size, all too large for what is free."""
        while len(self._waiting) < count:
            shape = self.random_shape()
            app = self.arrives(shape, self.more_than_fits(shape) + self.random.randint(100, 200))
            self.finds(app)
            self.expect_waiting(app)
            self._waiting.append(app)

    def nobody_waits(self) -> None:
        for app in self._waiting:
            self.is_deleted(app)
        self._waiting.clear()

    def with_unfilled_slot(self) -> Running:
        return self._somebody(lambda app: len(app.executors) < app.application.minimum)

    def without_unfilled_slot(self) -> Running:
        return self._somebody(lambda app: len(app.executors) >= app.application.minimum)

    def expect_started(self, app: Running) -> None:
        if self._phase(app) is not Phase.RESERVED:
            raise RuntimeError(f"{app.application.key} did not start: {self.scheduler.status(app.application.key)}")

    def expect_waiting(self, app: Running) -> None:
        status = self.scheduler.status(app.application.key)
        if status is None or status.reason != "WaitingForCapacity":
            raise RuntimeError(f"{app.application.key} does not wait for capacity: {status}")

    def fullness(self) -> float:
        """The larger of the shares of cpu and memory that are taken."""
        table = self.scheduler.table
        free, allocatable = table.free[:2].sum(axis=1), table.allocatable[:2].sum(axis=1)
        return float(1 - np.min(free / allocatable))

    # Setting up

    def _node(self, number: int) -> Node:
        cores, memory = self.random.choice(_NODE_SIZES)
        pool = self.random.choices(("general", "memory", "spark"), (5, 2, 3))[0]
        labels = {
            "kubernetes.io/hostname": f"node-{number:05}",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": self.random.choice(_ZONES),
            "muster.dev/pool": pool,
        }
        allocatable = Resources.of(cpu=cores * 1000 - 300, memory=memory * GIB - 2 * GIB, pods=250)
        return Node(f"node-{number:05}", allocatable, labels, _DEDICATED if pool == "spark" else ())

    def _fill(self) -> None:
        """Daemons on every node, then applications; more than wanted, so that those that end leave gaps."""
        for number in range(self.nodes):
            daemon = Pod("system", f"agent-{number}", f"uid-agent-{number}", Resources.of(cpu=200, memory=GIB))
            self._tell(PodSeen(self.at, _on(daemon, f"node-{number:05}")))
        wanted = int(self.nodes * APPLICATIONS_PER_NODE)
        surplus = wanted // 5
        while len(self._running) < wanted + surplus:
            minimum = self.random.choice((0, 1, 8, 16, 24))
            app = self.arrives(self.random_shape(), minimum)
            self.finds(app)
            self.expect_started(app)
            self.starts(app, executors=self.random.choice((minimum, minimum // 2, minimum + 4)))
        for _ in range(surplus):
            self.somebody_ends()
        self._even_out()

    def _even_out(self) -> None:
        """Other pods take what is missing to the wanted fullness, on random nodes."""
        number = 0
        table = self.scheduler.table
        while self.fullness() < FULL:
            for _ in range(50):
                name = table.names[self.random.randrange(self.nodes)]
                cpu, memory = table.free[:2, table.index[name]].tolist()
                share = self.random.uniform(0.1, 0.6)
                size = Resources.of(cpu=max(0, int(cpu * share)), memory=max(0, int(memory * share)))
                pod = Pod("other", f"service-{number}", f"uid-service-{number}", size)
                self._tell(PodSeen(self.at, _on(pod, name)))
                number += 1

    # Details

    def _tell(self, event: Event) -> None:
        self.scheduler.handle(event)

    def _measured(self, event: Event) -> int:
        begun = time.thread_time_ns()
        self.scheduler.handle(event)
        return time.thread_time_ns() - begun

    def _phase(self, app: Running) -> Phase | None:
        status = self.scheduler.status(app.application.key)
        return status.phase if status is not None else None

    def _bind_driver(self, app: Running) -> None:
        reservation = self.scheduler.reservation(app.application.key)
        if reservation is None:
            raise RuntimeError(f"{app.application.key} holds nothing")
        app.driver = _on(app.driver, reservation.driver_node)
        self._tell(PodSeen(self.at, app.driver))

    def _executor(self, app: Running) -> Pod:
        app.number += 1
        shape = app.application.executor
        return Pod(
            "team",
            f"{app.application.name}-exec-{app.number}",
            requests=shape.requests,
            role=Role.EXECUTOR,
            application=app.application.key,
            constraints=shape.constraints,
        )

    def _appears(self, app: Running, pod: Pod, node: str) -> None:
        pod = _on(pod, node)
        app.executors.append(pod)
        self._tell(PodSeen(self.at, pod))

    def _somebody(self, wanted: Callable[[Running], bool]) -> Running:
        while True:
            app = self._running[self.random.randrange(len(self._running))]
            if wanted(app):
                return app


def _on(pod: Pod, node: str) -> Pod:
    """The pod as it is once bound."""
    uid = pod.uid or f"uid-{pod.name}"
    return msgspec.structs.replace(pod, uid=uid, node=node, assigned=node, gated=False, running=True)
