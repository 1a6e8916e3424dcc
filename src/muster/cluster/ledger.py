"""Who holds what: slots of applications, the pods in them, extras above the minimum, and all other pods.

Everything here is charged to the node table, and everything charged to the table is here:

- an unfilled slot charges its profile's shape on its node; a slot that holds a pod charges the pod's requests instead;
- an extra and any other pod charge their requests on their node, other pods as overhead;
- a pod is held once: in one slot, or as an extra, or as another pod; a slot holds at most one pod;
- slots of one application, profile and node are interchangeable: they are counted, never listed;
- pods on a node the table does not know are remembered, and charged when the node comes.

Methods that place something never judge whether it fits: what exists is charged, what should exist is the scheduler's
to decide. ``validate`` recomputes all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec
import numpy as np

from muster.cluster.nodes import Int64s, Node, NodeTable
from muster.cluster.resources import Resources

ApplicationKey = str
PodKey = str
"""``<namespace>/<name>``."""

DRIVER_PROFILE = -1
"""The profile of the driver's slot; executors have Spark's resource profile ids, from 0."""


class LedgerError(RuntimeError):
    """A request the ledger's state does not allow: a defect of the caller."""


class Use(StrEnum):
    SLOT = "slot"
    EXTRA = "extra"
    OTHER = "other"


class Held(msgspec.Struct, frozen=True):
    """What one pod holds."""

    use: Use
    node: str
    requests: Resources
    application: ApplicationKey = ""
    profile: int = 0


class Loss(msgspec.Struct, frozen=True):
    """What one application lost with a node: slots per profile, and the pods that were there."""

    slots: Mapping[int, int]
    """Filled or not."""
    pods: tuple[PodKey, ...]
    """In slots or extra; the ledger goes on holding them as other pods until told that they are gone."""


class _Holding:
    """What one application holds."""

    __slots__ = ("pods", "shapes", "slots", "unfilled")

    def __init__(self) -> None:
        self.shapes: dict[int, Resources] = {}
        self.slots: dict[int, dict[str, int]] = {}
        """Per profile, slots per node, filled or not; no zeros."""
        self.unfilled: dict[int, dict[str, int]] = {}
        """Those of them without a pod; no zeros."""
        self.pods: dict[PodKey, None] = {}
        """In slots or extra, in the order they came."""


class Ledger:
    """The ledger of one cluster. It alone adds and removes nodes of its table and charges it."""

    def __init__(self, table: NodeTable) -> None:
        self.table = table
        self._holdings: dict[ApplicationKey, _Holding] = {}
        self._pods: dict[PodKey, Held] = {}
        self._on_node: dict[str, dict[PodKey, None]] = {}
        self._slots_on_node: dict[str, dict[ApplicationKey, None]] = {}

    # Reads

    def pod(self, pod: PodKey) -> Held | None:
        return self._pods.get(pod)

    def pods_on(self, node: str) -> tuple[PodKey, ...]:
        return tuple(self._on_node.get(node, ()))

    def applications(self) -> Iterator[ApplicationKey]:
        return iter(self._holdings)

    def pods_of(self, application: ApplicationKey) -> tuple[PodKey, ...]:
        """Its pods in slots and its extras, in the order they came."""
        holding = self._holdings.get(application)
        return tuple(holding.pods) if holding is not None else ()

    def extras_of(self, application: ApplicationKey) -> tuple[PodKey, ...]:
        return tuple(pod for pod in self.pods_of(application) if self._pods[pod].use is Use.EXTRA)

    def profiles(self, application: ApplicationKey) -> Mapping[int, Resources]:
        """The shape reserved per resource profile."""
        holding = self._holdings.get(application)
        return holding.shapes if holding is not None else {}

    def slots(self, application: ApplicationKey, profile: int = 0) -> Mapping[str, int]:
        """Slots per node, filled or not. A live view."""
        holding = self._holdings.get(application)
        return holding.slots.get(profile, {}) if holding is not None else {}

    def unfilled(self, application: ApplicationKey, profile: int = 0) -> Mapping[str, int]:
        """Slots without a pod per node. A live view: take the first node for any slot at all."""
        holding = self._holdings.get(application)
        return holding.unfilled.get(profile, {}) if holding is not None else {}

    def nodes_used(self, application: ApplicationKey, *, drivers: bool = False) -> Int64s:
        """Rows with a slot or an extra of the application's executors (with ``drivers``, of its driver too)."""
        holding = self._holdings.get(application)
        if holding is None:
            return np.empty(0, dtype=np.int64)
        names = {name for profile, nodes in holding.slots.items() if drivers or profile >= 0 for name in nodes}
        names.update(held.node for pod in holding.pods if (held := self._pods[pod]).use is Use.EXTRA)
        return np.array(sorted(self.table.index[name] for name in names if name in self.table.index), dtype=np.int64)

    def held_by(self, application: ApplicationKey) -> Resources:
        """All that is charged for an application: unfilled slots, and the requests of its pods."""
        holding = self._holdings.get(application)
        if holding is None:
            return Resources()
        total = Resources()
        for profile, nodes in holding.unfilled.items():
            total += holding.shapes[profile].times(sum(nodes.values()))
        for requests, count in Counter(self._pods[pod].requests for pod in holding.pods).items():
            total += requests.times(count)
        return total

    # Slots

    def reserve(
        self, application: ApplicationKey, profile: int, shape: Resources, rows: Int64s, counts: Int64s
    ) -> None:
        """Add ``counts[i]`` unfilled slots on ``rows[i]`` (distinct). O(nodes), however many slots.

        Raises:
            LedgerError: the profile holds slots of another shape.
        """
        holding = self._holdings.setdefault(application, _Holding())
        if holding.shapes.setdefault(profile, shape) != shape:
            raise LedgerError(f"{application}: profile {profile} is reserved with another shape already")
        self.table.charge_many(rows, self.table.vector(shape), counts)
        names = [self.table.names[row] for row in rows.tolist()]
        added = dict(zip(names, counts.tolist(), strict=True))
        for mapping in (holding.slots.setdefault(profile, {}), holding.unfilled.setdefault(profile, {})):
            for name, count in added.items():
                if count:
                    mapping[name] = mapping.get(name, 0) + count
        for name in names:
            self._slots_on_node.setdefault(name, {})[application] = None

    def reshape(self, application: ApplicationKey, profile: int, shape: Resources) -> None:
        """Correct the shape of a profile's slots: unfilled ones are charged anew, pods keep what they asked for."""
        holding = self._holding(application)
        old = holding.shapes.get(profile)
        if old is None or old == shape:
            return
        unfilled = holding.unfilled.get(profile, {})
        if unfilled:
            rows = np.array([self.table.index[name] for name in unfilled], dtype=np.int64)
            counts = np.array(list(unfilled.values()), dtype=np.int64)
            self.table.charge_many(rows, self.table.vector(shape) - self.table.vector(old), counts)
        holding.shapes[profile] = shape

    def drop_slots(self, application: ApplicationKey, profile: int, node: str, count: int = 1) -> None:
        """Give up unfilled slots.

        Raises:
            LedgerError: there are fewer.
        """
        holding = self._holding(application)
        self._require_unfilled(application, profile, node, count)
        self._charge_slots(holding, profile, node, -count)
        _add(holding.unfilled[profile], node, -count)
        self._add_slots(application, holding, profile, node, -count)

    def move_slot(self, application: ApplicationKey, profile: int, source: str, target: str) -> None:
        """Move an unfilled slot to another node of the table.

        Raises:
            LedgerError: there is none on ``source``, or no node ``target``.
        """
        if target not in self.table.index:
            raise LedgerError(f"{application}: no node {target} to move a slot to")
        self.drop_slots(application, profile, source)
        row = np.array([self.table.index[target]])
        self.reserve(application, profile, self._holding(application).shapes[profile], row, np.array([1]))

    def fill(
        self, application: ApplicationKey, profile: int, pod: PodKey, node: str, requests: Resources | None = None
    ) -> None:
        """Put a pod into an unfilled slot on ``node``; asked again it changes nothing but the requests.

        ``requests`` are the pod's own; without them the slot's shape goes on being charged. A pod held otherwise
        (as an extra, or unknown to be ours) gives that up.

        Raises:
            LedgerError: no unfilled slot of the profile there.
        """
        holding = self._holding(application)
        held = self._pods.get(pod)
        in_place = held is not None and (held.use, held.application, held.profile, held.node) == (
            Use.SLOT,
            application,
            profile,
            node,
        )
        if in_place:
            if requests is not None:
                self.correct(pod, requests)
            return
        self._require_unfilled(application, profile, node, 1)
        if held is not None:
            self.remove(pod)
        shape = holding.shapes[profile]
        filled = Held(Use.SLOT, node, shape if requests is None else requests, application, profile)
        _add(holding.unfilled[profile], node, -1)
        if filled.requests != shape:
            self._charge_slots(holding, profile, node, -1)
            self._charge_pod(filled, 1)
        self._enter(pod, filled)

    def promote(self, pod: PodKey, slot_node: str) -> None:
        """Make an extra the holder of an unfilled slot of its profile on ``slot_node``; the slot comes to the pod.

        Raises:
            LedgerError: the pod is no extra, or there is no such slot.
        """
        held = self._pods.get(pod)
        if held is None or held.use is not Use.EXTRA:
            raise LedgerError(f"{pod} is no extra executor")
        if slot_node != held.node:
            self.move_slot(held.application, held.profile, slot_node, held.node)
        self.fill(held.application, held.profile, pod, held.node, held.requests)

    # Pods

    def add_extra(self, application: ApplicationKey, profile: int, pod: PodKey, node: str, requests: Resources) -> None:
        """Hold a pod of an application above its slots; replaces whatever the pod held before."""
        self._holdings.setdefault(application, _Holding())
        self._replace(pod, Held(Use.EXTRA, node, requests, application, profile))

    def add_other(self, pod: PodKey, node: str, requests: Resources) -> None:
        """Hold a pod that is no application's; replaces whatever the pod held before."""
        self._replace(pod, Held(Use.OTHER, node, requests))

    def correct(self, pod: PodKey, requests: Resources) -> None:
        """The pod's real requests became known, or changed.

        Raises:
            LedgerError: nothing is held for the pod.
        """
        held = self._pods.get(pod)
        if held is None:
            raise LedgerError(f"nothing is held for {pod}")
        if held.requests != requests:
            self._charge_pod(held, -1)
            self._pods[pod] = held = msgspec.structs.replace(held, requests=requests)
            self._charge_pod(held, 1)

    def remove(self, pod: PodKey) -> Held | None:
        """The pod is finished, gone or never came: free what it held. Its slot, if it had one, is unfilled again."""
        held = self._pods.get(pod)
        if held is None:
            return None
        self._strike(pod, held)
        if held.use is not Use.SLOT:
            self._charge_pod(held, -1)
            return held
        holding = self._holdings[held.application]
        _add(holding.unfilled[held.profile], held.node, 1)
        if held.requests != holding.shapes[held.profile]:
            self._charge_pod(held, -1)
            self._charge_slots(holding, held.profile, held.node, 1)
        return held

    def release(self, application: ApplicationKey) -> tuple[PodKey, ...]:
        """The application ended: its unfilled slots are free at once. Returns its pods that are still there.

        Those go on holding their requests, as other pods, until ``remove`` is told that they are gone.
        """
        holding = self._holdings.get(application)
        if holding is None:
            return ()
        pods = tuple(holding.pods)
        for pod in pods:
            self._disown(pod)
        for profile, nodes in holding.unfilled.items():
            if nodes:
                rows = np.array([self.table.index[name] for name in nodes], dtype=np.int64)
                counts = np.array(list(nodes.values()), dtype=np.int64)
                self.table.charge_many(rows, self.table.vector(holding.shapes[profile]), -counts)
        for nodes in holding.slots.values():
            for name in nodes:
                self._slots_on_node[name].pop(application, None)
        del self._holdings[application]
        return pods

    # Nodes

    def upsert_node(self, node: Node) -> int:
        """Add or change a node of the table, and charge the pods that were known to be there. Returns its row."""
        known = node.name in self.table.index
        row = self.table.upsert(node)
        if not known:
            for pod in self._on_node.get(node.name, ()):
                self._charge_pod(self._pods[pod], 1)
        return row

    def remove_node(self, name: str) -> dict[ApplicationKey, Loss]:
        """Take a node out of the table. Returns what each application lost with it.

        Its slots no longer exist; its pods are other pods from now on, charged again should the node come back.
        """
        if name not in self.table.index:
            return {}
        pods: dict[ApplicationKey, list[PodKey]] = {}
        for pod in tuple(self._on_node.get(name, ())):
            held = self._pods[pod]
            if held.application:
                pods.setdefault(held.application, []).append(pod)
                self._disown(pod)
        slots: dict[ApplicationKey, dict[int, int]] = {}
        for application in self._slots_on_node.pop(name, {}):
            holding = self._holdings[application]
            for profile, nodes in holding.slots.items():
                lost = nodes.pop(name, 0)
                holding.unfilled[profile].pop(name, None)
                if lost:
                    slots.setdefault(application, {})[profile] = lost
        self.table.remove(name)
        affected = dict.fromkeys([*slots, *pods])
        return {key: Loss(slots.get(key, {}), tuple(pods.get(key, ()))) for key in affected}

    # The books

    def _holding(self, application: ApplicationKey) -> _Holding:
        holding = self._holdings.get(application)
        if holding is None:
            raise LedgerError(f"{application} holds nothing")
        return holding

    def _require_unfilled(self, application: ApplicationKey, profile: int, node: str, count: int) -> None:
        there = self.unfilled(application, profile).get(node, 0)
        if there < count:
            raise LedgerError(f"{application}: {there} unfilled slots of profile {profile} on {node}, not {count}")

    def _add_slots(self, application: ApplicationKey, holding: _Holding, profile: int, node: str, count: int) -> None:
        _add(holding.slots[profile], node, count)
        if not any(node in nodes for nodes in holding.slots.values()):
            self._slots_on_node[node].pop(application, None)

    def _charge_slots(self, holding: _Holding, profile: int, node: str, count: int) -> None:
        self.table.charge(self.table.index[node], self.table.vector(holding.shapes[profile]), count)

    def _charge_pod(self, held: Held, count: int) -> None:
        row = self.table.index.get(held.node)
        if row is None:
            return
        vector = self.table.vector(held.requests)
        if held.use is Use.OTHER:
            self.table.charge_overhead(row, vector, count)
        else:
            self.table.charge(row, vector, count)

    def _replace(self, pod: PodKey, held: Held) -> None:
        if self._pods.get(pod) != held:
            self.remove(pod)
            self._enter(pod, held)
            self._charge_pod(held, 1)

    def _disown(self, pod: PodKey) -> None:
        """Make it another pod. If it had a slot, the slot is the caller's to take away: it stays counted as filled."""
        held = self._pods[pod]
        other = Held(Use.OTHER, held.node, held.requests)
        self._strike(pod, held)
        self._charge_pod(held, -1)
        self._enter(pod, other)
        self._charge_pod(other, 1)

    def _enter(self, pod: PodKey, held: Held) -> None:
        """Write the pod into the books, uncharged."""
        self._pods[pod] = held
        self._on_node.setdefault(held.node, {})[pod] = None
        if held.application:
            self._holdings[held.application].pods[pod] = None

    def _strike(self, pod: PodKey, held: Held) -> None:
        """Take the pod out of the books; the charge stays."""
        del self._pods[pod]
        there = self._on_node[held.node]
        del there[pod]
        if not there:
            del self._on_node[held.node]
        if held.application:
            del self._holdings[held.application].pods[pod]

    def validate(self) -> None:
        """Recompute everything from what is held, and compare.

        Raises:
            LedgerError: what is charged is not what is held, or the books disagree with each other.
        """
        table = self.table
        taken, overhead = np.zeros_like(table.free), np.zeros_like(table.free)
        filled: Counter[tuple[ApplicationKey, int, str]] = Counter()
        for pod, held in self._pods.items():
            _require(pod in self._on_node.get(held.node, ()), f"{pod} is not listed on {held.node}")
            if held.application:
                _require(pod in self._holdings[held.application].pods, f"{pod} is not among its application's pods")
            if held.use is Use.SLOT:
                filled[held.application, held.profile, held.node] += 1
            row = table.index.get(held.node)
            if row is not None:
                columns = overhead if held.use is Use.OTHER else taken
                columns[:, row] += table.vector(held.requests)
        _require(sum(map(len, self._on_node.values())) == len(self._pods), "a node lists pods that are not held")
        owned = sum(1 for held in self._pods.values() if held.application)
        _require(sum(len(h.pods) for h in self._holdings.values()) == owned, "an application lists pods not its own")
        for application, holding in self._holdings.items():
            for profile, nodes in holding.slots.items():
                unfilled = holding.unfilled[profile]
                _require(unfilled.keys() <= nodes.keys(), f"{application}: unfilled slots where it has none")
                for name, count in nodes.items():
                    free = unfilled.get(name, 0)
                    told = f"{application}: {count} slots of profile {profile} on {name}, {free} unfilled"
                    _require(count > 0 and 0 <= free == count - filled.pop((application, profile, name), 0), told)
                    _require(application in self._slots_on_node.get(name, ()), f"{name} does not list {application}")
                    taken[:, table.index[name]] += table.vector(holding.shapes[profile]) * free
        _require(not filled, f"pods in slots that do not exist: {sorted(filled)}")
        _require(
            np.array_equal(table.schedulable, table.allocatable - overhead), "schedulable is not what it should be"
        )
        _require(np.array_equal(table.free, table.schedulable - taken), "free is not what it should be")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LedgerError(otherwise)


def _add(counts: dict[str, int], name: str, count: int) -> None:
    total = counts.get(name, 0) + count
    if total:
        counts[name] = total
    else:
        counts.pop(name, None)
