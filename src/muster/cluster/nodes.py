"""The node table: one exact int64 column per resource, kept up to date by each event, never rebuilt per request."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from muster.cluster.capacity import capacities
from muster.cluster.changes import ChangeLog
from muster.cluster.constraints import UNCONSTRAINED, PodConstraints, Taint
from muster.cluster.labels import LabelIndex
from muster.cluster.lru import LeastRecentlyUsed
from muster.cluster.ordering import LabelPriority, NameRanks, NodeFacts, UsageOrder, fullest_zone_first, kept_edges
from muster.cluster.resources import CPU, GPU, MEMORY, PODS, Resources

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

DIMENSIONS = (CPU, MEMORY, GPU, PODS)
"""The first rows of every table, in this order; further resources follow as they are seen."""

ZONE_LABELS = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
"""The label of a node's zone, then the deprecated one it replaced."""
DEFAULT_ZONE = "default"

AMOUNT_LIMIT = 2**53
"""Larger amounts count as this much, so that sums over nodes stay exact in int64 (2**53 bytes are 8 PiB)."""
PODS_LIMIT = 2**31
"""Pods a node takes when it does not report a limit."""

_FIRST_ROWS = 64
_SELECTIONS = 512
_CAPACITIES = 256
_VECTORS = 8192


class Node(msgspec.Struct, frozen=True):
    """What scheduling needs of a Kubernetes node."""

    name: str
    allocatable: Resources
    labels: dict[str, str] = {}
    taints: tuple[Taint, ...] = ()
    ready: bool = True
    unschedulable: bool = False

    @property
    def zone(self) -> str:
        for label in ZONE_LABELS:
            if zone := self.labels.get(label):
                return zone
        return DEFAULT_ZONE


class _Selection:
    """What one set of constraints admits, by row."""

    __slots__ = ("eligible", "matching", "position")

    def __init__(self) -> None:
        self.matching: Bools = np.empty(0, dtype=np.bool_)
        self.eligible: Bools = np.empty(0, dtype=np.bool_)
        self.position = -1


class _Capacity:
    """How many pods of one size fit, by row; and in all."""

    __slots__ = ("amounts", "position", "total")

    def __init__(self) -> None:
        self.amounts: Int64s = np.empty(0, dtype=np.int64)
        self.total = 0
        self.position = -1


class NodeTable:
    """Nodes as rows, R resources × N rows. A row number is stable while its node lives, then reused.

    Arrays that methods return are the table's own (read-only): they hold until the table changes next.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        """[N] name per row; "" for a row without a node."""
        self.index: dict[str, int] = {}
        """Row per node name."""
        self.nodes: list[Node | None] = []
        """[N] the node as it was told last."""
        self.dimensions: list[str] = list(DIMENSIONS)
        """[R] resource names."""
        self.allocatable: Int64s
        """[R, N]"""
        self.free: Int64s
        """[R, N]: allocatable minus everything charged; may be negative when a node shrinks."""
        self.schedulable: Int64s
        """[R, N]: allocatable minus overhead, which is what pods outside Muster's reservations hold."""
        self.present: Bools
        """[N] rows that hold a node."""
        self.usable: Bools
        """[N] rows whose node is Ready and not cordoned."""
        self.zones: Int64s
        """[N] zone code, an index into ``zone_names``."""
        self.zone_names: list[str] = []
        self.labels = LabelIndex(_FIRST_ROWS, self.index)
        """Labels and taints of the rows, encoded."""

        self._dimension_of = {name: row for row, name in enumerate(self.dimensions)}
        self._amounts = np.zeros((3, len(DIMENSIONS), _FIRST_ROWS), dtype=np.int64)
        self._flags = np.zeros((2, _FIRST_ROWS), dtype=np.bool_)
        self._zones = np.zeros(_FIRST_ROWS, dtype=np.int64)
        self._zone_code: dict[str, int] = {}
        self._names = NameRanks(_FIRST_ROWS)
        self._renamed: dict[str, int | None] = {}
        """Names that came (with their row) or went since the order was refreshed."""
        self._vacant: list[int] = []
        self._vectors: dict[Resources, Int64s] = {}
        self._changes = ChangeLog()
        self._traits = ChangeLog()
        self._selections: LeastRecentlyUsed[PodConstraints, _Selection] = LeastRecentlyUsed(_SELECTIONS)
        self._capacities: LeastRecentlyUsed[tuple[bytes, PodConstraints], _Capacity] = LeastRecentlyUsed(_CAPACITIES)
        self._order = UsageOrder()
        self._order_position = 0
        self._regrouped = True
        """A node came, went or changed its zone since the order was refreshed."""
        self._view()

    def copy(self) -> NodeTable:
        """The same nodes and amounts, to try things on. What is derived from them is worked out anew when asked for."""
        other = copy(self)
        other.names, other.nodes, other.dimensions = self.names.copy(), self.nodes.copy(), self.dimensions.copy()
        other.index = self.index.copy()
        other.zone_names = self.zone_names.copy()
        other.labels = self.labels.copy(other.index)
        other._dimension_of, other._zone_code = self._dimension_of.copy(), self._zone_code.copy()
        other._amounts, other._flags, other._zones = self._amounts.copy(), self._flags.copy(), self._zones.copy()
        other._names = self._names.copy()
        other._renamed, other._vacant, other._vectors = self._renamed.copy(), self._vacant.copy(), self._vectors.copy()
        other._changes, other._traits = self._changes.copy(), self._traits.copy()
        other._selections, other._capacities = LeastRecentlyUsed(_SELECTIONS), LeastRecentlyUsed(_CAPACITIES)
        other._order, other._order_position, other._regrouped = UsageOrder(), -1, True
        other._view()
        return other

    # Amounts

    @property
    def version(self) -> int:
        """Raised by every change of any amount, label, taint or condition."""
        return self._changes.head

    def dimension(self, resource: str) -> int:
        """The row of ``free``/``allocatable`` for this resource; a name seen for the first time is added."""
        row = self._dimension_of.get(resource)
        if row is None:
            row = self._dimension_of[resource] = len(self.dimensions)
            self.dimensions.append(resource)
            added = np.zeros((3, 1, self._amounts.shape[2]), dtype=np.int64)
            self._amounts = np.concatenate([self._amounts, added], axis=1)
            self._vectors.clear()
            self._view()
        return row

    def vector(self, resources: Resources) -> Int64s:
        """[R] amounts of ``resources`` in this table's dimensions (a pod's vector includes 1 of ``pods``)."""
        vector = self._vectors.get(resources)
        if vector is None:
            rows = [(self.dimension(name), amount) for name, amount in resources.amounts if name != PODS]
            vector = np.zeros(len(self.dimensions), dtype=np.int64)
            for row, amount in rows:
                vector[row] = _limited(amount)
            vector[self._dimension_of[PODS]] = 1
            vector.flags.writeable = False
            if len(self._vectors) >= _VECTORS:
                self._vectors.clear()
            self._vectors[resources] = vector
        return vector

    # A vector made before a dimension was added is shorter than R and stays valid: it asks for none of that resource.

    def charge(self, row: int, vector: Int64s, count: int = 1) -> None:
        """Take ``count × vector`` from a row (negative count gives back)."""
        self.free[: len(vector), row] -= vector if count == 1 else vector * count
        self._changes.note(row)

    def charge_many(self, rows: Int64s, vector: Int64s, counts: Int64s) -> None:
        """Take ``counts[i] × vector`` from ``rows[i]``; rows are distinct."""
        self.free[: len(vector), rows] -= vector[:, None] * counts
        self._changes.note_many(rows)

    def charge_overhead(self, row: int, vector: Int64s, count: int = 1) -> None:
        """As ``charge``, for a pod outside Muster's reservations: it lowers ``schedulable`` too."""
        taken = vector * count
        self.schedulable[: len(vector), row] -= taken
        self.free[: len(vector), row] -= taken
        self._changes.note(row)

    # Nodes

    def upsert(self, node: Node) -> int:
        """Add or replace a node; what was charged to it stays. Returns its row."""
        row = self.index.get(node.name)
        if row is None:
            row = self._claim(node.name)
        old = self.nodes[row]
        if old == node:
            return row
        self.nodes[row] = node
        if old is None or old.allocatable != node.allocatable:
            self._set_allocatable(row, node.allocatable)
        if old is None or (old.labels, old.taints, old.ready, old.unschedulable) != (
            node.labels,
            node.taints,
            node.ready,
            node.unschedulable,
        ):
            self._set_traits(row, node, old)
        return row

    def remove(self, name: str) -> None:
        """Forget a node and everything charged to it; its row is reused.

        Raises:
            KeyError: there is no such node.
        """
        row = self.index.pop(name)
        node = self.nodes[row]
        if node is not None:
            self.labels.set_labels(row, node.labels, {})
        self.labels.set_taints(row, ())
        self.names[row] = ""
        self.nodes[row] = None
        self._amounts[:, :, row] = 0
        self._flags[:, row] = False
        self._renamed[name] = None
        self._regrouped = True
        self._vacant.append(row)
        self._note_traits(row)

    # Questions

    def matching(self, constraints: PodConstraints) -> Bools:
        """[N] present nodes that match selector and affinity, whatever their condition and taints."""
        return self._selection(constraints).matching

    def eligible(self, constraints: PodConstraints) -> Bools:
        """[N] present, Ready, not cordoned nodes that match selector and affinity and whose taints are tolerated."""
        return self._selection(constraints).eligible

    def order(self, among: Bools | None = None, priority: LabelPriority | None = None) -> Int64s:
        """Rows of present nodes, most used first; of those ``among`` [N] only, zones ranked by these alone.

        Source: palantir/k8s-spark-scheduler ``nodesorting.go`` (``ordering`` says what decides ties); with
        ``priority``, a stable sort by the rank of the label's value comes on top.
        """
        self._refresh_order()
        rows, edges = self._order.rows, self._order.edges
        if among is not None:
            kept = among.take(rows)
            rows = rows[kept]
            edges = kept_edges(kept, edges)
        rows = fullest_zone_first(rows, edges, self.free[1], self.free[0], self.zone_names)
        return rows if priority is None else self._prioritized(rows, priority)

    def capacity(self, vector: Int64s, constraints: PodConstraints = UNCONSTRAINED) -> Int64s:
        """[N] how many such pods fit on each row, 0 where not eligible; kept incrementally per question."""
        return self._capacity(vector, constraints).amounts

    def total_capacity(self, vector: Int64s, constraints: PodConstraints = UNCONSTRAINED) -> int:
        """The sum of ``capacity``: whether that many pods fit at all costs only the rows changed since last asked."""
        return self._capacity(vector, constraints).total

    # Derived state

    def _selection(self, constraints: PodConstraints) -> _Selection:
        found = self._selections.get_or_make(constraints, _Selection)
        if found.position == self._traits.head:
            return found
        changed = self._traits.since(found.position) if found.position >= 0 else None
        size = len(self.names)
        if changed is None or len(changed) > size // 4:
            rows = np.arange(size)
            found.matching = np.empty(size, dtype=np.bool_)
            found.eligible = np.empty(size, dtype=np.bool_)
        else:
            rows = changed
            found.matching = _resized(found.matching, size)
            found.eligible = _resized(found.eligible, size)
        matching = self.present.take(rows)
        matching &= self.labels.selected(constraints.node_selector, rows)
        matching &= self.labels.in_terms(constraints.terms, rows)
        found.matching[rows] = matching
        found.eligible[rows] = matching & self.usable.take(rows) & self.labels.tolerated(constraints, rows)
        found.position = self._traits.head
        return found

    def _capacity(self, vector: Int64s, constraints: PodConstraints) -> _Capacity:
        found = self._capacities.get_or_make((vector.tobytes(), constraints), _Capacity)
        if found.position == self._changes.head:
            return found
        eligible = self.eligible(constraints)
        changed = self._changes.since(found.position) if found.position >= 0 else None
        size = len(self.names)
        if changed is None or len(changed) > size // 4:
            found.amounts = capacities(self.free, vector)
            found.amounts *= eligible
        else:
            found.amounts = _resized(found.amounts, size)
            found.amounts[changed] = capacities(self.free[:, changed], vector) * eligible.take(changed)
        found.total = int(found.amounts.sum())
        found.position = self._changes.head
        return found

    def _refresh_order(self) -> None:
        if self._order_position == self._changes.head:
            return
        changed = None if self._regrouped else self._changes.since(self._order_position)
        self._names.update(self._renamed, self.index)
        self._renamed.clear()
        facts = NodeFacts(self.present, self.free[1], self.free[0], self._names.ranks, self.zones, len(self.zone_names))
        if changed is None or not self._order.worth_repairing(len(changed)):
            self._order.rebuild(facts)
        else:
            self._order.repair(changed, facts)
        self._regrouped = False
        self._order_position = self._changes.head

    def _prioritized(self, rows: Int64s, priority: LabelPriority) -> Int64s:
        column = self.labels.label(priority.label)
        if column is None:
            return rows
        rank = {value: position for position, value in reversed(list(enumerate(priority.values)))}
        last = len(priority.values)
        table = [last if value is None else rank.get(value, last) for value in column.values]
        # Small integers: NumPy's stable sort of them is a radix sort.
        return rows.take(np.asarray(table, dtype=np.int16).take(column.codes.take(rows)).argsort(kind="stable"))

    # Rows

    def _claim(self, name: str) -> int:
        if self._vacant:
            row = self._vacant.pop()
            self.names[row] = name
        else:
            row = len(self.names)
            self.names.append(name)
            self.nodes.append(None)
            if row == self._amounts.shape[2]:
                self._grow()
            self._view()
        self.index[name] = row
        self._renamed[name] = row
        self._regrouped = True
        self._flags[0, row] = True
        return row

    def _grow(self) -> None:
        rows = 2 * self._amounts.shape[2]
        self._amounts = _resized(self._amounts, rows)
        self._flags = _resized(self._flags, rows)
        self._zones = _resized(self._zones, rows)
        self._names.grow(rows)
        self.labels.grow(rows)

    def _view(self) -> None:
        size = len(self.names)
        self.allocatable, self.free, self.schedulable = self._amounts[:, :, :size]
        self.present, self.usable = self._flags[:, :size]
        self.zones = self._zones[:size]

    def _set_allocatable(self, row: int, allocatable: Resources) -> None:
        for name, _ in allocatable.amounts:
            self.dimension(name)
        amounts = np.zeros(len(self.dimensions), dtype=np.int64)
        amounts[self._dimension_of[PODS]] = PODS_LIMIT
        for name, amount in allocatable.amounts:
            amounts[self._dimension_of[name]] = _limited(amount)
        self._amounts[:, :, row] += amounts - self.allocatable[:, row]
        self._changes.note(row)

    def _set_traits(self, row: int, node: Node, old: Node | None) -> None:
        self.labels.set_labels(row, old.labels if old is not None else {}, node.labels)
        self.labels.set_taints(row, node.taints)
        self.usable[row] = node.ready and not node.unschedulable
        zone = node.zone
        code = self._zone_code.get(zone)
        if code is None:
            code = self._zone_code[zone] = len(self.zone_names)
            self.zone_names.append(zone)
        if self.zones[row] != code:
            self.zones[row] = code
            self._regrouped = True
        self._note_traits(row)

    def _note_traits(self, row: int) -> None:
        self._traits.note(row)
        self._changes.note(row)


def _limited(amount: int) -> int:
    return max(-AMOUNT_LIMIT, min(AMOUNT_LIMIT, amount))


def _resized(array: npt.NDArray[T], rows: int) -> npt.NDArray[T]:
    """The array with its last axis lengthened to ``rows`` by zeros."""
    missing = rows - array.shape[-1]
    if missing == 0:
        return array
    return np.concatenate([array, np.zeros((*array.shape[:-1], missing), dtype=array.dtype)], axis=-1)
