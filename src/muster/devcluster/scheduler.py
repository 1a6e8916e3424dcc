"""A stand-in for kube-scheduler: binds pods one by one, first come first served, knowing nothing of gangs.

Filters as the default profile does: resources, node selector, required node affinity, taints, cordon, readiness.
Scores by ``LeastAllocated`` over cpu and memory. Not played: preferred affinity, pod affinity, topology spread, host
ports, volumes, preemption, back-off (what cannot be placed is tried again when something becomes free).
"""

from __future__ import annotations

import asyncio
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from muster.cluster.constraints import PodConstraints, Requirement, Taint, Term, Toleration, repelling
from muster.cluster.nodes import Int64s, Node, NodeTable
from muster.cluster.quantity import QuantityError
from muster.cluster.resources import Resources
from muster.devcluster.pod_status import requests_of
from muster.kube import objects as k
from muster.kube.client import Client, PatchType
from muster.kube.errors import ApiError
from muster.kube.kinds import NODES, PODS
from muster.kube.list_watch import Deleted, ListWatch, Synced, WatchedEvent
from muster.kube.timestamps import format_time

DEFAULT_SCHEDULER = "default-scheduler"
_ENDED = ("Succeeded", "Failed")
_CPU, _MEMORY = "cpu", "memory"


class PendingPod(msgspec.Struct, frozen=True):
    """A pod that waits for a node."""

    namespace: str
    name: str
    uid: str
    requests: Resources
    constraints: PodConstraints
    priority: int
    arrival: int


class Assignments:
    """Nodes, the pods on them and the pods that wait; decides where the next ones go. No I/O."""

    def __init__(self) -> None:
        self.table = NodeTable()
        self.pending: dict[str, PendingPod] = {}
        self._held: dict[str, tuple[str, Resources]] = {}
        """Pod uid → node and requests, from the moment of the decision."""
        self._by_node: dict[str, set[str]] = {}
        self._arrivals = 0

    def node_seen(self, node: Node) -> None:
        known = node.name in self.table.index
        row = self.table.upsert(node)
        if not known:
            for uid in self._by_node.get(node.name, ()):
                self.table.charge(row, self.table.vector(self._held[uid][1]))

    def node_gone(self, name: str) -> None:
        if name in self.table.index:
            self.table.remove(name)

    def pod_waits(
        self, namespace: str, name: str, uid: str, requests: Resources, constraints: PodConstraints, priority: int
    ) -> None:
        """An unbound, ungated pod. One that is already assigned keeps its node; one that waits keeps its place."""
        if uid in self._held:
            return
        known = self.pending.get(uid)
        if known is None:
            self._arrivals += 1
        arrival = known.arrival if known else self._arrivals
        self.pending[uid] = PendingPod(namespace, name, uid, requests, constraints, priority, arrival)

    def pod_bound(self, uid: str, node: str, requests: Resources) -> None:
        """The pod holds room on this node (again told: nothing changes)."""
        self.pending.pop(uid, None)
        if self._held.get(uid, ("", requests)) != (node, requests):
            self.pod_gone(uid)
        if uid not in self._held:
            self._hold(uid, node, requests)

    def pod_gone(self, uid: str) -> bool:
        """The pod ended, was deleted or lost its assignment. Whether that made room."""
        self.pending.pop(uid, None)
        held = self._held.pop(uid, None)
        if held is None:
            return False
        node, requests = held
        self._by_node[node].discard(uid)
        row = self.table.index.get(node)
        if row is not None:
            self.table.charge(row, self.table.vector(requests), -1)
        return True

    def assign(self) -> list[tuple[PendingPod, str]]:
        """Give every waiting pod that fits its node, in order of priority and arrival; the rest keep waiting."""
        assigned: list[tuple[PendingPod, str]] = []
        hopeless: set[tuple[Resources, PodConstraints]] = set()
        for pod in sorted(self.pending.values(), key=lambda pod: (-pod.priority, pod.arrival)):
            shape = (pod.requests, pod.constraints)
            if shape in hopeless:
                continue
            node = self._choose(pod)
            if node is None:
                hopeless.add(shape)
                continue
            del self.pending[pod.uid]
            self._hold(pod.uid, node, pod.requests)
            assigned.append((pod, node))
        return assigned

    def _hold(self, uid: str, node: str, requests: Resources) -> None:
        self._held[uid] = (node, requests)
        self._by_node.setdefault(node, set()).add(uid)
        row = self.table.index.get(node)
        if row is not None:
            self.table.charge(row, self.table.vector(requests))

    def _choose(self, pod: PendingPod) -> str | None:
        """The node with the largest share of cpu and memory left after the pod (``LeastAllocated``)."""
        table = self.table
        vector = table.vector(pod.requests)
        rows = np.flatnonzero(table.capacity(vector, pod.constraints))
        if not len(rows):
            return None
        best = 0 if len(rows) == 1 else int(np.argmax(self._score(rows, vector)))
        return table.names[int(rows[best])]

    def _score(self, rows: Int64s, vector: Int64s) -> npt.NDArray[np.float64]:
        both = [self.table.dimension(_CPU), self.table.dimension(_MEMORY)]
        left = self.table.free[both][:, rows] - vector[both][:, None]
        share = left / np.maximum(self.table.allocatable[both][:, rows], 1)
        scores: npt.NDArray[np.float64] = share.sum(axis=0)
        return scores

    def why_not(self, pod: PendingPod) -> str:
        """kube-scheduler's ``FitError`` text: how many nodes each filter turned away."""
        table = self.table
        reasons: dict[str, int] = {}
        matching = table.matching(pod.constraints)
        vector = table.vector(pod.requests)
        for row in table.index.values():
            for reason in self._reasons(pod, row, bool(matching[row]), vector):
                reasons[reason] = reasons.get(reason, 0) + 1
        if not table.index:
            return "no nodes available to schedule pods"
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        return f"0/{len(table.index)} nodes are available: {listed}."

    def _reasons(self, pod: PendingPod, row: int, matches: bool, vector: Int64s) -> list[str]:
        node = self.table.nodes[row]
        assert node is not None  # rows in the index hold a node
        if node.unschedulable:
            return ["node(s) were unschedulable"]
        if not node.ready:
            return ["node(s) had untolerated taint {node.kubernetes.io/not-ready: }"]
        if taint := repelling(node.taints, pod.constraints.tolerations):
            return [f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"]
        if not matches:
            return ["node(s) didn't match Pod's node affinity/selector"]
        lacking = np.flatnonzero(vector > np.maximum(self.table.free[: len(vector), row], 0))
        names = [self.table.dimensions[index] for index in lacking]
        return ["Too many pods" if name == "pods" else f"Insufficient {name}" for name in names]


class SchedulerStandIn:
    """Watches nodes and pods, binds, and says on each pod that cannot be placed why. An async context manager."""

    def __init__(self, client: Client, name: str = DEFAULT_SCHEDULER, *, concurrent_calls: int = 8) -> None:
        self._client = client
        self._name = name
        self._assignments = Assignments()
        self._calls = asyncio.Semaphore(concurrent_calls)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._synced: set[str] = set()
        self._told: dict[str, str] = {}
        """Pod uid → the condition's message, written last."""
        self.bound = 0
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        self._spawn(ListWatch(self._client, NODES).run(self._on_node))
        self._spawn(ListWatch(self._client, PODS).run(self._on_pod))
        self._spawn(self._schedule())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> int:
        return len(self._assignments.pending)

    async def _schedule(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._synced != {"nodes", "pods"}:
                continue
            for pod, node in self._assignments.assign():
                self._spawn(self._bind(pod, node))
            for pod in list(self._assignments.pending.values()):
                if pod.uid not in self._told:
                    self._told[pod.uid] = self._assignments.why_not(pod)
                    self._spawn(self._mark_unschedulable(pod, self._told[pod.uid]))
            # Everything that is told meanwhile is answered by one pass
            await asyncio.sleep(0)

    async def _bind(self, pod: PendingPod, node: str) -> None:
        try:
            async with self._calls:
                await self._client.bind(pod.name, pod.namespace, node, uid=pod.uid)
            self.bound += 1
        except ApiError as error:
            # Gone, bound by someone else, or the API is away: what is true will be told by the watch
            self._assignments.pod_gone(pod.uid)
            if not (error.not_found or error.conflict):
                self.problems.append(str(error))
                self._assignments.pod_waits(
                    pod.namespace, pod.name, pod.uid, pod.requests, pod.constraints, pod.priority
                )
            self._wake.set()

    async def _mark_unschedulable(self, pod: PendingPod, message: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": format_time(self._client.clock.time()),
        }
        try:
            async with self._calls:
                await self._client.patch(
                    PODS.decoding_to(k.Present),
                    pod.name,
                    {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}},
                    pod.namespace,
                    patch_type=PatchType.STRATEGIC,
                    subresource="status",
                )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                self.problems.append(str(error))

    def _on_node(self, event: WatchedEvent[k.Node]) -> None:
        if isinstance(event, Synced):
            self._synced.add("nodes")
        elif isinstance(event, Deleted):
            self._assignments.node_gone(event.name)
        else:
            self._assignments.node_seen(node_of(event.object))
        self._wake.set()

    def _on_pod(self, event: WatchedEvent[k.Pod]) -> None:
        if isinstance(event, Synced):
            self._synced.add("pods")
            self._wake.set()
        elif isinstance(event, Deleted):
            self._gone(event.uid)
        else:
            self._pod_seen(event.object)

    def _pod_seen(self, pod: k.Pod) -> None:
        meta, spec = pod.metadata, pod.spec
        if pod.status.phase in _ENDED:
            self._gone(meta.uid)
            return
        try:
            requests = requests_of(pod)
        except QuantityError as error:
            self.problems.append(f"pod {meta.namespace}/{meta.name}: {error}")
            return
        if spec.node_name:
            self._told.pop(meta.uid, None)
            self._assignments.pod_bound(meta.uid, spec.node_name, requests)
        elif self._is_ours(pod):
            constraints = constraints_of(spec)
            self._assignments.pod_waits(meta.namespace, meta.name, meta.uid, requests, constraints, spec.priority)
            self._wake.set()

    def _is_ours(self, pod: k.Pod) -> bool:
        """Whether this unbound pod may be placed now."""
        ours = (pod.spec.scheduler_name or DEFAULT_SCHEDULER) == self._name
        return ours and not pod.spec.scheduling_gates and pod.metadata.deletion_timestamp is None

    def _gone(self, uid: str) -> None:
        self._told.pop(uid, None)
        if self._assignments.pod_gone(uid):
            self._wake.set()

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def node_of(node: k.Node) -> Node:
    return Node(
        name=node.metadata.name,
        allocatable=Resources.parse(node.status.allocatable),
        labels=node.metadata.labels,
        taints=tuple(Taint(taint.key, taint.effect, taint.value) for taint in node.spec.taints),
        ready=any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions),
        unschedulable=node.spec.unschedulable,
    )


def constraints_of(spec: k.PodSpec) -> PodConstraints:
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required if affinity else None
    return PodConstraints(
        node_selector=tuple(sorted(spec.node_selector.items())),
        terms=None if required is None else tuple(map(_term, required.node_selector_terms)),
        tolerations=tuple(
            Toleration(toleration.key, toleration.operator or "Equal", toleration.value, toleration.effect)
            for toleration in spec.tolerations
        ),
    )


def _term(term: k.NodeSelectorTerm) -> Term:
    return Term(
        tuple(Requirement(each.key, each.operator, each.values) for each in term.match_expressions),
        tuple(Requirement(each.key, each.operator, each.values) for each in term.match_fields),
    )
