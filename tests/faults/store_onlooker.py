"""Looks at every change in the API server's store, and says what must never be seen there.

It knows the rules, not Muster: requests and annotations of pods, ``spec`` of gangs, allocatable of nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from muster.cluster.resources import Resources
from muster.devcluster.storage import Change, Object, Store
from muster.devcluster.virtual_application import VirtualApplication

GATE = "muster.dev/gang"
SLOT, EXTRA = "muster.dev/slot", "muster.dev/extra"
GANGS = "gangs.muster.dev"
_UNREPEATABLE = ("secrets", "mutatingwebhookconfigurations.admissionregistration.k8s.io")
"""Keys and certificates are really random."""


LASTING = 30.0
"""Seconds, more than the longest delay of a request.

Reservations are written one by one: one that has lost a slot may still say so when the next one, which got that
room, is there already.
"""


class Onlooker:
    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self.wanted: dict[str, VirtualApplication] = {}
        """By application id."""
        self.violations: list[str] = []
        self.history: list[str] = []
        """Every write, with a digest of what was written."""
        self.reserved: list[str] = []
        """Application ids in the order in which they were first reserved."""
        self.ungated: set[str] = set()
        """Applications whose driver was created while nobody answered for Muster."""
        self._nodes_lost = False
        self._doubts: dict[str, tuple[float, str]] = {}
        """Nodes that are overcommitted by what is written of reservations: since when, and how."""
        self._executor_ended: dict[str, int] = {}
        self._spec_written: dict[str, int] = {}
        """Application id → resource version of the newest end of an executor, and of its gang's newest ``spec``."""
        store.listen(self._see)

    @property
    def digest(self) -> str:
        return blake2b("\n".join(self.history).encode(), digest_size=8).hexdigest()

    def _see(self, collection: str, change: Change) -> None:
        data = change.record.data
        if collection in _UNREPEATABLE or b"BEGIN CERTIFICATE" in data:
            data = b""
        digest = blake2b(data, digest_size=6).hexdigest()
        name = "/".join(change.record.key)
        self.history.append(f"{self._now():.6f} {change.verb} {collection} {name} {digest}")
        if collection == "pods" and _role(change.record.obj) == "executor" and _is_over(change):
            self._executor_ended[_application(change.record.obj)] = change.record.version
        if collection == GANGS and (change.before is None or change.before.obj["spec"] != change.record.obj["spec"]):
            self._spec_written[change.record.key[1]] = change.record.version
        if collection == "pods" and change.verb != "DELETED":
            self._pod(change.record.obj, change.before.obj if change.before else None)
        elif collection == GANGS and change.verb != "DELETED":
            self._gang(change.record.obj)
        elif collection == "nodes" and change.verb == "DELETED":
            self._nodes_lost = True

    def _pod(self, pod: Object, before: Object | None) -> None:
        if not _application(pod):
            return
        if _role(pod) == "driver":
            self._driver(pod, before)
        node, node_before = _place(pod), _place(before) if before else ""
        if node_before and node != node_before:
            self._violated(f"{_name(pod)} was moved from {node_before} to {node}")
        if node and not node_before:
            self._check_node(node, f"{_name(pod)} came")
            self._check_slots_are_single(_application(pod))

    def _driver(self, pod: Object, before: Object | None) -> None:
        application = _application(pod)
        if before is None and not _is_gated(pod):
            self.ungated.add(application)
        if before is not None and _is_gated(before) and not _is_gated(pod):
            gang = self._gang_of(application)
            if not _place(pod):
                self._violated(f"{_name(pod)} was released without a gang")
            elif gang is None or gang["spec"].get("driverNode") != _place(pod):
                self._violated(f"{_name(pod)} was released before its reservation was durable")
            elif application not in self.ungated:
                self._check_all_or_nothing(pod)
        bound = pod["spec"].get("nodeName") and not (before or pod)["spec"].get("nodeName")
        # a node that is lost in between takes slots along: they are owed then, and the driver cannot be called back
        if bound and application not in self.ungated and not self._nodes_lost:
            self._check_all_or_nothing(pod)

    def _check_all_or_nothing(self, driver: Object) -> None:
        application = _application(driver)
        wanted, gang = self.wanted[application].executors, self._gang_of(application)
        slots = _slots(gang) if gang else {}
        if sum(slots.values()) < wanted:
            self._violated(f"{_name(driver)} starts with {sum(slots.values())} of {wanted} slots")
        nodes = self._store.collection("nodes")
        if not self._nodes_lost and any(nodes.get("", node) is None for node in slots):
            self._violated(f"{_name(driver)} starts with slots on nodes that do not exist: {sorted(slots)}")

    def _gang(self, gang: Object) -> None:
        application = gang["metadata"]["name"]
        slots = _slots(gang)
        if slots and application not in self.reserved:
            self.reserved.append(application)
        for node in slots:
            self._check_node(node, f"gang {application} was written")

    def _check_slots_are_single(self, application: str) -> None:
        gang = self._gang_of(application)
        if gang is not None and _slots(gang):
            filling = sum(_fills_slot(pod) for pod in self._pods() if _application(pod) == application)
            if filling > gang["spec"]["minExecutors"]:
                self._violated(f"{application}: {filling} pods in {gang['spec']['minExecutors']} slots")

    def _check_node(self, name: str, why: str) -> None:
        record = self._store.collection("nodes").get("", name)
        if record is None:
            return
        here = [pod for pod in self._pods() if _place(pod) == name]
        if any(not _annotations(pod).get(SLOT) for pod in here):
            return  # placed by others while nobody answered for Muster: what it reserved there gives way
        allocatable = Resources.parse(record.obj["status"]["allocatable"])
        bound = sum((_requests(pod) for pod in here), Resources())
        # An executor above the minimum may take room that its gang has given up but not yet durably: a leader that
        # starts in between sees the pod, which counts first
        promised = sum((_requests(pod) for pod in here if _annotations(pod).get(EXTRA) != "true"), Resources())
        promised = sum(self._reserved_on(name), promised)
        over = _over(bound, allocatable)
        if over:
            self._violated(f"{name} is overcommitted by pods in {over}: {why}")
        over = _over(promised, allocatable)
        if not over:
            self._doubts.pop(name, None)
            return
        since, first = self._doubts.setdefault(name, (self._now(), f"{over}: {why}"))
        if self._now() - since > LASTING:
            self._violated(f"{name} is overcommitted by reservations since {since:.3f} in {first}")

    def check_all_nodes(self) -> None:
        """What lasts may have been caused long ago."""
        for name in list(self._doubts):
            self._check_node(name, "at the end")

    def _reserved_on(self, node: str) -> Iterator[Resources]:
        """What unfilled slots and slots of gated drivers take, as lenient as the gangs' age allows."""
        by_application: defaultdict[str, list[Object]] = defaultdict(list)
        for pod in self._pods():
            by_application[_application(pod)].append(pod)
        for record in self._store.collection(GANGS).scan():
            spec = record.obj["spec"]
            pods = by_application[spec["applicationId"]]
            driver = next((pod for pod in pods if _role(pod) == "driver"), None)
            if driver is None:
                continue  # it has ended: what it held is free
            if _is_gated(driver) and spec.get("driverNode") == node:
                yield _requests(driver)
            if self._is_outdated(spec["applicationId"]):
                continue
            filled: defaultdict[str, int] = defaultdict(int)
            for pod in pods:
                if _role(pod) == "executor":  # also those above the minimum: they move up when one of it ends
                    filled[_place(pod)] += 1
            left = {at: max(0, count - filled[at]) for at, count in _slots(record.obj).items()}
            surplus = sum(left.values()) - max(0, spec["minExecutors"] - sum(filled.values()) + filled[""])
            for _ in range(max(0, left.get(node, 0) - max(0, surplus))):
                yield Resources.parse(spec["executor"]["shape"]["requests"])

    def _is_outdated(self, application: str) -> bool:
        """Slots follow the executors that are left when others end; where to is written a little later.

        Until then another gang may have been given the room, whose reservation is the one that counts.
        """
        return self._executor_ended.get(application, 0) > self._spec_written.get(application, 0)

    def _pods(self) -> Iterator[Object]:
        """Those that take room, or will."""
        nodes = self._store.collection("nodes")
        for record in self._store.collection("pods").scan():
            pod = record.obj
            bound = pod["spec"].get("nodeName", "")
            lost = bound and nodes.get("", bound) is None
            if not lost and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                yield pod

    def _gang_of(self, application: str) -> Object | None:
        records = self._store.collection(GANGS).scan()
        return next((r.obj for r in records if r.obj["metadata"]["name"] == application), None)

    def _violated(self, what: str) -> None:
        self.violations.append(f"at {self._now():.3f}: {what}")


def _over(used: Resources, allocatable: Resources) -> str:
    beyond = [(name, amount, allocatable.get(name)) for name, amount in used.amounts if amount > allocatable.get(name)]
    return ", ".join(f"{name}, {amount} of {room}" for name, amount, room in beyond)


def _is_over(change: Change) -> bool:
    return change.verb == "DELETED" or change.record.obj["status"].get("phase") in ("Succeeded", "Failed")


def _name(pod: Object) -> str:
    name: str = pod["metadata"]["name"]
    return name


def _labels(pod: Object) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def _application(pod: Object) -> str:
    return _labels(pod).get("spark-app-selector", "")


def _role(pod: Object) -> str:
    return _labels(pod).get("spark-role", "")


def _place(pod: Object) -> str:
    """Where it is or is going to be."""
    return str(pod["spec"].get("nodeName") or _annotations(pod).get(SLOT, ""))


def _annotations(pod: Object) -> Mapping[str, Any]:
    return pod["metadata"].get("annotations") or {}


def _is_gated(pod: Object) -> bool:
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates") or ())


def _fills_slot(pod: Object) -> bool:
    """An executor to whom Muster gave one of its gang's slots."""
    notes = _annotations(pod)
    return _role(pod) == "executor" and bool(notes.get(SLOT)) and notes.get(EXTRA) != "true"


def _slots(gang: Object) -> dict[str, int]:
    slots: defaultdict[str, int] = defaultdict(int)
    for slot in gang["spec"].get("slots") or ():
        slots[slot["node"]] += slot["count"]
    return dict(slots)


def _requests(pod: Object) -> Resources:
    """Spark's pods have one container and no init containers here."""
    containers = pod["spec"]["containers"]
    asked = (Resources.parse(container["resources"].get("requests") or {}) for container in containers)
    return sum(asked, Resources.parse({"pods": "1"}))
