"""What is remembered of Spark's pods beside the scheduler: drivers as they are, executors in a few fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from muster.cluster.resources import Resources
from muster.control.extender import facts, pods
from muster.control.extender.projection import Picture
from muster.control.facts import role_of
from muster.kube import objects as k
from muster.scheduling import model
from muster.scheduling.model import Role

PodId = tuple[str, str]
"""Namespace and name."""


class Executor(msgspec.Struct, frozen=True, gc=False):
    pod: model.Pod
    """As it was told to the scheduler."""
    requests: Resources
    """Its own, whatever its driver's annotations say."""


@dataclass
class KnownApplication:
    """One application, from its pods."""

    key: model.ApplicationKey
    drivers: dict[str, k.Pod] = field(default_factory=dict)
    """By name. More than one: the label was used twice; the first that has not ended counts."""
    executors: dict[str, Executor] = field(default_factory=dict)
    """By name, those that ended too, until they are deleted; in the order in which they were seen."""
    read: pods.Application | None = None
    """What the driver's annotations say."""
    sized: model.Application | None = None
    problem: str = ""
    """Why its sizes are not known."""
    sized_for: k.Pod | None = None
    """The driver, in the state that ``read`` and ``problem`` come from."""
    picture: Picture | None = None
    """Of its reservation object, as it was written last."""
    ended: dict[str, None] = field(default_factory=dict)
    """Names of executors that are over, and not deleted."""
    running_on: Counter[str] = field(default_factory=Counter)
    """Running executors by node."""

    @property
    def soft(self) -> Mapping[str, str]:
        """Executors without a slot, by name: their nodes."""
        return self.picture.soft if self.picture is not None else {}

    @property
    def driver(self) -> k.Pod | None:
        living = (pod for pod in self.drivers.values() if not pods.is_terminated(pod))
        return next(living, None)

    @property
    def shape(self) -> model.PodShape | None:
        return self.sized.executor if self.sized is not None else None

    @property
    def namespace(self) -> str:
        return self.key.partition("/")[0]

    @property
    def app_id(self) -> str:
        return self.key.partition("/")[2]

    def put_executor(self, name: str, executor: Executor) -> None:
        self._count(name, -1)
        self.executors[name] = executor
        self._count(name, 1)

    def drop_executor(self, name: str) -> None:
        """Does nothing for one that is not known."""
        self._count(name, -1)
        self.executors.pop(name, None)

    def _count(self, name: str, sign: int) -> None:
        executor = self.executors.get(name)
        if executor is None:
            return
        pod = executor.pod
        if pod.running and pod.node:
            self.running_on[pod.node] += sign
            if not self.running_on[pod.node]:
                del self.running_on[pod.node]
        if pod.finished and sign > 0:
            self.ended[name] = None
        else:
            self.ended.pop(name, None)

    def running_nodes(self) -> set[str]:
        """Nodes of its running pods, the driver's too."""
        drivers = (driver for driver in self.drivers.values() if driver.status.phase == "Running")
        return {driver.spec.node_name for driver in drivers if driver.spec.node_name} | self.running_on.keys()

    def executor_nodes(self) -> Iterator[str]:
        """Nodes of its executors that are bound and not over."""
        for executor in self.executors.values():
            if executor.pod.node and not executor.pod.finished:
                yield executor.pod.node

    def resize_executors(self) -> list[model.Pod]:
        """Executors that are of another shape now that the driver's annotations are known."""
        shape = self.shape
        assert shape is not None
        changed = []
        for name, executor in self.executors.items():
            requests = shape.requests.largest(executor.requests)
            pod = msgspec.structs.replace(executor.pod, requests=requests, constraints=shape.constraints)
            if pod != executor.pod:
                self.executors[name] = Executor(pod, executor.requests)
                changed.append(pod)
        return changed


class KnownPods:
    """Applications by key, and whose pod each pod is."""

    def __init__(self) -> None:
        self.applications: dict[model.ApplicationKey, KnownApplication] = {}
        self.promises: dict[PodId, str] = {}
        """Executors that are not bound, but had a slot when this process began: its node."""
        self._of: dict[PodId, KnownApplication] = {}

    def __contains__(self, pod_id: PodId) -> bool:
        return pod_id in self._of

    def application_of(self, pod_id: PodId) -> KnownApplication | None:
        return self._of.get(pod_id)

    def see(self, pod: k.Pod) -> KnownApplication:
        """Remember a Spark pod as it is now."""
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        key = facts.key_of(pod)
        known = self._of.get(pod_id)
        if known is not None and known.key != key:
            self.forget(pod_id)
        application = self.applications.get(key)
        if application is None:
            application = self.applications[key] = KnownApplication(key)
        self._of[pod_id] = application
        name = pod.metadata.name
        if role_of(pod) is Role.DRIVER:
            application.drop_executor(name)
            application.drivers[name] = pod
        else:
            application.drivers.pop(name, None)
            told = facts.executor_pod(pod, application.shape, self.promises.get(pod_id, ""))
            application.put_executor(name, Executor(told, facts.requests_of(pod)))
            if pod.spec.node_name:
                self.promises.pop(pod_id, None)
        return application

    def forget(self, pod_id: PodId, uid: str = "") -> KnownApplication | None:
        """A pod is gone; whose it was. ``uid``: of that very pod, not of a successor of its name."""
        application = self._of.get(pod_id)
        if application is None or (uid and self.uid_of(pod_id) not in ("", uid)):
            return None
        del self._of[pod_id]
        self.promises.pop(pod_id, None)
        application.drivers.pop(pod_id[1], None)
        application.drop_executor(pod_id[1])
        if not application.drivers and not application.executors:
            del self.applications[application.key]
        return application

    def uid_of(self, pod_id: PodId) -> str | None:
        """``None`` for a pod that is not known."""
        application = self._of.get(pod_id)
        if application is None:
            return None
        driver = application.drivers.get(pod_id[1])
        return driver.metadata.uid if driver is not None else application.executors[pod_id[1]].pod.uid

    def node_of(self, pod_id: PodId) -> str | None:
        """The node a pod is bound to, "" while it is not; ``None`` for one that is not known, or over."""
        application = self._of.get(pod_id)
        if application is None:
            return None
        driver = application.drivers.get(pod_id[1])
        if driver is not None:
            return None if pods.is_terminated(driver) else driver.spec.node_name
        executor = application.executors[pod_id[1]].pod
        return None if executor.finished else executor.node
