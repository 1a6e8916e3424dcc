"""Everything that happened to pods, nodes and gangs, in the order in which it happened, and what must be true of it.

Pure, and apart from the code under test: objects are plain JSON, amounts are read here. Watches of different resources
are not ordered among each other, but resourceVersions are: all of one cluster come from one counter of etcd.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

GATE = "muster.dev/gang"
SLOT = "muster.dev/slot"
EXTRA = "muster.dev/extra"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}

Amounts = dict[str, int]
"""``cpu`` in millicores, ``memory`` in bytes, ``pods``."""


@dataclass(frozen=True)
class Change:
    """One object as it became at a revision; ``object`` None: it is gone."""

    revision: int
    kind: str
    """``pods``, ``nodes`` or ``gangs``."""
    namespace: str
    name: str
    object: Mapping[str, Any] | None


@dataclass(frozen=True)
class PodView:
    uid: str
    role: str
    """``driver``, ``executor`` or ``""``."""
    application: str
    created: str
    node: str
    slot: str
    """The node that Muster wrote on it."""
    extra: bool
    gated: bool
    ended: bool
    requests: Amounts

    @property
    def place(self) -> str:
        """The node whose room it takes: bound to it, or on its way there."""
        return "" if self.ended or self.gated else self.node or self.slot


@dataclass(frozen=True)
class GangView:
    application: str
    minimum: int
    executor: Amounts
    driver: Amounts
    driver_node: str
    slots: Mapping[str, int]
    reserved: bool


LASTING = 100
"""Changes in the cluster after which an overcommitted node is no passing state any more."""


@dataclass
class Cluster:
    """The state at one revision."""

    nodes: dict[str, Amounts] = field(default_factory=dict)
    pods: dict[tuple[str, str], PodView] = field(default_factory=dict)
    gangs: dict[tuple[str, str], GangView] = field(default_factory=dict)

    def driver(self, application: str) -> PodView | None:
        return next((p for p in self.pods.values() if p.application == application and p.role == "driver"), None)

    def executors(self, application: str) -> list[PodView]:
        return [p for p in self.pods.values() if p.application == application and p.role == "executor"]

    def free(self, node: str, without: Collection[str] = ()) -> Amounts:
        """Allocatable minus pods on the node or on their way to it, minus unfilled slots. Negative: overcommitted.

        ``without``: uids of pods that are not counted.
        """
        left = self.free_of_pods(node, without)
        spare: list[tuple[GangView, int, int]] = []
        for gang in self.gangs.values():
            unfilled, movable = self._unfilled(gang, node)
            _take(left, gang.executor, unfilled)
            spare.append((gang, unfilled, movable))
            if gang.driver_node == node and self._driver_is_awaited(gang):
                _take(left, gang.driver, 1)
        for gang, unfilled, movable in spare:
            # an executor that went elsewhere leaves a slot behind, and Muster says which when it next writes the gang
            for _ in range(min(unfilled, movable)):
                if min(left.values()) < 0:
                    _take(left, gang.executor, -1)
        return left

    def free_of_pods(self, node: str, without: Collection[str] = ()) -> Amounts:
        """Allocatable minus pods on the node or on their way to it."""
        left = dict(self.nodes[node])
        for pod in self.pods.values():
            if pod.place == node and pod.uid not in without:
                _take(left, pod.requests, 1)
        return left

    def account(self, node: str) -> str:
        """Who holds what of a node's room, for people."""
        pods = [
            f"{name} {pod.requests['cpu']}m{' (extra)' if pod.extra else ''}"
            for (_, name), pod in self.pods.items()
            if pod.place == node
        ]
        slots = [
            f"{count} x {gang.executor['cpu']}m unfilled of {gang.application} ({dict(gang.slots)}, {spare} to spare)"
            for gang in self.gangs.values()
            for count, spare in [self._unfilled(gang, node)]
            if count
        ]
        drivers = [
            f"the driver of {gang.application} to come"
            for gang in self.gangs.values()
            if gang.driver_node == node and self._driver_is_awaited(gang)
        ]
        return "; ".join((*pods, *slots, *drivers))

    def _unfilled(self, gang: GangView, node: str) -> tuple[int, int]:
        """Slots of a gang on a node without an executor, and how many slots the gang has more than it needs."""
        driver = self.driver(gang.application)
        if not gang.reserved or driver is None or driver.ended:
            return 0, 0
        placed = [executor for executor in self.executors(gang.application) if executor.place]
        filled = Counter(executor.place for executor in placed if not executor.extra)
        left = {name: max(0, count - filled[name]) for name, count in gang.slots.items()}
        # an extra stands in for an executor in a slot that has ended: the minimum is a number, not certain pods
        needed = max(0, gang.minimum - len(placed))
        return left.get(node, 0), max(0, sum(left.values()) - needed)

    def _driver_is_awaited(self, gang: GangView) -> bool:
        driver = self.driver(gang.application)
        return gang.reserved and driver is not None and not driver.ended and not driver.place


class History:
    """Takes changes in any order; ``judge`` replays them in the order of their revisions."""

    def __init__(self) -> None:
        self._changes: dict[tuple[int, str, str, str], Change] = {}

    def add(self, change: Change) -> None:
        self._changes[change.revision, change.kind, change.namespace, change.name] = change

    def __len__(self) -> int:
        return len(self._changes)

    def now(self) -> Cluster:
        """The state after everything that is known."""
        return self.judge({})[0]

    def judge(self, minimum: Mapping[str, int]) -> tuple[Cluster, Verdict]:
        """The last state, and what was wrong on the way; ``minimum``: executors each application's gang must have."""
        cluster, verdict = Cluster(), Verdict()
        for _, change in sorted(self._changes.items(), key=lambda item: item[0]):
            _step(cluster, verdict, change, minimum)
        verdict.breaches += [doubt.message for doubt in verdict._doubts.values() if not doubt.told]
        return cluster, verdict


@dataclass
class Verdict:
    breaches: list[str] = field(default_factory=list)
    ungated: set[str] = field(default_factory=set)
    """Uids of Spark pods that no webhook has seen: by design scheduled in the ordinary way, and nothing is promised."""
    released: dict[str, int] = field(default_factory=dict)
    """Revision at which each application's driver was released."""
    _drivers: dict[str, str] = field(default_factory=dict)
    _doubts: dict[str, _Doubt] = field(default_factory=dict)
    """Nodes that are overcommitted now."""


@dataclass
class _Doubt:
    message: str
    changes: int = 0
    """Since then."""
    told: bool = False


def startable(cluster: Cluster, executors: Mapping[str, tuple[int, Amounts]]) -> str:
    """The oldest application that waits although all of its gang would fit, "" when there is none.

    ``executors``: number and size for each application. First in, first out: only the oldest counts.
    """
    waiting = sorted(
        (pod.created, application, pod)
        for (namespace, _), pod in cluster.pods.items()
        if pod.role == "driver" and pod.gated and (application := pod.application) in executors
    )
    if not waiting:
        return ""
    _, application, driver = waiting[0]
    count, size = executors[application]
    free = {node: cluster.free(node) for node in cluster.nodes}
    return application if _fits(free, driver.requests, size, count) else ""


def view_of_pod(pod: Mapping[str, Any]) -> PodView:
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    requests = {"cpu": 0, "memory": 0, "pods": 1}
    for container in spec["containers"]:
        _add(requests, _amounts(container.get("resources", {}).get("requests", {})))
    return PodView(
        uid=metadata["uid"],
        role=labels.get("spark-role", ""),
        application=f"{metadata['namespace']}/{labels['spark-app-selector']}" if "spark-app-selector" in labels else "",
        created=metadata.get("creationTimestamp", ""),
        node=spec.get("nodeName", ""),
        slot=annotations.get(SLOT, ""),
        extra=annotations.get(EXTRA) == "true",
        gated=any(gate["name"] == GATE for gate in spec.get("schedulingGates", [])),
        ended=status.get("phase") in ("Succeeded", "Failed"),
        requests=requests,
    )


def view_of_gang(gang: Mapping[str, Any]) -> GangView:
    metadata, spec = gang["metadata"], gang["spec"]
    slots: dict[str, int] = {}
    for slot in spec.get("slots", []):
        slots[slot["node"]] = slots.get(slot["node"], 0) + slot["count"]
    return GangView(
        application=f"{metadata['namespace']}/{spec['applicationId']}",
        minimum=spec.get("minExecutors", 0),
        executor=_shape((spec.get("executor") or {}).get("shape", {})),
        driver=_shape((spec.get("driver") or {}).get("shape", {})),
        driver_node=spec.get("driverNode", ""),
        slots=slots,
        reserved=spec.get("revision", 0) > 0,
    )


def _step(cluster: Cluster, verdict: Verdict, change: Change, minimum: Mapping[str, int]) -> None:
    key = (change.namespace, change.name)
    match change.kind:
        case "nodes":
            if change.object is None:
                cluster.nodes.pop(change.name, None)
            else:
                cluster.nodes[change.name] = _amounts(change.object["status"]["allocatable"])
        case "gangs":
            if change.object is None:
                cluster.gangs.pop(key, None)
            else:
                gang = cluster.gangs[key] = view_of_gang(change.object)
                _judge_slots(cluster, verdict, change.revision, gang.application)
        case "pods":
            before = cluster.pods.pop(key, None)
            if change.object is not None:
                pod = cluster.pods[key] = view_of_pod(change.object)
                if pod == before:
                    return  # only its status became another
                if before is not None and before.uid != pod.uid:
                    before = None
                _judge_pod(cluster, verdict, change, before, pod, minimum)
    _judge_nodes(cluster, verdict, change)


def _judge_pod(
    cluster: Cluster,
    verdict: Verdict,
    change: Change,
    before: PodView | None,
    pod: PodView,
    minimum: Mapping[str, int],
) -> None:
    if not pod.role:
        return
    where = f"revision {change.revision}: {pod.role} {change.namespace}/{change.name}"
    if before is None and not pod.gated and not pod.slot:
        verdict.ungated.add(pod.uid)
    if pod.role == "executor":
        _judge_slots(cluster, verdict, change.revision, pod.application)
        return
    if verdict._drivers.setdefault(pod.application, pod.uid) != pod.uid:
        verdict.breaches.append(f"{where} is a second driver of its application")
    if before is not None and before.gated and not pod.gated:
        verdict.released[pod.application] = change.revision
        gang = next((g for g in cluster.gangs.values() if g.application == pod.application), None)
        count = minimum.get(pod.application)
        if gang is None or not gang.reserved:
            verdict.breaches.append(f"{where} released without a reservation")
        elif count is not None and (sum(gang.slots.values()) != count or gang.minimum != count):
            verdict.breaches.append(f"{where} released with {dict(gang.slots)} reserved, its minimum is {count}")
        elif gang.driver_node != pod.slot:
            verdict.breaches.append(f"{where} released to {pod.slot!r}, reserved is {gang.driver_node!r}")
    if before is not None and before.node and before.node != pod.node:
        verdict.breaches.append(f"{where} moved from {before.node} to {pod.node}")


def _judge_slots(cluster: Cluster, verdict: Verdict, revision: int, application: str) -> None:
    """No slot with two pods: executors that Muster placed in slots of their gang, against the slots it has."""
    gang = next((gang for gang in cluster.gangs.values() if gang.application == application), None)
    if gang is None or not gang.reserved:
        return
    placed = sum(1 for pod in cluster.executors(application) if pod.place and pod.slot and not pod.extra)
    if placed > gang.minimum:
        verdict.breaches.append(f"revision {revision}: {placed} executors in the {gang.minimum} slots of {application}")


def _judge_nodes(cluster: Cluster, verdict: Verdict, change: Change) -> None:
    """Overcommitted by pods: at once. By slots: if it lasts, or is so at the end.

    Reservations are written one by one. One that has lost a slot may still say so for a moment when the next one, which
    got that room, is there already; a new leader would tell by the pods and the order of starting which one counts.
    """
    for node in cluster.nodes:
        free = cluster.free(node, verdict.ungated)
        if min(free.values()) >= 0:
            verdict._doubts.pop(node, None)
            continue
        doubt = verdict._doubts.get(node)
        if doubt is None:
            doubt = verdict._doubts[node] = _Doubt(
                f"revision {change.revision}: {change.kind} {change.namespace}/{change.name}: "
                f"node {node} is overcommitted, free: {free}, on it: {cluster.account(node)}"
            )
        doubt.changes += 1
        if not doubt.told and (
            doubt.changes > LASTING or min(cluster.free_of_pods(node, verdict.ungated).values()) < 0
        ):
            doubt.told = True
            verdict.breaches.append(doubt.message)


def _fits(free: Mapping[str, Amounts], driver: Amounts, executor: Amounts, count: int) -> bool:
    def room(left: Amounts) -> int:
        return min(max(0, left[name]) // amount for name, amount in executor.items() if amount)

    for node in free:
        left = dict(free[node])
        _take(left, driver, 1)
        if min(left.values()) >= 0 and sum(room(left if n == node else free[n]) for n in free) >= count:
            return True
    return False


def _shape(shape: Mapping[str, Any]) -> Amounts:
    return {"cpu": 0, "memory": 0, "pods": 1} | _amounts(shape.get("requests", {})) | {"pods": 1}


def _amounts(quantities: Mapping[str, Any]) -> Amounts:
    found = {}
    for name, text in quantities.items():
        if name == "cpu":
            found[name] = _millis(str(text))
        elif name in ("memory", "pods"):
            found[name] = _whole(str(text))
    return found


def _millis(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else round(float(text) * 1000)


def _whole(text: str) -> int:
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


def _add(total: Amounts, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount


def _take(left: Amounts, amounts: Mapping[str, int], count: int) -> None:
    for name, amount in amounts.items():
        left[name] = left.get(name, 0) - amount * count
