"""Watches everything that happens to pods, gangs and ConfigMaps, and judges it afterwards from the API's record alone.

All objects of a cluster live in one etcd, so their resource versions are in the order in which they were written,
whatever the order in which separate watches tell of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from muster.cluster.resources import Resources
from muster.devcluster.pod_status import requests_of
from muster.kube.client import Client
from muster.kube.kinds import CONFIG_MAPS, PODS, Resource
from muster.kube.list_watch import Added, Deleted, ListWatch, Modified, WatchedEvent
from muster.kube.objects import ConfigMap, Pod
from muster.kube.resources import GANGS, Gang

ENDED = ("Succeeded", "Failed")


class State(NamedTuple):
    """An object as it was written."""

    revision: int
    seconds: float
    """When the onlooker saw it, on the monotonic clock."""
    object: Any
    """``Pod``, ``Gang`` or ``ConfigMap``."""
    gone: bool


class Onlooker:
    """The states of every object of one namespace, by kind and uid, in the order in which they were written."""

    def __init__(self) -> None:
        self.histories: dict[type, dict[str, list[State]]] = {Pod: {}, Gang: {}, ConfigMap: {}}

    def note(self, event: WatchedEvent[Any]) -> None:
        if isinstance(event, Added | Modified | Deleted) and event.object is not None:
            meta = event.object.metadata
            state = State(int(meta.resource_version), time.monotonic(), event.object, isinstance(event, Deleted))
            self.histories[type(event.object)].setdefault(meta.uid, []).append(state)

    def driver(self, name: str) -> list[State]:
        """The driver's states; ``name`` is what was given to spark-submit, unlike any other's."""
        [history] = [each for each in self.drivers() if _label(each, "spark-app-name") == name]
        return history

    def drivers(self) -> list[list[State]]:
        return [each for each in self.histories[Pod].values() if _label(each, "spark-role") == "driver"]

    def executors(self, application: str) -> list[list[State]]:
        """The states of each executor of a ``spark-app-selector``, in the order of their creation."""
        every = [each for each in self.histories[Pod].values() if _label(each, "spark-role") == "executor"]
        return sorted(each for each in every if _label(each, "spark-app-selector") == application)

    def gang(self, application: str) -> list[State]:
        """The states of a gang, named by its ``spark-app-selector``; none when there never was one."""
        for history in self.histories[Gang].values():
            if history[0].object.metadata.name == application:
                return history
        return []

    def application(self, name: str) -> str:
        """The ``spark-app-selector`` of an application of cluster mode (executors may bear another name)."""
        return _label(self.driver(name), "spark-app-selector")

    def only_application(self) -> str:
        """The ``spark-app-selector`` when all Spark pods have the same."""
        [selector] = {_label(each, "spark-app-selector") for each in self.histories[Pod].values()} - {""}
        return selector

    def config_map(self, driver_uid: str) -> list[State]:
        """The states of the ConfigMap that spark-submit makes for a driver."""
        for history in self.histories[ConfigMap].values():
            meta = history[0].object.metadata
            if meta.name.startswith("spark-drv-") and any(o.uid == driver_uid for o in meta.owner_references):
                return history
        return []


@asynccontextmanager
async def onlooker(client: Client, namespace: str) -> AsyncIterator[Onlooker]:
    watcher = Onlooker()
    kinds: tuple[Resource[Any], ...] = (PODS, GANGS, CONFIG_MAPS)
    tasks = [asyncio.create_task(ListWatch(client, kind, namespace).run(watcher.note)) for kind in kinds]
    try:
        yield watcher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def first(history: list[State], holds: Callable[[Any], bool]) -> State | None:
    """The first state for which it holds."""
    return next((state for state in history if holds(state.object)), None)


def born_bound(executor: list[State]) -> bool:
    """It had its node when the API server stored it first, by Muster's hand: no scheduler was asked."""
    pod: Pod = executor[0].object
    return bool(pod.spec.node_name) and pod.metadata.annotations.get("muster.dev/mode") == "bind"


def is_extra(executor: list[State]) -> bool:
    return executor[-1].object.metadata.annotations.get("muster.dev/extra") == "true"


def nodes_of(histories: list[list[State]]) -> Counter[str]:
    return Counter(history[-1].object.spec.node_name for history in histories)


def half_started(watcher: Onlooker) -> list[str]:
    """Drivers that could be scheduled before their whole minimum was written down as reserved, for people."""
    found = []
    for driver in watcher.drivers():
        released = first(driver, lambda pod: not pod.spec.scheduling_gates)
        if released is None:
            continue
        name = released.object.metadata.name
        gang = watcher.gang(_label(driver, "spark-app-selector"))
        written = [state.object.spec for state in gang if state.revision < released.revision]
        if not written:
            found.append(f"{name} was released without a gang")
        elif (held := sum(slot.count for slot in written[-1].slots)) < written[-1].min_executors:
            found.append(f"{name} was released with {held} of {written[-1].min_executors} slots")
    return found


def overcommitted(watcher: Onlooker, allocatable: Mapping[str, Resources]) -> list[str]:
    """Moments when a node's pods and the slots that are kept there did not fit it, for people."""
    return [
        f"revision {revision}: {node} is to hold {taken.quantities()}"
        for revision, loads in _loads(watcher)
        for node, taken in loads.items()
        if any(amount > allocatable[node].get(name) for name, amount in taken.amounts if name in ("cpu", "memory"))
    ]


def _loads(watcher: Onlooker) -> Iterator[tuple[int, dict[str, Resources]]]:
    """What pods and unfilled slots take of each node, after every write."""
    states = (state for kind in (Pod, Gang) for history in watcher.histories[kind].values() for state in history)
    pods: dict[str, Pod] = {}
    gangs: dict[str, Gang] = {}
    for state in sorted(states, key=lambda state: state.revision):
        living: dict[str, Any] = pods if isinstance(state.object, Pod) else gangs
        uid = state.object.metadata.uid
        if state.gone:
            living.pop(uid, None)
        else:
            living[uid] = state.object
        loads: dict[str, Resources] = {}
        for pod in pods.values():
            if pod.spec.node_name and pod.status.phase not in ENDED:
                _add(loads, pod.spec.node_name, requests_of(pod))
        for gang in gangs.values():
            _add_unfilled(loads, gang, [pod for pod in pods.values() if _belongs(pod, gang)])
        yield state.revision, loads


def _add_unfilled(loads: dict[str, Resources], gang: Gang, pods: list[Pod]) -> None:
    spec = gang.spec
    [driver] = [pod for pod in pods if pod.metadata.labels["spark-role"] == "driver"] or [None]
    if driver is None or driver.status.phase in ENDED or spec.executor is None or spec.driver is None:
        return
    if spec.driver_node and not driver.spec.node_name:
        _add(loads, spec.driver_node, Resources.parse(spec.driver.shape.requests))
    filled = Counter(
        pod.metadata.annotations["muster.dev/slot"]
        for pod in pods
        if pod.status.phase not in ENDED
        and "muster.dev/slot" in pod.metadata.annotations
        and pod.metadata.annotations.get("muster.dev/extra") != "true"
    )
    each = Resources.parse(spec.executor.shape.requests)
    for slot in spec.slots:
        _add(loads, slot.node, each.times(max(slot.count - filled[slot.node], 0)))


def _add(loads: dict[str, Resources], node: str, amount: Resources) -> None:
    loads[node] = loads.get(node, Resources()) + amount


def _belongs(pod: Pod, gang: Gang) -> bool:
    return pod.metadata.labels.get("spark-app-selector") == gang.metadata.name


def _label(history: list[State], label: str) -> str:
    labels: dict[str, str] = history[0].object.metadata.labels
    return labels.get(label, "")


def milestones(watcher: Onlooker, name: str) -> dict[str, State]:
    """What happens to an application of cluster mode, in the order in which it should."""
    application = watcher.application(name)
    driver, executors, gang = watcher.driver(name), watcher.executors(application), watcher.gang(application)

    def running(pod: Pod) -> bool:
        return pod.status.phase == "Running"

    moments: dict[str, State | None] = {
        "driver created": driver[0],
        "ConfigMap created": next(iter(watcher.config_map(driver[0].object.metadata.uid)), None),
        "gang reserved": first(gang, lambda gang: bool(gang.spec.driver_node)),
        "driver released": first(driver, lambda pod: not pod.spec.scheduling_gates),
        "driver bound": first(driver, lambda pod: bool(pod.spec.node_name)),
        "driver runs": first(driver, running),
        "first executor created": executors[0][0],
        "first executor bound": first(executors[0], lambda pod: bool(pod.spec.node_name)),
        "first executor runs": first(executors[0], running),
        "driver ended": first(driver, lambda pod: pod.status.phase in ENDED),
    }
    return {what: state for what, state in moments.items() if state is not None}
