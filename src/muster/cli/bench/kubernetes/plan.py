"""What is run: modes, shapes and rounds."""

from __future__ import annotations

from enum import StrEnum

import msgspec

SCHEDULER_QPS = 5000
"""Requests a second that kube-scheduler's client may send, so that it is not what is measured; its default is 50."""
SMALL_CLUSTER = 1000
"""Nodes up to which a cluster gets every round; larger ones take longer and get fewer."""


class Mode(StrEnum):
    CREATE_ONLY = "create-only"
    """Pods are created with ``spec.nodeName`` set by their creator: the API server's limit, nobody schedules."""
    KUBE_SCHEDULER = "kube-scheduler"
    """Stock kube-scheduler, each pod by itself, no gang."""
    BIND = "bind"
    """Muster's native mode: gangs, executors born bound; kube-scheduler binds the drivers."""
    PIN = "pin"
    """Muster with ``scheduling.bind: false``: gangs, executors pinned to their node and bound by kube-scheduler."""

    @property
    def with_muster(self) -> bool:
        return self in (Mode.BIND, Mode.PIN)

    @property
    def with_scheduler(self) -> bool:
        return self is not Mode.CREATE_ONLY


class Shape(msgspec.Struct, frozen=True):
    """Applications of one driver and this many executors, written ``1+10``."""

    executors: int

    def __str__(self) -> str:
        return f"1+{self.executors}"


class Run(msgspec.Struct, frozen=True):
    mode: Mode
    nodes: int
    shape: Shape
    applications: int
    round: int
    """From 1."""
    rounds: int
    scheduler_qps: int = SCHEDULER_QPS

    @property
    def executors(self) -> int:
        return self.applications * self.shape.executors

    @property
    def pods(self) -> int:
        """Drivers too."""
        return self.applications + self.executors

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.shape}, {self.mode}, round {self.round} of {self.rounds}"


class Plan(msgspec.Struct, frozen=True):
    """``rounds`` and ``rounds_large``: of clusters up to ``SMALL_CLUSTER`` nodes, and of larger ones."""

    nodes: tuple[int, ...]
    shapes: tuple[Shape, ...]
    modes: tuple[Mode, ...]
    executors: int
    """At least this many executor pods a run."""
    rounds: int
    rounds_large: int
    scheduler_qps: int = SCHEDULER_QPS

    def runs(self) -> list[Run]:
        """The modes in turn within a round, so that what changes on the machine meanwhile meets all of them."""
        return [
            Run(mode, nodes, shape, -(-self.executors // shape.executors), number, rounds, self.scheduler_qps)
            for nodes in self.nodes
            for rounds in [self.rounds if nodes <= SMALL_CLUSTER else self.rounds_large]
            for shape in self.shapes
            for number in range(1, rounds + 1)
            for mode in self.modes
        ]


def parse_shape(text: str) -> Shape:
    """``1+10`` as a shape. Raises ``ValueError``."""
    driver, plus, executors = text.partition("+")
    if driver != "1" or not plus or not executors.isdecimal() or int(executors) < 1:
        raise ValueError(f"expected one driver and at least one executor such as 1+10, got {text!r}")
    return Shape(int(executors))
