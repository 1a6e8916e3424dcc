"""The answer to each of kube-scheduler's calls, and what follows from it for reservations and demands.

One call at a time, start to end, so that nothing can be reserved twice. No I/O: stores are written in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import msgspec

from muster.cluster.nodes import ZONE_LABELS
from muster.cluster.resources import CPU, GPU, MEMORY
from muster.control.extender import demands, facts, outcomes, pods
from muster.control.extender.cluster_view import ClusterView
from muster.control.extender.demand_book import DemandBook, Source
from muster.control.extender.known import KnownApplication, PodId
from muster.control.extender.messages import NO_POD, ExtenderArgs
from muster.control.extender.nudges import Nudges
from muster.control.extender.outcomes import Outcome, wrapped
from muster.control.extender.reservation_book import ReservationBook
from muster.control.extender.reservations import ResourceReservation
from muster.control.extender.stores import Announce, Store
from muster.control.facts import role_of
from muster.kube import objects as k
from muster.packing import find_packer
from muster.scheduling import model
from muster.scheduling.config import SchedulerConfig
from muster.scheduling.decisions import Decision, Demand, Publish, Reserve
from muster.scheduling.model import Choice, Phase, Role

IDLE = 15.0
"""Seconds without a call after which another replica may have been asked: the usual lease of a kube-scheduler."""

CATCH_UP = 8
"""Applications that are caught up with before a call is answered. The others have to wait for a quiet moment."""

NOT_READY = "the state of the cluster is still being read"
NO_APPLICATION_ID = "the pod has no label spark-app-id; set it to one id on the driver and its executors"

_DRIVER_FAILURES = {
    model.Outcome.NO_ROOM: (Outcome.FAILURE_FIT, outcomes.DOES_NOT_FIT),
    model.Outcome.BEHIND: (Outcome.FAILURE_EARLIER_DRIVER, outcomes.EARLIER_DRIVERS),
}
_MAY_CHANGE = frozenset(Outcome) - {Outcome.FAILURE_NON_SPARK_POD, Outcome.FAILURE_INTERNAL}
"""Outcomes after which another call may end differently without anybody doing something about the pod."""
_EXECUTOR_SUCCESSES = {
    model.Outcome.SLOT: Outcome.SUCCESS,
    model.Outcome.ALREADY: Outcome.SUCCESS_ALREADY_BOUND,
    model.Outcome.MOVED: Outcome.SUCCESS_RESCHEDULED,
    model.Outcome.EXTRA: Outcome.SUCCESS_SCHEDULED_EXTRA_EXECUTOR,
}


class Answer(msgspec.Struct, frozen=True):
    """What a call came to."""

    outcome: Outcome | None
    """``None``: the archived scheduler had no name for it (tag ``unspecified``)."""
    node: str = ""
    message: str = ""
    """Why no node; the same for every node."""
    role: str = ""
    instance_group: str = ""
    created: ResourceReservation | None = None
    """The reservation, when this call made it."""
    first_bind: ResourceReservation | None = None
    """The reservation, when the executor took a slot that none had before."""
    zone: str = ""
    """The one zone in which an executor had to find room, and found none."""


class Filter:
    """``answer`` a call; ``catch_up`` with what happened in between. ``timed`` measures parts of it, for metrics."""

    def __init__(
        self,
        config: SchedulerConfig,
        reservations: Store[ResourceReservation],
        demand_book: DemandBook,
        clock: Callable[[], float],
        *,
        same_zone: bool = False,
        announce: Announce = lambda name, fields: None,
        publish: Callable[[Publish], None] = lambda event: None,
        nudge: Callable[[PodId], None] = lambda pod_id: None,
        timed: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext(),
        validate: bool = False,
    ) -> None:
        """``same_zone``: executors outside their slots stay in their application's zone, if it is in one only.

        ``nudge``: make kube-scheduler ask about a pod again.
        """
        packer = find_packer(config.packer)
        self._same_zone = same_zone and packer.single_zone
        self._label = config.pool_label
        self._demands = demand_book
        self._clock = clock
        self._announce = announce
        self._publish = publish
        self._timed = timed
        self._last_call = float("-inf")
        self._nudges = Nudges(nudge)
        self.view = ClusterView(
            config, reservations, clock, decided=self._decided, settled=self._settled, validate=validate
        )
        self._reservations = ReservationBook(reservations, self.view.scheduler, packer, validate=validate)

    @property
    def is_idle(self) -> bool:
        """Whether another replica may have been asked since the last call here: then nothing is written."""
        return self._clock() - self._last_call >= IDLE

    def begin(self) -> None:
        """Everything that exists has been told."""
        self.view.begin()
        self._demands.sweep(self._waits)

    def tick(self) -> None:
        """Time has passed."""
        self.view.tick()
        self._nudges.look(self._clock() - self._last_call, self.view.changes, self._may_go)

    def catch_up(self, limit: int) -> bool:
        """Bring the reservations of up to so many applications in line to which something happened; whether there are
        more. Nothing is done while others may have been asked.
        """
        if self.is_idle:
            return False
        touched = self.view.touched
        for key in list(islice(touched, limit)):
            self._catch_up_with(key)
        return bool(touched)

    def _catch_up_with(self, key: model.ApplicationKey) -> None:
        self.view.touched.pop(key, None)
        application = self.view.known.applications.get(key)
        if application is not None:
            self._reservations.write(application)

    def answer(self, args: ExtenderArgs) -> Answer:
        """Where the pod goes: one of the offered nodes, or none and why."""
        pod = args.pod
        if pod is None:
            return Answer(Outcome.FAILURE_INTERNAL, message=NO_POD)
        if not self.view.synced:
            return self._tagged(pod, Answer(Outcome.FAILURE_INTERNAL, message=NOT_READY))
        if self.is_idle:
            with self._timed("reconciliation.time"):
                self._reconcile()
        self._last_call = self._clock()
        with self._timed("softreservation.compaction.time"):
            self.catch_up(CATCH_UP)
        answer = self._answer(pod, args.node_names)
        if answer.outcome in _MAY_CHANGE:
            self._nudges.answered((pod.metadata.namespace, pod.metadata.name), bool(answer.node), self.view.changes)
        return self._tagged(pod, answer)

    def _tagged(self, pod: k.Pod, answer: Answer) -> Answer:
        group = pods.instance_group(pod.spec, self._label) or ""
        return msgspec.structs.replace(answer, role=role_of(pod).value, instance_group=group)

    def _answer(self, pod: k.Pod, offered: Sequence[str]) -> Answer:
        role = role_of(pod)
        if role is Role.OTHER:
            return Answer(Outcome.FAILURE_NON_SPARK_POD, message=outcomes.NON_SPARK_POD)
        if not pods.application_id(pod):
            return Answer(Outcome.FAILURE_INTERNAL, message=NO_APPLICATION_ID)
        application = self.view.pod_asked(pod)
        if application is None:
            return Answer(Outcome.FAILURE_INTERNAL, message=wrapped(outcomes.ALREADY_BOUND, outcomes.NO_RESERVATION))
        self._catch_up_with(application.key)
        answer = (self._driver if role is Role.DRIVER else self._executor)(application, pod, offered)
        if answer.node and answer.node not in offered:  # an error to kube-scheduler; of a pod that is bound already
            return Answer(Outcome.FAILURE_INTERNAL, message=f"the pod is on node {answer.node} already")
        return answer

    # Drivers

    def _driver(self, application: KnownApplication, pod: k.Pod, offered: Sequence[str]) -> Answer:
        driver = application.driver
        if driver is not None and driver.metadata.name != pod.metadata.name:
            message = f"application {application.app_id} has a driver already: {driver.metadata.name}"
            return Answer(Outcome.FAILURE_INTERNAL, message=message)
        if application.problem or application.sized is None:
            return Answer(Outcome.FAILURE_INTERNAL, message=wrapped(outcomes.SPARK_RESOURCES, application.problem))
        choice = self._choose(application, pod, offered)
        if not choice.node:
            outcome, message = _DRIVER_FAILURES.get(choice.outcome, (Outcome.FAILURE_INTERNAL, choice.reason))
            if outcome is not Outcome.FAILURE_INTERNAL:
                self._demand_gang(application)
            return Answer(outcome, message=message)
        created = self._reservations.write(application, answered=True).created
        self._demands.drop(pod.metadata.namespace, pod.metadata.name, Source.EXTENDER)
        self._announce("foundry.spark.scheduler.application_scheduled", self._scheduled(application))
        return Answer(Outcome.SUCCESS, choice.node, created=created)

    def _scheduled(self, application: KnownApplication) -> dict[str, object]:
        read, sized = application.read, application.sized
        assert read is not None and sized is not None and read.sizes.driver is not None
        driver, executor = read.sizes.driver.requests, read.sizes.executor.requests
        return {
            "instanceGroup": sized.pool,
            "sparkAppID": application.app_id,
            "driverCpu": -(-driver.get(CPU) // 1000),
            "driverMemory": driver.get(MEMORY),
            "driverNvidiaGpus": driver.get(GPU),
            "executorCpu": -(-executor.get(CPU) // 1000),
            "executorMemory": executor.get(MEMORY),
            "executorNvidiaGpus": executor.get(GPU),
            "minExecutorCount": sized.minimum,
            "maxExecutorCount": sized.maximum,
        }

    # Executors

    def _executor(self, application: KnownApplication, pod: k.Pod, offered: Sequence[str]) -> Answer:
        if application.driver is None or application.sized is None:
            return Answer(Outcome.FAILURE_INTERNAL, message=wrapped(outcomes.ALREADY_BOUND, outcomes.NO_RESERVATION))
        zone = ""
        if self._same_zone:
            own = self._own(application, pod, offered)
            choice = self._choose(application, pod, own)
            if choice.outcome is model.Outcome.NO_ROOM:
                zones = {self._zone(node) for node in application.running_nodes()}
                if not zones:
                    return Answer(None, message=wrapped(outcomes.RESCHEDULE, outcomes.NO_SCHEDULED_PODS))
                if len(zones) == 1:
                    zone = zones.pop()
                    there = [node for node in offered if self._zone(node) == zone]
                    if not zone or (len(there) < len(offered) and not all(map(self._zone, offered))):
                        return Answer(
                            Outcome.FAILURE_INTERNAL, message=wrapped(outcomes.RESCHEDULE, outcomes.NO_ZONE_LABEL)
                        )
                    offered = there
                choice = self._choose(application, pod, offered)
        else:
            choice = self._choose(application, pod, offered)
        if not choice.node:
            return self._no_node(application, pod, choice, zone)
        outcome = _EXECUTOR_SUCCESSES[choice.outcome]
        first_bind = None
        if choice.outcome is not model.Outcome.ALREADY:
            self.view.known.promises.pop((pod.metadata.namespace, pod.metadata.name), None)
            first_bind = self._reservations.write(application, asked=pod.metadata.name).first_bind
            if choice.outcome is model.Outcome.EXTRA and pod.metadata.name not in application.soft:
                outcome = Outcome.SUCCESS  # the slot of one that died
        self._demands.drop(pod.metadata.namespace, pod.metadata.name, Source.EXTENDER)
        return Answer(outcome, choice.node, first_bind=first_bind)

    def _no_node(self, application: KnownApplication, pod: k.Pod, choice: Choice, zone: str) -> Answer:
        if choice.outcome is model.Outcome.FULL:
            return Answer(Outcome.FAILURE_UNBOUND, message=outcomes.NO_FREE_SPOT)
        if choice.outcome is not model.Outcome.NO_ROOM:
            return Answer(Outcome.FAILURE_INTERNAL, message=wrapped(outcomes.ALREADY_BOUND, outcomes.NO_RESERVATION))
        if application.read is not None:
            self._demands.need(pod, application.app_id, demands.executor_units(pod, application.read), zone or None)
        message = wrapped(outcomes.RESCHEDULE, outcomes.NO_ROOM_FOR_EXECUTOR)
        return Answer(Outcome.FAILURE_FIT, message=message, zone=zone)

    def _own(self, application: KnownApplication, pod: k.Pod, offered: Sequence[str]) -> list[str]:
        """Offered nodes where the executor, or a free slot, has its place already."""
        scheduler = self.view.scheduler
        unfilled = scheduler.unfilled(application.key)
        place = scheduler.room_of(pod.metadata.namespace, pod.metadata.name)
        return [node for node in offered if node in unfilled or node == place]

    def _zone(self, node: str) -> str:
        """By the current label, or the deprecated one; "" without."""
        table = self.view.scheduler.table
        row = table.index.get(node)
        found = table.nodes[row] if row is not None else None
        labels = found.labels if found is not None else {}
        return next((labels[label] for label in ZONE_LABELS if labels.get(label)), "")

    # What follows

    def _choose(self, application: KnownApplication, pod: k.Pod, offered: Collection[str]) -> Choice:
        name = pod.metadata.name
        executor = application.executors.get(name)
        if executor is not None:
            told = executor.pod
        else:
            annotated = application.read.sizes.driver if application.read is not None else None
            told = facts.driver_pod(
                application.drivers.get(name, pod), annotated.requests if annotated is not None else None
            )
        choice, decisions = self.view.scheduler.choose(told, offered, self._clock())
        self._decided(decisions)
        return choice

    def _reconcile(self) -> None:
        """Another replica may have been asked meanwhile. Its writes were followed; what they left open is done now."""
        self._announce("starting reconciliation", {"appCount": len(self.view.touched)})
        self._demands.sweep(self._waits)

    def _decided(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Publish():
                    self._publish(decision)
                case Reserve(application=sized):
                    self.view.touched[sized.key] = None
                case Demand(key=key, missing=missing) if missing:
                    self._demand_waiting(key)

    def demand_all(self) -> None:
        """Demands can be made now: of every gang that waits."""
        self._demands.sweep(self._waits)
        for key in self.view.scheduler.demands():
            self._demand_waiting(key)

    def _demand_waiting(self, key: model.ApplicationKey) -> None:
        """A gang that waits for room demands it, whether kube-scheduler asks about its driver or not."""
        application, status = self.view.known.applications.get(key), self.view.scheduler.status(key)
        if application is not None and status is not None and status.phase is Phase.PENDING and status.reason:
            self._demand_gang(application)

    def _demand_gang(self, application: KnownApplication) -> None:
        driver, read = application.driver, application.read
        if driver is not None and read is not None and not driver.spec.node_name:
            self._demands.need(driver, application.app_id, demands.application_units(driver, read))

    def _may_go(self, pod_id: PodId) -> bool | None:
        application = self.view.known.application_of(pod_id)
        if application is None or pod_id[1] not in application.drivers:
            return None
        status = self.view.scheduler.status(application.key)
        return status is not None and status.phase is Phase.RESERVED

    def _settled(self, pod_id: PodId) -> None:
        self._nudges.forget(pod_id)
        self._demands.drop(*pod_id, Source.COLLECTION)

    def _waits(self, namespace: str, name: str) -> bool:
        """Whether a pod still waits for a node: not bound, and no driver that was answered."""
        if self.view.known.node_of((namespace, name)) != "":
            return False
        application = self.view.known.application_of((namespace, name))
        assert application is not None
        driver = application.drivers.get(name)
        return driver is None or self._reservations.of(namespace, application.app_id, driver) is None
