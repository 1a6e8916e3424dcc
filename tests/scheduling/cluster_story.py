"""Scenarios as stories: ``cluster.with_nodes(3).submit(static(4)).expect_held("WaitingForCapacity")``.

``Cluster`` plays Kubernetes around one ``Scheduler``: it creates pods as the API server does with the webhook's answer,
binds released ones as kube-scheduler does, and tells the scheduler of every change, as the watches do.
"""

from __future__ import annotations

from itertools import count

import msgspec

from muster.cluster.constraints import PodConstraints, Taint, Toleration
from muster.cluster.nodes import Node
from muster.cluster.resources import Resources
from muster.queueing.config import QueueConfig
from muster.scheduling import recording
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import (
    Appraise,
    Condition,
    Decision,
    Demand,
    Evict,
    Place,
    Publish,
    ReleaseDriver,
    Reserve,
)
from muster.scheduling.events import (
    ApplicationFound,
    ApplicationInvalid,
    Event,
    NodeGone,
    NodeSeen,
    PodGone,
    PodSeen,
    QueuesChanged,
    ReservationRestored,
    Synced,
    TimePassed,
)
from muster.scheduling.explaining import Explanation
from muster.scheduling.model import (
    Application,
    Choice,
    GangStatus,
    Mode,
    Phase,
    Placement,
    Pod,
    PodRef,
    PodShape,
    Reservation,
    Role,
)
from muster.scheduling.scheduler import Scheduler

GIB = 2**30
DRIVER = Resources.of(cpu=1000, memory=2 * GIB)
EXECUTOR = Resources.of(cpu=2000, memory=4 * GIB)
PodId = tuple[str, str]


class Spec(msgspec.Struct, frozen=True):
    """What is submitted; the default executor takes a quarter of the default node."""

    minimum: int
    maximum: int | None
    driver: Resources = DRIVER
    executor: Resources = EXECUTOR
    constraints: PodConstraints = PodConstraints()
    pool: str = ""
    name: str = ""
    queue: str = "default"
    user: str = ""
    priority: int = 0
    run_seconds: float | None = None

    def in_pool(self, pool: str) -> Spec:
        selector = (*self.constraints.node_selector, ("muster.dev/pool", pool))
        return msgspec.structs.replace(
            self, pool=pool, constraints=msgspec.structs.replace(self.constraints, node_selector=selector)
        )

    def named(self, name: str) -> Spec:
        return msgspec.structs.replace(self, name=name)

    def queued(self, queue: str, user: str = "", priority: int = 0) -> Spec:
        return msgspec.structs.replace(self, queue=queue, user=user, priority=priority)

    def running_for(self, seconds: float | None) -> Spec:
        """It is expected to end this long after its reservation."""
        return msgspec.structs.replace(self, run_seconds=seconds)

    def with_executor(self, **amounts: int) -> Spec:
        return msgspec.structs.replace(self, executor=Resources.of(**amounts))

    def with_driver(self, **amounts: int) -> Spec:
        return msgspec.structs.replace(self, driver=Resources.of(**amounts))

    def tolerating(self, key: str) -> Spec:
        tolerations = (Toleration(key=key, operator="Exists"),)
        return msgspec.structs.replace(
            self, constraints=msgspec.structs.replace(self.constraints, tolerations=tolerations)
        )


def static(executors: int) -> Spec:
    """``spark.executor.instances``."""
    return Spec(executors, executors)


def dynamic(minimum: int, maximum: int | None = None) -> Spec:
    """``spark.dynamicAllocation.enabled``."""
    return Spec(minimum, maximum)


class Cluster:
    """Nodes, pods, a clock, and the scheduler under test. ``carries_out`` False: decisions are lost, as in a crash."""

    def __init__(self, config: SchedulerConfig | None = None, *, synced: bool = True) -> None:
        self.config = config if config is not None else SchedulerConfig()
        self.scheduler = Scheduler(self.config)
        self.at = 1000.0
        self.nodes: dict[str, Node] = {}
        self.pods: dict[PodId, Pod] = {}
        self.applications: dict[str, Application] = {}
        self.invalid: dict[str, ApplicationInvalid] = {}
        self.reservations: dict[str, tuple[Application, Reservation]] = {}
        self.statuses: dict[str, GangStatus] = {}
        self.decisions: list[Decision] = []
        self.ending: list[tuple[float, PodRef]] = []
        """Pods that were evicted, and when their grace is over."""
        self.log: list[recording.Input | recording.Output] = []
        self.queues: tuple[QueueConfig, ...] = ()
        self.carries_out = True
        self.writes = True
        """False: reservations are lost too, as when the API server is away until the crash."""
        self._uids = count(1)
        self._app_numbers = count(1)
        self._node_numbers = count(1)
        if synced:
            self.tell(Synced(self.at))

    # What happens

    def tell(self, event: Event) -> list[Decision]:
        """Hand one event over and carry out what is decided."""
        self.log.append(event)
        return self._take(self.scheduler.handle(event))

    def _take(self, decided: list[Decision]) -> list[Decision]:
        self.log.extend(decided)
        self.decisions.extend(decided)
        if self.writes:
            for decision in decided:
                self._note(decision)
        if self.carries_out:
            for decision in decided:
                self._carry_out(decision)
        return decided

    def with_nodes(
        self,
        number: int,
        *,
        cpu: int = 8000,
        memory: int = 32 * GIB,
        pool: str = "",
        zone: str = "",
        taints: tuple[Taint, ...] = (),
    ) -> Cluster:
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        if pool:
            labels["muster.dev/pool"] = pool
        for _ in range(number):
            name = f"node-{next(self._node_numbers)}"
            allocatable = Resources.of(cpu=cpu, memory=memory, pods=110)
            self.see_node(Node(name, allocatable, {**labels, "kubernetes.io/hostname": name}, taints))
        return self

    def with_queues(self, *queues: QueueConfig) -> Cluster:
        self.queues = queues
        self.tell(QueuesChanged(self.at, queues))
        return self

    def see_node(self, node: Node) -> None:
        self.nodes[node.name] = node
        self.tell(NodeSeen(self.at, node))

    def change_node(self, name: str, **changes: object) -> None:
        self.see_node(msgspec.structs.replace(self.nodes[name], **changes))

    def lose_node(self, name: str) -> None:
        """The node is deleted; its pods stay until the pod garbage collector comes."""
        del self.nodes[name]
        self.tell(NodeGone(self.at, name))

    def collect_pods_of(self, name: str) -> None:
        for pod in [pod for pod in self.pods.values() if pod.node == name]:
            self.remove(pod)

    def wait(self, seconds: float) -> Cluster:
        self.at += seconds
        for due, ref in [end for end in self.ending if end[0] <= self.at]:
            self.ending.remove((due, ref))
            pod = self.pods.get((ref.namespace, ref.name))
            if pod is not None and pod.uid == ref.uid:
                self.remove(pod)
        self.tell(TimePassed(self.at))
        return self

    def submit(self, spec: Spec, *, found: bool = True) -> App:
        """spark-submit in cluster mode, with the webhook there: the driver pod is gated."""
        self.at += 1
        name = spec.name or f"app-{next(self._app_numbers)}"
        app = App(self, f"default/{name}", spec)
        app.submit(found=found)
        return app

    def daemon(self, node: str, **amounts: int) -> Pod:
        """A pod that is not Spark's, bound by kube-scheduler or a DaemonSet."""
        pod = Pod("system", f"daemon-{next(self._uids)}", self.uid(), Resources.of(**amounts), node, self.at)
        return self.see(pod)

    def uid(self) -> str:
        return f"uid-{next(self._uids)}"

    def see(self, pod: Pod) -> Pod:
        self.pods[pod.namespace, pod.name] = pod
        self.tell(PodSeen(self.at, pod))
        return pod

    def change(self, pod: Pod, **changes: object) -> Pod:
        return self.see(msgspec.structs.replace(self.pods[pod.namespace, pod.name], **changes))

    def remove(self, pod: Pod) -> None:
        current = self.pods.pop((pod.namespace, pod.name), None)
        if current is not None:
            self.tell(PodGone(self.at, PodRef(current.namespace, current.name, current.uid)))

    def ask(self, pod: Pod) -> Placement:
        self.log.append(recording.Asked(self.at, pod))
        placement = self.scheduler.place_executor(pod, self.at)
        self.log.append(recording.Answered(placement))
        return placement

    def choose(self, pod: Pod, nodes: tuple[str, ...]) -> Choice:
        """An external scheduler asks which of ``nodes`` an unbound pod goes to."""
        self.log.append(recording.Offer(self.at, pod, nodes))
        choice, decided = self.scheduler.choose(pod, nodes, self.at)
        self.log.append(recording.Chosen(choice))
        self._take(decided)
        return choice

    def restart(self) -> None:
        """The process dies; another one reads nodes, pods and the newest reservations, and goes on."""
        self.scheduler = Scheduler(self.config)
        self.log.clear()
        self.tell(QueuesChanged(self.at, self.queues))
        for node in self.nodes.values():
            self.tell(NodeSeen(self.at, node))
        for pod in list(self.pods.values()):
            self.tell(PodSeen(self.at, pod))
        for key, (application, reservation) in self.reservations.items():
            self.tell(ReservationRestored(self.at, application, reservation, self.statuses.get(key)))
        for key, application in self.applications.items():
            if key not in self.reservations:
                self.tell(ApplicationFound(self.at, application))
        for key, event in self.invalid.items():
            if any(pod.application == key and pod.role is Role.DRIVER for pod in self.pods.values()):
                self.tell(event)
        self.tell(Synced(self.at))

    # What is to be seen

    def decided(self, kind: type[Decision]) -> list[Decision]:
        return [decision for decision in self.decisions if isinstance(decision, kind)]

    def explain(self, key: str) -> Explanation:
        explanation = self.scheduler.explain(key, self.at)
        assert explanation is not None
        return explanation

    def free_cpu(self) -> int:
        """Unreserved millicores over all nodes, by the scheduler's own books."""
        free = self.scheduler._state.table.free
        return int(free[0].sum())

    def used(self) -> dict[str, Resources]:
        """What pods ask for by node, as Kubernetes shows it."""
        used: dict[str, Resources] = {}
        for pod in self.pods.values():
            if pod.node and not pod.finished:
                used[pod.node] = used.get(pod.node, Resources()) + pod.requests + Resources.of(pods=1)
        return used

    def overcommitted(self) -> list[str]:
        """Nodes whose pods alone, by what Kubernetes shows, ask for more than there is."""
        used = self.used()
        return [
            name
            for name, total in used.items()
            if name in self.nodes and any(amount > self.nodes[name].allocatable.get(r) for r, amount in total.amounts)
        ]

    # Kubernetes

    def _note(self, decision: Decision) -> None:
        match decision:
            case Reserve(application=application, reservation=reservation, status=status):
                known = self.reservations.get(application.key)
                assert known is None or known[1].revision < reservation.revision, "revisions rise"
                self.reservations[application.key] = (application, reservation)
                self.statuses[application.key] = status
            case Condition(key=key, status=status):
                self.statuses[key] = status
                if status.phase is Phase.FINISHED:
                    self.reservations.pop(key, None)
                    self.applications.pop(key, None)
            case ReleaseDriver(key=key, node=node) if node:
                application, reservation = self.reservations[key]
                held = sum(slot.count for slot in reservation.slots)
                assert held == application.minimum, f"{key} released with {held} of {application.minimum} slots"
                assert reservation.driver_node == node

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case ReleaseDriver(pod=ref, node=node) | Place(pod=ref, node=node):
                pod = self.pods.get((ref.namespace, ref.name))
                if pod is None or not pod.gated or pod.uid != ref.uid:
                    return
                extra = isinstance(decision, Place) and decision.extra
                self.see(msgspec.structs.replace(pod, gated=False, assigned=node, extra=extra))
                if node:
                    self.bind(pod, node)
            case Evict(pod=ref, grace_seconds=grace):
                pod = self.pods[ref.namespace, ref.name]
                assert pod.uid == ref.uid, f"{ref.name} is another one"
                assert not pod.terminating, f"{ref.name} is called back twice"
                assert pod.role is Role.EXECUTOR or decision.reason == "ApplicationPreempted"
                self.ending.append((self.at + grace, ref))
                self.see(msgspec.structs.replace(pod, terminating=True))
            case Appraise() | Condition() | Demand() | Publish() | Reserve():
                pass

    def bind(self, pod: Pod, node: str) -> None:
        """kube-scheduler binds a pod, and the kubelet runs it."""
        self.change(pod, node=node, running=True)


class App:
    """One submitted application, seen from outside."""

    def __init__(self, cluster: Cluster, key: str, spec: Spec) -> None:
        self.cluster = cluster
        self.key = key
        self.spec = spec
        self.driver_id = ("default", f"{key.partition('/')[2]}-driver")
        self._names = count(1)

    # What happens to it

    def submit(self, *, found: bool, gated: bool = True) -> None:
        namespace, name = self.driver_id
        cluster = self.cluster
        driver = Pod(
            namespace,
            name,
            cluster.uid(),
            self.spec.driver,
            created=cluster.at,
            role=Role.DRIVER,
            application=self.key,
            constraints=self.spec.constraints,
            gated=gated,
        )
        cluster.see(driver)
        if found:
            self.found()

    @property
    def driver(self) -> Pod:
        return self.cluster.pods[self.driver_id]

    @property
    def application(self) -> Application:
        driver = self.driver
        return Application(
            key=self.key,
            name=self.key.partition("/")[2],
            created=driver.created,
            driver=PodShape(self.spec.driver, self.spec.constraints),
            executor=PodShape(self.spec.executor, self.spec.constraints),
            minimum=self.spec.minimum,
            maximum=self.spec.maximum,
            driver_pod=PodRef(driver.namespace, driver.name, driver.uid),
            pool=self.spec.pool,
            queue=self.spec.queue,
            user=self.spec.user,
            priority=self.spec.priority,
            run_seconds=self.spec.run_seconds,
        )

    def found(self) -> App:
        """Its sizes become known."""
        self.cluster.applications[self.key] = self.application
        self.cluster.invalid.pop(self.key, None)
        self.cluster.tell(ApplicationFound(self.cluster.at, self.application))
        return self

    def invalid(self, reason: str = "InvalidSize", message: str = "spark.executor.memory is no size") -> App:
        driver = self.driver
        ref = PodRef(driver.namespace, driver.name, driver.uid)
        event = ApplicationInvalid(self.cluster.at, self.key, ref, reason, message)
        self.cluster.invalid[self.key] = event
        self.cluster.tell(event)
        return self

    def executor(self, **changes: object) -> Pod:
        """The pod as the driver posts it, before any webhook."""
        pod = Pod(
            "default",
            f"{self.key.partition('/')[2]}-exec-{next(self._names)}",
            requests=self.spec.executor,
            role=Role.EXECUTOR,
            application=self.key,
            constraints=self.spec.constraints,
            owner=self.driver_id[1],
        )
        return msgspec.structs.replace(pod, **changes)

    def start_executor(self, **changes: object) -> Pod:
        """The driver creates one executor; the webhook answers; the pod appears as that answer says."""
        pod = self.executor(**changes)
        return self.appear(pod, self.cluster.ask(pod))

    def appear(self, pod: Pod, placement: Placement) -> Pod:
        """The API server stores the pod with the webhook's answer applied."""
        cluster = self.cluster
        pod = msgspec.structs.replace(pod, uid=cluster.uid(), created=cluster.at)
        match placement.mode:
            case Mode.BIND:
                pod = msgspec.structs.replace(
                    pod, node=placement.node, assigned=placement.node, extra=placement.extra, running=True
                )
                return cluster.see(pod)
            case Mode.PIN:
                pod = cluster.see(msgspec.structs.replace(pod, assigned=placement.node, extra=placement.extra))
                cluster.bind(pod, placement.node)
            case Mode.HOLD:
                cluster.see(msgspec.structs.replace(pod, gated=True))
        return cluster.pods[pod.namespace, pod.name]

    def start_executors(self, number: int) -> list[Pod]:
        return [self.start_executor() for _ in range(number)]

    def end(self) -> App:
        """The driver succeeds; executors go a moment later."""
        self.cluster.change(self.driver, finished=True, running=False)
        return self

    def collect(self) -> App:
        """Garbage collection: all its pods are deleted."""
        for pod in [pod for pod in self.cluster.pods.values() if pod.application == self.key]:
            self.cluster.remove(pod)
        return self

    # What is to be seen of it

    @property
    def status(self) -> GangStatus:
        status = self.cluster.scheduler.status(self.key)
        assert status is not None, f"{self.key} is unknown"
        return status

    @property
    def reservation(self) -> Reservation:
        return self.cluster.reservations[self.key][1]

    def slots(self) -> dict[str, int]:
        return {slot.node: slot.count for slot in self.reservation.slots}

    def expect_held(self, reason: str) -> App:
        """The driver is behind its gate, for this reason."""
        assert self.driver.gated, f"{self.key} was released"
        assert (self.status.phase, self.status.reason) == (Phase.PENDING, reason)
        return self

    def expect_started(self) -> App:
        """The driver runs, on the node of its reservation, and the whole minimum is reserved."""
        assert self.status.phase is Phase.RUNNING, self.status
        assert self.driver.node == self.reservation.driver_node
        assert sum(self.slots().values()) == self.spec.minimum
        return self

    def expect_running(self, executors: int) -> App:
        assert self.status.running == executors
        return self
