"""A full cluster with 500 queues in which 2,000 applications wait: what ``why`` and a round cost there."""

from __future__ import annotations

import random
import time

from muster.cluster.constraints import PodConstraints
from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Policy, QueueConfig
from muster.scheduling.events import ApplicationFound, NodeSeen, PodGone, PodSeen, QueuesChanged, Synced
from muster.scheduling.model import Application, Phase, Pod, PodRef, PodShape, Role
from muster.scheduling.scheduler import Scheduler

PARENTS, CHILDREN = 20, 24
"""500 queues together: 20 parents, 24 leaves in each."""
WAITING, USERS, SHAPES = 2000, 50, 40
_GIB = 2**30
_DRIVER = Resources.of(cpu=1000, memory=4 * _GIB)
_ZONE = "topology.kubernetes.io/zone"


class FullCluster:
    """Half the queues have a maximum; sizes recur, as those of daily jobs do. Times are CPU nanoseconds."""

    def __init__(self, nodes: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._at, self._numbers, self._asked = 1e6, 0, 0
        self.scheduler = Scheduler()
        self._tell_nodes(nodes)
        self.scheduler.handle(QueuesChanged(self._at, tuple(self._queues(nodes))))
        self._leaves = [f"queue-{parent}-{child}" for parent in range(PARENTS) for child in range(CHILDREN)]
        self._shapes = [self._shape() for _ in range(SHAPES)]
        self.scheduler.handle(Synced(self._at))
        self._running: list[Application] = []
        self._waiting: list[Application] = []
        while len(self._waiting) < WAITING:
            self._submit()
        self.scheduler.validate()

    def explains(self) -> int:
        """One of those that wait is explained, with the changes that would start it: for each reason in turn."""
        by_reason: dict[str, list[Application]] = {}
        for one in self._waiting:
            status = self.scheduler.status(one.key)
            by_reason.setdefault(status.reason if status is not None else "", []).append(one)
        self._asked += 1
        application = self._random.choice(by_reason[sorted(by_reason)[self._asked % len(by_reason)]])
        begun = time.thread_time_ns()
        explanation = self.scheduler.explain(application.key, self._at)
        spent = time.thread_time_ns() - begun
        if explanation is None:
            raise RuntimeError(f"{application.key} is not known")
        return spent

    def room_is_freed(self) -> int:
        """A running application ends while everybody waits; those who start then are replaced by others who wait."""
        self._at += 1
        ended = self._running.pop(self._random.randrange(len(self._running)))
        assert ended.driver_pod is not None
        begun = time.thread_time_ns()
        self.scheduler.handle(PodGone(self._at, ended.driver_pod))
        spent = time.thread_time_ns() - begun
        started = [one for one in self._waiting if self._phase(one) is not Phase.PENDING]
        self._running += started
        self._waiting = [one for one in self._waiting if self._phase(one) is Phase.PENDING]
        while len(self._waiting) < WAITING:
            self._submit()
        return spent

    def _submit(self) -> None:
        self._at += 0.01
        self._numbers += 1
        name, shape = f"spark-{self._numbers:08x}", self._random.choice(self._shapes)
        driver = Pod(
            "team", f"{name}-driver", f"uid-{self._numbers}", _DRIVER, created=self._at, role=Role.DRIVER,
            application=f"team/{name}", constraints=shape.constraints, gated=True,
        )  # fmt: skip
        application = Application(
            key=driver.application,
            name=name,
            created=self._at,
            driver=PodShape(_DRIVER, shape.constraints),
            executor=shape,
            minimum=self._random.choice((2, 8, 20, 60)),
            maximum=None,
            driver_pod=PodRef(driver.namespace, driver.name, driver.uid),
            queue=self._random.choice(self._leaves),
            user=f"user-{self._random.randrange(USERS)}",
            run_seconds=self._random.choice((None, 600.0, 3600.0)),
        )
        self.scheduler.handle(PodSeen(self._at, driver))
        self.scheduler.handle(ApplicationFound(self._at, application))
        (self._waiting if self._phase(application) is Phase.PENDING else self._running).append(application)

    def _phase(self, application: Application) -> Phase | None:
        status = self.scheduler.status(application.key)
        return status.phase if status is not None else None

    def _shape(self) -> PodShape:
        cores = self._random.choice((2, 4, 8))
        memory = cores * self._random.choice((3, 4, 6)) * _GIB
        zone = ((_ZONE, self._random.choice("abc")),) if self._random.random() < 0.2 else ()
        return PodShape(Resources.of(cpu=cores * 1000, memory=memory), PodConstraints(node_selector=zone))

    def _tell_nodes(self, nodes: int) -> None:
        for number in range(nodes):
            name = f"node-{number:05}"
            labels = {"kubernetes.io/hostname": name, _ZONE: self._random.choice("abc")}
            self.scheduler.handle(NodeSeen(self._at, Node(name, Resources.of(cpu=32_000, memory=128 * _GIB), labels)))

    def _queues(self, nodes: int) -> list[QueueConfig]:
        share = nodes * 32_000 // (PARENTS * CHILDREN)
        parents = [
            QueueConfig(f"queue-{parent}", policy=Policy.FAIR, weight=1 + parent % 3) for parent in range(PARENTS)
        ]
        return parents + [
            QueueConfig(
                f"queue-{parent}-{child}",
                parent=f"queue-{parent}",
                policy=Policy.FIFO if child % 3 else Policy.FAIR,
                max=Maximum.of(cpu=3 * share) if child % 2 else Maximum(),
                limits=(Limit(users=("*",), max=Maximum.of(cpu=2 * share)),) if child % 4 == 1 else (),
            )
            for parent in range(PARENTS)
            for child in range(CHILDREN)
        ]
