"""What happens in the cluster, told to the scheduler: nodes, pods, and reservations that others wrote.

No I/O: watches feed it. Until ``begin`` pods are only collected; what is reserved is then restored at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from muster.cluster.capacity import capacities
from muster.cluster.nodes import NodeTable
from muster.control.extender import facts, pods, reconcile
from muster.control.extender.known import KnownApplication, KnownPods, PodId
from muster.control.extender.reservations import ResourceReservation
from muster.control.extender.stores import Store
from muster.control.facts import node_from, pod_ref
from muster.kube import objects as k
from muster.scheduling import events, model
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import Decision, Publish
from muster.scheduling.model import PodRef
from muster.scheduling.scheduler import Scheduler
from muster.spark.errors import SparkConfigurationError

UNCONFIRMED = 60.0
"""Seconds within which the watch must tell of a pod that was asked about; else it is no more."""


class ClusterView:
    """The scheduler, and what is known beside it.

    ``decided`` is given what the scheduler decides. ``settled`` is told of pods that wait no longer: bound, or gone.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        reservations: Store[ResourceReservation],
        clock: Callable[[], float],
        *,
        decided: Callable[[list[Decision]], None],
        settled: Callable[[PodId], None] = lambda pod_id: None,
        validate: bool = False,
    ) -> None:
        self.scheduler = Scheduler(config)
        self.known = KnownPods()
        self.synced = False
        self.touched: dict[model.ApplicationKey, None] = {}
        """Applications whose reservation objects may have to be changed."""
        self.changes = 0
        """Raised whenever a node came or changed, or a pod ended: there may be room that was not there before."""
        self._label = config.pool_label
        self._reservations = reservations
        self._clock = clock
        self._decided = decided
        self._settled = settled
        self._validate = validate
        self._listed: dict[PodId, k.Pod] = {}
        """Pods that were told before ``begin``."""
        self._node_created: dict[str, str] = {}
        self._asked: set[PodId] = set()
        """Pods that name another scheduler, and were asked about all the same."""
        self._unconfirmed: dict[PodId, tuple[str, float]] = {}
        """Pods that only a call told of: their uid, and when."""

    # Nodes

    def node_seen(self, node: k.Node) -> None:
        """Raises ``QuantityError`` for one that cannot be read; what was known of it stays."""
        seen = node_from(node)
        self._node_created[node.metadata.name] = node.metadata.creation_timestamp or ""
        known = self.scheduler.table.index.get(seen.name)
        if known is None or self.scheduler.table.nodes[known] != seen:
            self.changes += 1
        self.handle(events.NodeSeen(self._clock(), seen))

    def node_gone(self, name: str) -> None:
        self._node_created.pop(name, None)
        self.handle(events.NodeGone(self._clock(), name))

    # Pods

    def pod_seen(self, pod: k.Pod) -> None:
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        self._unconfirmed.pop(pod_id, None)
        if not self.synced:
            self._listed[pod_id] = pod
        else:
            self._tell(pod, pod_id)

    def pod_asked(self, pod: k.Pod) -> KnownApplication | None:
        """A pod that kube-scheduler asks about is ours, whatever scheduler it names, and may be news."""
        pod_id = (pod.metadata.namespace, pod.metadata.name)
        known = self.known.uid_of(pod_id)
        if known is None or (known != pod.metadata.uid and pod.metadata.uid):
            if not facts.is_scheduled_by_us(pod):
                self._asked.add(pod_id)
            self._unconfirmed[pod_id] = (pod.metadata.uid, self._clock())
            self._tell(pod, pod_id)
        return self.known.application_of(pod_id)

    def pod_gone(self, namespace: str, name: str, uid: str) -> None:
        pod_id = (namespace, name)
        self._listed.pop(pod_id, None)
        self._unconfirmed.pop(pod_id, None)
        self.changes += 1
        application = self.known.forget(pod_id, uid)
        self.handle(events.PodGone(self._clock(), PodRef(namespace, name, uid)))
        if application is None:
            return
        self._asked.discard(pod_id)
        if application.key in self.known.applications:
            self.touched[application.key] = None
        else:
            self.touched.pop(application.key, None)
        self._settled(pod_id)
        self._succeed(application)

    # Time

    def begin(self) -> None:
        """Everything that exists has been told: restore what is reserved."""
        self.synced = True
        listed, self._listed = self._listed, {}
        reserved = {
            (each.metadata.namespace, pod): slot.node for each in self._reservations for _, slot, pod in each.slots()
        }
        self.known.promises = {pod_id: node for pod_id, node in reserved.items() if pod_id in listed}
        ours: list[k.Pod] = []
        for pod_id, pod in listed.items():
            if facts.is_spark(pod) and pod_id in reserved and not facts.is_scheduled_by_us(pod):
                self._asked.add(pod_id)
            if self._is_ours(pod, pod_id):
                ours.append(pod)
                self.known.see(pod)
            else:
                self.handle(events.PodSeen(self._clock(), facts.foreign_pod(pod)))
        for application in self.known.applications.values():
            self._size(application)
        for pod in ours:
            self._tell_ours(self.known.see(pod), pod)
        self._restore()
        self.handle(events.Synced(self._clock()))

    def tick(self) -> None:
        now = self._clock()
        self.handle(events.TimePassed(now))
        for (namespace, name), (uid, since) in list(self._unconfirmed.items()):
            if now - since >= UNCONFIRMED:
                self.pod_gone(namespace, name, uid)

    # Reservations

    def reservation_changed(self, namespace: str, name: str, value: ResourceReservation | None) -> None:
        """Somebody else made, changed or removed this object: its content counts."""
        application = self.known.applications.get(f"{namespace}/{name}")
        if application is None or not self.synced:
            return
        self.touched[application.key] = None
        driver, sized = application.driver, application.sized
        if value is None or driver is None or sized is None or not reconcile.belongs_to(value, driver):
            return
        told = reconcile.written(value, sized, driver)
        held = self.scheduler.reservation(application.key)
        if held is None or (held.driver_node, held.slots) != (told.driver_node, told.slots):
            self.handle(events.ReservationRestored(self._clock(), sized, told))

    def handle(self, event: events.Event) -> None:
        decisions = self.scheduler.handle(event)
        if self._validate and self.synced:
            self.scheduler.validate()
        if decisions:
            self._decided(decisions)

    def size_of(self, driver: k.Pod) -> model.Application:
        """By its annotations. Raises ``SparkConfigurationError``."""
        return facts.application_from(driver, pods.application_of(driver), self._label)

    # Telling

    def _is_ours(self, pod: k.Pod, pod_id: PodId) -> bool:
        return facts.is_spark(pod) and (facts.is_scheduled_by_us(pod) or pod_id in self._asked)

    def _tell(self, pod: k.Pod, pod_id: PodId) -> None:
        if pods.is_terminated(pod):
            self.changes += 1
        if not self._is_ours(pod, pod_id):
            self.known.forget(pod_id)
            self.handle(events.PodSeen(self._clock(), facts.foreign_pod(pod)))
            return
        application = self.known.see(pod)
        self.touched[application.key] = None
        if application.driver is pod:
            self._driver_seen(application, pod)
        else:
            self._tell_ours(application, pod)
            self._succeed(application)
        if pod.spec.node_name or pods.is_terminated(pod):
            self._settled(pod_id)

    def _succeed(self, application: KnownApplication) -> None:
        """A driver is over or gone; if there is another one of that application, it is the driver now."""
        driver = application.driver
        if driver is not None and application.sized_for is not None and _differ(driver, application.sized_for):
            self._driver_seen(application, driver)

    def _driver_seen(self, application: KnownApplication, driver: k.Pod) -> None:
        resized = self._size(application)
        self._tell_ours(application, driver)
        if not resized or application.sized is None:
            return
        for executor in application.resize_executors():
            self.handle(events.PodSeen(self._clock(), executor))
        self.handle(self._found(application, application.sized, driver))

    def _tell_ours(self, application: KnownApplication, pod: k.Pod) -> None:
        executor = application.executors.get(pod.metadata.name)
        if executor is not None:
            self.handle(events.PodSeen(self._clock(), executor.pod))
            return
        annotated = None
        if application.read is not None and application.driver is pod:
            annotated = application.read.sizes.driver
        self.handle(
            events.PodSeen(self._clock(), facts.driver_pod(pod, annotated.requests if annotated is not None else None))
        )

    def _size(self, application: KnownApplication) -> bool:
        """Read the driver's annotations, if they are news; whether there are sizes that were not known."""
        driver, before = application.driver, application.sized_for
        if driver is None or (before is not None and not _differ(driver, before)):
            return False
        application.sized_for = driver
        application.read = application.sized = None
        try:
            read = pods.application_of(driver)
        except SparkConfigurationError as error:
            application.problem = str(error)
            self._publish(application, driver, "InvalidSize", f"{error}; the driver waits until that is corrected")
            return False
        application.problem = ""
        application.read = facts.effective(read, driver)
        application.sized = facts.application_from(driver, read, self._label)
        assert read.sizes.driver is not None
        if more := facts.exceeds(driver, read.sizes.driver.requests):
            self._publish(
                application,
                driver,
                "AnnotationTooSmall",
                f"the driver requests more {', '.join(more)} than its spark-driver-* annotations say; "
                "what it requests is reserved",
            )
        return True

    def _publish(self, application: KnownApplication, driver: k.Pod, reason: str, message: str) -> None:
        self._decided([Publish(application.key, pod_ref(driver), True, reason, message)])

    # Restoring

    def _found(self, application: KnownApplication, sized: model.Application, driver: k.Pod) -> events.Event:
        """What is known of an application: its size, and its reservation if it has one."""
        there = self._reservations.get(application.namespace, application.app_id)
        if there is None or not reconcile.belongs_to(there, driver):
            return events.ApplicationFound(self._clock(), sized)
        return events.ReservationRestored(self._clock(), sized, reconcile.written(there, sized, driver))

    def _restore(self) -> None:
        """Tell of every application whose driver is alive. Those that run without a reservation get one."""
        restored: list[events.ReservationRestored] = []
        bare: list[tuple[KnownApplication, model.Application, k.Pod]] = []
        for application in self.known.applications.values():
            driver, sized = application.driver, application.sized
            if driver is None or sized is None:
                continue
            self.touched[application.key] = None
            found = self._found(application, sized, driver)
            if isinstance(found, events.ReservationRestored):
                restored.append(found)
            elif driver.spec.node_name:
                bare.append((application, sized, driver))
                continue
            self.handle(found)
        room = _Room(self.scheduler.table, self._node_created)
        for each in restored:
            placed = Counter(self.known.applications[each.application.key].executor_nodes())
            room.take(each.application.executor, Counter(_counts(each.reservation)) - placed)
        for application, sized, driver in sorted(bare, key=lambda entry: entry[1].created):
            nodes = list(application.executor_nodes())
            rebuilt = reconcile.rebuilt(sized, driver, nodes, room.newest_first(sized.executor))
            room.take(sized.executor, Counter(_counts(rebuilt)) - Counter(nodes))
            self.handle(events.ReservationRestored(self._clock(), sized, rebuilt))


class _Room:
    """What is free on the nodes before the scheduler holds slots again."""

    def __init__(self, table: NodeTable, created: Mapping[str, str]) -> None:
        self._table = table
        self._created = created
        self._free = table.free.copy()

    def take(self, shape: model.PodShape, counts: Mapping[str, int]) -> None:
        vector = self._table.vector(shape.requests)
        for node, count in counts.items():
            row = self._table.index.get(node)
            if row is not None and len(vector) <= len(self._free):
                self._free[: len(vector), row] -= vector * count

    def newest_first(self, shape: model.PodShape) -> list[tuple[str, int]]:
        """Nodes that such a pod may go to, and how many fit."""
        table = self._table
        vector = table.vector(shape.requests)
        if len(vector) > len(self._free):  # a resource that no node and no pod had named: nothing has it
            return []
        fits = capacities(self._free, vector) * table.eligible(shape.constraints)
        rows = fits.nonzero()[0].tolist()
        rows.sort(key=lambda row: table.names[row])
        rows.sort(key=lambda row: self._created.get(table.names[row], ""), reverse=True)
        return [(table.names[row], int(fits[row])) for row in rows]


def _counts(reservation: model.Reservation) -> dict[str, int]:
    return {slot.node: slot.count for slot in reservation.slots}


def _differ(driver: k.Pod, other: k.Pod) -> bool:
    """Whether sizes have to be read anew."""
    one, two = driver.metadata, other.metadata
    return one.uid != two.uid or one.annotations != two.annotations
