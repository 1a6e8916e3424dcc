"""What the controller feeds the history, under a clock of our own: real scheduler, pods as Spark creates them."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from muster.control import facts
from muster.control.discovery import application_of
from muster.control.recording import Recording
from muster.history.archive import Archive
from muster.history.estimates import Estimator, Run, Shape
from muster.history.records import FinishedApplication, Outcome, StrandedSample
from muster.kube import objects as k
from muster.scheduling.decisions import Evict, Reserve
from muster.scheduling.events import ApplicationFound, Event, NodeSeen, PodGone, PodSeen, ReservationRestored, Synced
from muster.scheduling.model import Application, GangStatus, Phase, PodRef, Reservation, Slot
from muster.scheduling.outlook import Holding, Outlook
from muster.scheduling.scheduler import Scheduler
from tests.control.spark_pods import APPLICATION, driver_pod, executor_pod

KEY = f"team-a/{APPLICATION}"
SCHEDULERS = frozenset({"default-scheduler"})
POOL = "muster.dev/pool"
BEGUN = 1000.0
POD = 1408 * 2**20
"""Bytes that each of these pods requests; and 1 core."""
DRIVER = driver_pod()["metadata"]["name"]


class Kept:
    """In the archive's place: what it was given."""

    def __init__(self) -> None:
        self.applications: list[FinishedApplication] = []
        self.samples: list[StrandedSample] = []
        self.estimator = Estimator()

    def record(self, application: FinishedApplication) -> None:
        self.applications.append(application)

    def sample(self, sample: StrandedSample) -> None:
        self.samples.append(sample)


class Term:
    """A term of leadership as the controller runs it; ``at`` counts seconds from ``BEGUN``."""

    def __init__(self, *zones: str) -> None:
        self.kept = Kept()
        self.scheduler = Scheduler()
        self.recording = Recording(cast(Archive, self.kept), self.scheduler.table, self.scheduler.story, POOL)
        self.evicted: list[Evict] = []
        self._nodes = zones or ("a",)

    def node(self, number: int) -> str:
        return f"node-{number}"

    def begin(self, at: float = 0.0, restored: tuple[Application, Reservation, GangStatus] | None = None) -> None:
        for number, zone in enumerate(self._nodes):
            node = {
                "metadata": {"name": self.node(number), "labels": {"topology.kubernetes.io/zone": zone}},
                "status": {
                    "allocatable": {"cpu": "8", "memory": "64Gi", "pods": "50"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
            self.handle(NodeSeen(BEGUN + at, facts.node_from(msgspec.convert(node, k.Node))))
        if restored is not None:
            application, reservation, status = restored
            self.recording.restored(BEGUN + at, application, reservation)
            self.handle(ReservationRestored(BEGUN + at, application, reservation, status))
        self.recording.settle(BEGUN + at)
        self.handle(Synced(BEGUN + at))

    def handle(self, event: Event) -> None:
        for decision in self.scheduler.handle(event):
            self.recording.decided(event.at, decision)

    def pod(self, at: float, pod: k.Pod) -> None:
        seen = facts.pod_from(pod)
        self.recording.pod_seen(BEGUN + at, pod, seen)
        self.handle(PodSeen(BEGUN + at, seen))

    def gone(self, at: float, pod: k.Pod, *, last_state_known: bool = True) -> None:
        ref = facts.pod_ref(pod)
        key = facts.application_key(pod) if last_state_known else None
        self.recording.pod_gone(BEGUN + at, ref, key)
        self.handle(PodGone(BEGUN + at, ref))

    def found(self, at: float, application: Application) -> None:
        self.recording.found(BEGUN + at, application)
        self.handle(ApplicationFound(BEGUN + at, application))

    @property
    def row(self) -> FinishedApplication:
        [row] = self.kept.applications
        return row


def a_pod(
    manifest: dict[str, Any], *, node: int | None = None, phase: str = "Pending", gated: bool = False, ended: str = "",
    created: str = "1970-01-01T00:16:40Z", conditions: tuple[tuple[str, str], ...] = (), deleted: bool = False,
) -> k.Pod:  # fmt: skip
    """``created`` is ``BEGUN``."""
    manifest["metadata"] |= {"uid": f"uid of {manifest['metadata']['name']}", "creationTimestamp": created}
    if deleted:
        manifest["metadata"]["deletionTimestamp"] = created
    if node is not None:
        manifest["spec"]["nodeName"] = f"node-{node}"
    if gated:
        manifest["spec"]["schedulingGates"] = [{"name": "muster.dev/gang"}]
    state = {"terminated": {"exitCode": 0, "finishedAt": ended}} if ended else {}
    manifest["status"] = {
        "phase": phase,
        "containerStatuses": [{"name": "c", "ready": phase == "Running", "state": state}] if phase else [],
        "conditions": [
            {"type": name, "status": "True", "lastTransitionTime": since or None} for name, since in conditions
        ],
    }
    return msgspec.convert(manifest, k.Pod)


def driver(**more: Any) -> k.Pod:
    return a_pod(driver_pod(), **more)


def executor(number: int, **more: Any) -> k.Pod:
    return a_pod(executor_pod(number), **more)


def application(executors: int = 2) -> Application:
    text = f"spark.executor.instances={executors}\nspark.kubernetes.container.image=i\n"
    return application_of(driver(gated=True), text, POOL, SCHEDULERS)


def started(term: Term, executors: int = 2) -> None:
    """Reserved at 0, its driver bound at 2 and running at 3."""
    term.begin()
    term.pod(0, driver(gated=True))
    term.found(0, application(executors))
    term.pod(2, driver(node=0))
    term.pod(3, driver(node=0, phase="Running"))


def test_a_whole_life_is_one_row_with_exact_sums() -> None:
    term = Term()
    started(term)
    term.pod(5, executor(1, node=0))
    term.pod(6, executor(1, node=0, phase="Running"))
    term.pod(8, executor(2, node=0))
    term.pod(11, executor(2, node=0, phase="Running"))
    term.pod(31, driver(node=0, phase="Succeeded"))
    row = term.row
    assert (row.namespace, row.name, row.application_id) == ("team-a", "spark-pi", APPLICATION)
    assert (row.outcome, row.minimum, row.maximum, row.executors) == (Outcome.SUCCEEDED, 2, 2, 2)
    assert (row.created, row.found, row.reserved, row.driver_bound, row.minimum_reached, row.ended) == tuple(
        BEGUN + at for at in (0, 0, 0, 2, 8, 31)
    )
    assert row.driver is not None
    assert (row.driver.cpu, row.driver.memory, row.executor.cpu) == (1000, POD, 1000)
    use = row.use
    assert use.core_seconds == 3 * 31, "a driver and two executors, from their reservation on"
    assert use.memory_byte_seconds == 3 * 31 * POD
    assert use.unbound_slot_seconds == use.unbound_core_seconds == 2 + 5 + 8
    assert use.idle_pod_seconds == 1 + 3
    assert use.pair_seconds == 3 + 3 * 23
    assert use.cross_zone_pair_seconds == use.lost_core_seconds == 0
    assert [entry.what for entry in row.timeline] == [
        "reserved 2 slot(s) on 1 node(s)", "driver released to node-0", "driver bound to node-0", "its driver finished",
    ]  # fmt: skip
    assert row.timeline[-1].cause == f"PodSeen team-a/{DRIVER}"


def test_what_comes_after_the_end_makes_no_second_row() -> None:
    term = Term()
    started(term)
    term.pod(5, executor(1, node=0, phase="Running"))
    term.pod(20, driver(node=0, phase="Failed"))
    term.pod(21, executor(1, node=0, phase="Running", deleted=True))
    term.pod(22, executor(1, node=0, phase="Succeeded"))
    term.gone(23, executor(1))
    term.pod(24, driver(node=0, phase="Failed"))
    term.gone(30, driver())
    assert term.row.outcome is Outcome.FAILED
    assert term.row.use.core_seconds == 3 * 20


def test_a_driver_that_is_deleted_ended_otherwise() -> None:
    term = Term()
    started(term)
    term.gone(9, driver())
    assert (term.row.outcome, term.row.ended) == (Outcome.DELETED, BEGUN + 9)


def test_pairs_over_zones_are_counted() -> None:
    term = Term("a", "b")
    term.begin()
    term.pod(0, driver(gated=True))
    term.found(0, application(10))
    term.pod(0, driver(node=0, phase="Running"))
    for number in range(10):
        term.pod(0, executor(number, node=number % 2, phase="Running"))
    term.pod(10, driver(node=0, phase="Succeeded"))
    # 6 pods in a and 5 in b: 30 of 55 pairs
    assert (term.row.cross_zone_pairs, term.row.pairs) == (30, 55)
    assert (term.row.use.cross_zone_pair_seconds, term.row.use.pair_seconds) == (300, 550)


def test_an_executor_that_dies_leaves_its_slot_unbound_until_the_next_one_comes() -> None:
    term = Term()
    started(term, executors=1)
    term.pod(3, executor(1, node=0, phase="Running"))
    term.pod(13, executor(1, node=0, phase="Failed"))
    term.gone(14, executor(1))
    term.pod(18, executor(2, node=0, phase="Running"))
    term.pod(20, driver(node=0, phase="Succeeded"))
    use = term.row.use
    assert use.unbound_slot_seconds == 2 + 3 + 5
    assert use.core_seconds == 2 * 20
    assert use.lost_core_seconds == 0, "it failed by itself"


@pytest.mark.parametrize("how", ["called back", "disrupted", "disrupted and gone at once", "evicted by its kubelet"])
def test_what_an_evicted_executor_held_is_lost(how: str) -> None:
    term = Term()
    started(term)
    pod = executor(1, node=0, phase="Running")
    term.pod(5, pod)
    if how == "called back":
        term.recording.decided(BEGUN + 9, Evict(KEY, facts.pod_ref(pod), 30.0, "ExecutorCalledBack"))
        term.gone(10, pod)
    else:
        disrupted = (("DisruptionTarget", ""),)
        if how != "evicted by its kubelet":
            term.pod(9, executor(1, node=0, phase="Running", conditions=disrupted, deleted=True))
        if how != "disrupted and gone at once":
            term.pod(10, executor(1, node=0, phase="Failed", conditions=disrupted))
        term.gone(10, pod)
    term.pod(20, driver(node=0, phase="Succeeded"))
    assert term.row.use.lost_core_seconds == 5


def test_a_deletion_whose_last_state_was_missed_ends_the_pod_too() -> None:
    term = Term()
    started(term, executors=1)
    term.pod(3, executor(1, node=0, phase="Running"))
    term.gone(4, executor(1, node=0), last_state_known=False)
    term.recording.pod_gone(BEGUN + 5, PodRef("team-a", "a pod of somebody else"), None)
    term.pod(10, driver(node=0, phase="Succeeded"))
    assert term.row.use.unbound_slot_seconds == 2 + 3 + 6


def test_after_a_change_of_leaders_cores_are_counted_from_when_pods_were_bound() -> None:
    term = Term()
    status = GangStatus(Phase.RUNNING, found=BEGUN - 60, reserved=BEGUN - 50, driver_bound=BEGUN - 48)
    restored = (application(2), Reservation(KEY, 1, "node-0", (Slot("node-0", 2),)), status)
    bound = (("PodScheduled", "1970-01-01T00:15:50Z"),)  # 50 s before BEGUN
    early = "1970-01-01T00:15:40Z"
    term.pod(0, driver(node=0, phase="Running", created=early, conditions=bound))
    term.pod(0, executor(1, node=0, phase="Running", created="1970-01-01T00:16:00Z"))  # 40 s before: born bound
    term.begin(0, restored)
    term.pod(10, driver(node=0, phase="Succeeded", created=early))
    row = term.row
    assert row.observed_since == BEGUN
    assert row.run_seconds == 60
    assert row.is_sample, "its start was written down by the leader of that time"
    assert row.use.core_seconds == 60 + 50 + 10, "driver, executor, and the unfilled slot since the term began"


def test_an_application_that_ended_while_nobody_led_ended_when_its_kubelet_says() -> None:
    term = Term()
    status = GangStatus(Phase.RUNNING, found=BEGUN - 60, reserved=BEGUN - 50, driver_bound=BEGUN - 48)
    restored = (application(2), Reservation(KEY, 1, "node-0", (Slot("node-0", 2),)), status)
    term.pod(0, driver(node=0, phase="Succeeded", ended="1970-01-01T00:16:20Z"))  # 20 s before BEGUN
    term.begin(0, restored)
    assert (term.row.ended, term.row.run_seconds) == (BEGUN - 20, 30)


def test_one_that_was_started_without_muster_is_no_sample_of_how_long_it_runs() -> None:
    term = Term()
    term.pod(0, driver(node=0, phase="Running", created="1970-01-01T00:10:00Z"))
    term.begin()
    term.found(1, application(2))
    term.pod(9, driver(node=0, phase="Succeeded"))
    assert (term.row.outcome, term.row.observed_since) == (Outcome.SUCCEEDED, BEGUN)
    assert not term.row.is_sample


def test_nothing_is_followed_when_all_is_over() -> None:
    term = Term()
    started(term)
    term.pod(5, executor(1, node=0, phase="Running"))
    assert len(term.recording) == 1
    term.pod(20, driver(node=0, phase="Succeeded"))
    term.pod(21, driver(node=0, phase="Succeeded"))
    assert len(term.recording) == 0
    term.pod(22, executor(1, node=0, phase="Running", deleted=True))
    term.gone(23, executor(1))
    term.gone(30, driver())
    assert len(term.recording) == 0


def test_drivers_that_had_ended_before_and_are_known_to_have_leave_no_row() -> None:
    term = Term()
    term.pod(0, driver(node=0, phase="Succeeded", ended="1970-01-01T00:16:20Z"))
    term.begin()
    term.pod(1, driver(node=0, phase="Succeeded", ended="1970-01-01T00:16:20Z"))
    term.gone(2, driver())
    assert term.kept.applications == []


def test_an_application_without_sizes_leaves_no_row() -> None:
    term = Term()
    term.begin()
    term.pod(0, driver(node=0, phase="Running"))
    term.pod(5, driver(node=0, phase="Succeeded"))
    term.gone(6, driver())
    assert term.kept.applications == []


def test_a_gang_that_lost_its_reservation_before_it_started_held_it_until_then() -> None:
    term = Term()
    term.begin()
    term.pod(0, driver(gated=True))
    term.found(0, application(2))
    term.recording.decided(
        BEGUN + 4, Reserve(application(2), Reservation(KEY, 2, "", ()), GangStatus(Phase.PENDING, found=BEGUN))
    )
    term.gone(9, driver(gated=True))
    assert term.row.use.unbound_slot_seconds == 3 * 4


def test_runs_of_the_same_job_say_how_long_the_next_one_takes() -> None:
    term = Term()
    for seconds in (50.0, 60.0, 70.0):
        term.kept.estimator.add("team-a", "spark-pi-2026-11-20", Run(Shape(1000, POD, 2), seconds))
    named = msgspec.structs.replace(application(2), name="spark-pi-2026-11-25")
    assert term.recording.estimated(named).run_seconds == 70.0
    told = msgspec.structs.replace(named, run_seconds=5.0)
    assert term.recording.estimated(told).run_seconds == 5.0, "who was told by its submitter is not asked again"
    other = msgspec.structs.replace(named, name="other")
    assert term.recording.estimated(other).run_seconds is None


def test_the_row_tells_the_run_time_that_was_expected() -> None:
    term = Term()
    term.begin()
    term.pod(0, driver(gated=True))
    term.found(0, msgspec.structs.replace(application(2), run_seconds=25.0))
    term.pod(1, driver(node=0, phase="Running"))
    term.pod(30, driver(node=0, phase="Succeeded"))
    assert (term.row.estimated_seconds, term.row.run_seconds) == (25.0, 30.0)


def test_stranded_capacity_is_sampled_once_a_minute() -> None:
    term = Term("a", "b")
    term.begin()
    for second in range(121):
        term.recording.tick(BEGUN + second)
    assert [sample.at - BEGUN for sample in term.kept.samples] == [0, 60, 120]
    assert term.kept.samples[0].nodes == 2


def test_pods_that_are_not_sparks_cost_nothing_and_say_nothing() -> None:
    term = Term()
    term.begin()
    plain = msgspec.convert({"metadata": {"name": "web", "namespace": "team-a"}, "spec": {"nodeName": "node-0"}}, k.Pod)
    term.pod(0, plain)
    term.gone(1, plain)
    assert term.kept.applications == []


def test_an_expected_start_comes_from_earlier_runs_with_what_they_were_wrong_by() -> None:
    term = Term()
    for seconds in (50.0, 60.0, 70.0):
        term.kept.estimator.add("team-a", "spark-pi-2026-11-20", Run(Shape(1000, POD, 2), seconds))
    runs = term.recording.estimated(msgspec.structs.replace(application(), name="spark-pi-2026-11-21"))
    holds = Holding(runs.key, since=10.0, room=4, run_seconds=runs.run_seconds)
    unknown = Holding("team-a/other", since=0.0, room=2, run_seconds=None)

    eta = term.recording.eta(20.0, Outlook(free=0, room=4, running=(holds, unknown), ahead=()))

    assert (eta.early, eta.expected, eta.late) == (60.0, 70.0, 80.0)
    assert (eta.estimated, eta.unknown) == (1, 1)
    assert eta.error == pytest.approx(15 / 70), "the median of 15/50, 0/60 and 15/70, each predicted from the others"
