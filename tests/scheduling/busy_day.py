"""A long random day on one cluster with queues, driven by the scheduler's own decisions; nothing but events goes in."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import msgspec

from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.queueing.config import Limit, Maximum, Policy, QueueConfig
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.events import ApplicationFound, NodeSeen, PodGone, PodSeen, QueuesChanged, Synced, TimePassed
from muster.scheduling.model import Application, Phase, Pod, PodRef, PodShape, Role
from muster.scheduling.scheduler import Scheduler

GIB = 2**30
NODE = Resources.of(cpu=16_000, memory=64 * GIB, pods=110)
DRIVER = Resources.of(cpu=1000, memory=2 * GIB)
USERS = ("ann", "bob", "cem", "")


def random_queues(luck: random.Random, cores: int) -> tuple[QueueConfig, ...]:
    """Three teams with two or three leaves each; limits leave room for the largest gang that is submitted."""
    queues = []
    for team in ("red", "green", "blue"):
        limit = Limit(users=("*",), max_applications=luck.randint(3, 8))
        limits = (limit,) if luck.random() < 0.5 else ()
        most = Maximum.of(cpu=1000 * cores) if luck.random() < 0.5 else Maximum()
        queues.append(
            QueueConfig(
                name=team, policy=luck.choice(tuple(Policy)), weight=luck.randint(1, 3), max=most, limits=limits
            )
        )
        for leaf in range(luck.randint(2, 3)):
            guaranteed = Resources.of(cpu=1000 * luck.choice((0, 8, 16)))
            queues.append(
                QueueConfig(
                    name=f"{team}-{leaf}", parent=team, policy=luck.choice(tuple(Policy)), guaranteed=guaranteed
                )
            )
    return tuple(queues)


class BusyDay:
    """``applications`` arrive a little faster than the cluster can run them, then the queue is worked off."""

    def __init__(self, seed: int, nodes: int, applications: int) -> None:
        self.luck = luck = random.Random(seed)
        self.scheduler = Scheduler(SchedulerConfig())
        self.cores = 16 * nodes
        self.at = 1000.0
        self.queues = random_queues(luck, self.cores)
        self.leaves = [queue.name for queue in self.queues if queue.parent]
        self.scheduler.handle(QueuesChanged(self.at, self.queues))
        for number in range(nodes):
            self.scheduler.handle(NodeSeen(self.at, Node(f"node-{number}", NODE, {})))
        self.scheduler.handle(Synced(self.at))
        self.left = applications
        self.submitted: dict[str, float] = {}
        self.started: dict[str, float] = {}
        self.sizes: dict[str, int] = {}
        self.drivers: dict[str, Pod] = {}
        self.ends: list[tuple[float, str]] = []
        self.most_waiting = 0
        self.promised: dict[str, float] = {}
        """The earliest time that an application was ever promised."""

    def run(self) -> None:
        next_arrival = self.at
        while self.left or self.submitted.keys() - self.started.keys() or self.ends:
            due = self.ends[0][0] if self.ends else float("inf")
            if self.left and next_arrival <= due:
                self.at = next_arrival
                self._submit()
                next_arrival += self.luck.expovariate(1 / 33)
            elif self.ends:
                self.at, key = heapq.heappop(self.ends)
                self._end(key)
            else:
                waiting = sorted(self.submitted.keys() - self.started.keys())
                reasons = Counter(getattr(self.scheduler.status(key), "reason", "") for key in waiting)
                raise AssertionError(f"nothing runs, and {len(waiting)} wait for ever: {reasons}")
            self.most_waiting = max(self.most_waiting, len(self.submitted) - len(self.started))

    def _submit(self) -> None:
        luck = self.luck
        self.left -= 1
        number = len(self.submitted)
        key = f"day/app-{number}"
        largest = (self.cores - 8) // 4
        executors = largest if luck.random() < 0.01 else luck.choice((1, 2, 2, 3, 5, 8, 13))
        cpu = 4000 if executors == largest else luck.choice((1000, 2000, 4000))
        driver = Pod(
            "day", f"app-{number}-driver", f"uid-{number}", DRIVER, "", self.at, Role.DRIVER, key, gated=True,
        )  # fmt: skip
        seconds = luck.uniform(30, 900)
        application = Application(
            key,
            f"app-{number}",
            self.at,
            PodShape(DRIVER),
            PodShape(Resources.of(cpu=cpu, memory=cpu // 1000 * 2 * GIB)),
            executors,
            executors,
            PodRef("day", driver.name, driver.uid),
            queue=luck.choice(self.leaves),
            user=luck.choice(USERS),
            priority=luck.choice((0, 0, 10)),
            run_seconds=seconds if luck.random() < 0.7 else None,
        )
        self.submitted[key], self.drivers[key], self.sizes[key] = self.at, driver, executors
        self._handle(PodSeen(self.at, driver))
        self._handle(ApplicationFound(self.at, application))

    def _end(self, key: str) -> None:
        driver = self.drivers.pop(key)
        self._handle(PodGone(self.at, PodRef(driver.namespace, driver.name, driver.uid)))
        if self.luck.random() < 0.02:
            self._handle(TimePassed(self.at))
            self.scheduler.validate()

    def _handle(self, event: PodSeen | PodGone | ApplicationFound | TimePassed) -> None:
        pending = [event]
        while pending:
            decisions = self.scheduler.handle(pending.pop())
            for future in self.scheduler._state.futures.values():
                if future.at is not None:
                    self.promised[future.key] = min(future.at, self.promised.get(future.key, future.at))
            for decision in decisions:
                if type(decision).__name__ == "ReleaseDriver":
                    key = decision.key  # type: ignore[union-attr]
                    node = decision.node  # type: ignore[union-attr]
                    self.started[key] = self.at
                    self.drivers[key] = msgspec.structs.replace(self.drivers[key], gated=False, node=node, running=True)
                    heapq.heappush(self.ends, (self.at + self._seconds(key), key))
                    pending.append(PodSeen(self.at, self.drivers[key]))

    def _seconds(self, key: str) -> float:
        """Run times are true where they are told, and of the same kind where they are not."""
        gang = self.scheduler._state.gangs[key]
        assert gang.application is not None and gang.phase is not Phase.PENDING
        known = gang.application.run_seconds
        return known if known is not None else self.luck.uniform(30, 900)
