"""The node table: one exact int64 column per resource, kept up to date by each event, never rebuilt per request."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from muster.cluster.constraints import PodConstraints, Taint
from muster.cluster.resources import Resources

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Node(msgspec.Struct, frozen=True):
    """What scheduling needs of a Kubernetes node."""

    name: str
    allocatable: Resources
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    unschedulable: bool = False


class NodeTable:
    """Nodes as rows, R resources × N rows. A row number is stable while its node lives, then reused."""

    version: int
    """Raised by every change of any amount, label, taint or condition."""
    names: list[str]
    index: dict[str, int]
    allocatable: Int64s
    """[R, N]"""
    free: Int64s
    """[R, N]: allocatable minus everything charged; may be negative when a node shrinks."""

    def dimension(self, resource: str) -> int:
        """The row of ``free``/``allocatable`` for this resource; a name seen for the first time is added."""
        raise NotImplementedError

    def vector(self, resources: Resources) -> Int64s:
        """[R] amounts of ``resources`` in this table's dimensions (a pod's vector includes 1 of ``pods``)."""
        raise NotImplementedError

    def upsert(self, node: Node) -> int:
        """Add or replace a node; what was charged to it stays. Returns its row."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def charge(self, row: int, vector: Int64s, count: int = 1) -> None:
        """Take ``count × vector`` from a row (negative count gives back)."""
        raise NotImplementedError

    def charge_many(self, rows: Int64s, vector: Int64s, counts: Int64s) -> None:
        """Take ``counts[i] × vector`` from ``rows[i]``; rows are distinct."""
        raise NotImplementedError

    def eligible(self, constraints: PodConstraints) -> Bools:
        """[N] present, Ready, not cordoned nodes that match selector and affinity and whose taints are tolerated."""
        raise NotImplementedError

    def order(self) -> Int64s:
        """Rows of present nodes, most used first (extender-compat §4.5, without label priorities)."""
        raise NotImplementedError

    def capacity(self, vector: Int64s, constraints: PodConstraints) -> Int64s:
        """[N] how many such pods fit on each row, 0 where not eligible; kept incrementally per question."""
        raise NotImplementedError
