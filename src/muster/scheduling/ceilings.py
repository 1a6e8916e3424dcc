"""Whether a gang could ever start here: what the nodes hold when empty, against what it asks."""

from __future__ import annotations

import numpy as np

from muster.cluster.capacity import capacities
from muster.cluster.nodes import Bools, Int64s, NodeTable
from muster.cluster.resources import Resources
from muster.scheduling.model import PodShape

_KEPT = 1024


class Ceilings:
    """Capacity of the empty nodes per shape, kept until a node changes."""

    def __init__(self, table: NodeTable) -> None:
        self._table = table
        self._version = -1
        self._answers: dict[PodShape, Int64s] = {}

    def of(self, shape: PodShape, nodes_version: int) -> Int64s:
        """[N] how many such pods an empty node holds, 0 where they may not run now."""
        if nodes_version != self._version or len(self._answers) >= _KEPT:
            self._answers.clear()
            self._version = nodes_version
        answer = self._answers.get(shape)
        if answer is None:
            table = self._table
            answer = capacities(table.allocatable, table.vector(shape.requests)) * table.eligible(shape.constraints)
            self._answers[shape] = answer
        return answer

    def excess(self, driver: PodShape | None, executor: PodShape, minimum: int, nodes_version: int) -> str:
        """Which number is too big even for the empty cluster, in one sentence; "" when the gang could start."""
        hosts = self.of(driver, nodes_version) if driver is not None else None
        if driver is not None and hosts is not None and not hosts.any():
            return _alone(self._table, "driver", driver)
        if minimum == 0:
            return ""
        each = self.of(executor, nodes_version)
        if not each.any():
            return _alone(self._table, "executor", executor)
        nodes, total = int(np.count_nonzero(each)), int(np.minimum(each, minimum).sum())
        if total < minimum:
            return (
                f"the minimum of {minimum} executors is too many: the {nodes} matching node(s) hold {total} when empty"
            )
        if driver is None or hosts is None or total - int(each.max()) >= minimum:
            return ""
        if self._fits_with_driver(driver, executor, hosts > 0, each, minimum):
            return ""
        return (
            f"the driver and a minimum of {minimum} executors together are too many: "
            f"the {nodes} matching node(s) hold {total} executors when empty, and fewer beside the driver"
        )

    def _fits_with_driver(self, driver: PodShape, executor: PodShape, hosts: Bools, each: Int64s, minimum: int) -> bool:
        table = self._table
        rows = hosts.nonzero()[0]
        beside = table.allocatable.take(rows, axis=1) - table.vector(driver.requests)[:, None]
        left = capacities(beside, table.vector(executor.requests)) * (each.take(rows) > 0)
        capped = np.minimum(each, minimum)
        best = int((np.minimum(left, minimum) - capped.take(rows)).max())
        return int(capped.sum()) + best >= minimum


def _alone(table: NodeTable, role: str, shape: PodShape) -> str:
    """Why not even one pod of this shape could run."""
    eligible = table.eligible(shape.constraints)
    count = int(np.count_nonzero(eligible))
    if not count:
        matching = int(np.count_nonzero(table.matching(shape.constraints)))
        if not matching:
            return f"no node matches the {role}'s node selector and affinity"
        return f"none of the {matching} node(s) that match the {role}'s selector is Ready, uncordoned and tolerated"
    vector = table.vector(shape.requests)
    largest = table.allocatable[:, eligible].max(axis=1)
    for dimension in range(len(vector)):
        if vector[dimension] > largest[dimension]:
            name = table.dimensions[dimension]
            asked, offered = quantity(name, int(vector[dimension])), quantity(name, int(largest[dimension]))
            return f"one {role} asks for {name} {asked}; the largest of {count} matching node(s) has {offered}"
    return f"one {role} fits none of {count} matching node(s): each lacks one of the resources it asks for"


def quantity(name: str, amount: int) -> str:
    """An amount in base units as people write it."""
    return Resources(((name, amount),)).quantities()[name] if amount else "0"
