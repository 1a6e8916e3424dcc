"""Random lives of clusters: after every step the invariants hold and nothing that could be done is left undone."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from muster.cluster.constraints import Taint
from muster.cluster.resources import Resources
from muster.packing import PACKERS
from muster.scheduling import executors, gangs
from muster.scheduling.config import PressureConfig, SchedulerConfig
from muster.scheduling.model import Mode, Phase, Placement, Pod, Role
from muster.scheduling.plans import plan_gang
from muster.scheduling.records import Gang
from muster.scheduling.state import State
from tests.scheduling.cluster_story import EXECUTOR, GIB, App, Cluster, Spec, dynamic, static

MAINTENANCE = (Taint("maintenance", "NoSchedule"),)
SIZES = [EXECUTOR, Resources.of(cpu=1000, memory=2 * GIB), Resources.of(cpu=3000, memory=20 * GIB)]
T = TypeVar("T")
picks = st.integers(0, 2**16)


class ClusterLife(RuleBasedStateMachine):
    """Nodes come and go, applications of all kinds run, others bind pods, the process crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.apps: list[App] = []
        self.asked: list[tuple[App, Pod, Placement]] = []
        self.gone_nodes: list[str] = []

    @initialize(
        packer=st.sampled_from(sorted(PACKERS)),
        enforce_after=st.sampled_from([0.0, 0.0, 5.0]),
        fifo=st.booleans(),
        pressure_after=st.sampled_from([0.0, 10.0]),
    )
    def configure(self, packer: str, enforce_after: float, fifo: bool, pressure_after: float) -> None:
        pressure = PressureConfig(after=pressure_after, interval=5.0)
        self.cluster = Cluster(
            SchedulerConfig(packer=packer, enforce_after=enforce_after, fifo=fifo, pressure=pressure)
        )
        self.cluster.with_nodes(2, zone="a").with_nodes(1, pool="a", zone="b")

    # Nodes

    @rule(cpu=st.sampled_from([2000, 4000, 8000]), pool=st.sampled_from(["", "a"]), zone=st.sampled_from("ab"))
    @precondition(lambda self: len(self.cluster.nodes) < 6)
    def node_comes(self, cpu: int, pool: str, zone: str) -> None:
        self.cluster.with_nodes(1, cpu=cpu, pool=pool, zone=zone)

    @rule(pick=picks)
    def node_goes(self, pick: int) -> None:
        name = _pick(list(self.cluster.nodes), pick)
        if name:
            self.gone_nodes.append(name)
            self.cluster.lose_node(name)

    @rule()
    def pods_of_gone_nodes_are_collected(self) -> None:
        for name in self.gone_nodes:
            self.cluster.collect_pods_of(name)

    @rule(pick=picks, change=st.sampled_from([{"ready": False}, {"unschedulable": True}, {"taints": MAINTENANCE}]))
    def node_becomes_unusable(self, pick: int, change: dict[str, object]) -> None:
        name = _pick(list(self.cluster.nodes), pick)
        if name:
            self.cluster.change_node(name, **change)

    @rule(pick=picks)
    def node_becomes_usable(self, pick: int) -> None:
        name = _pick(list(self.cluster.nodes), pick)
        if name:
            self.cluster.change_node(name, ready=True, unschedulable=False, taints=())

    # Applications

    @rule(
        executors=st.sampled_from([0, 1, 2, 3, 5, 40]),
        more=st.sampled_from([None, 0, 1, 4]),
        size=st.sampled_from(SIZES),
        pool=st.sampled_from(["", "a"]),
        found=st.booleans(),
    )
    @precondition(lambda self: len(self.apps) < 8)
    def submitted(self, executors: int, more: int | None, size: Resources, pool: str, found: bool) -> None:
        spec: Spec = dynamic(executors, None if more is None else executors + more)
        spec = replace(spec, executor=size)
        self.apps.append(self.cluster.submit(spec.in_pool(pool) if pool else spec, found=found))

    @rule(pick=picks)
    def sizes_are_found(self, pick: int) -> None:
        app = self._alive(pick)
        if app is not None:
            app.found()

    @rule(pick=picks)
    def sizes_are_bad(self, pick: int) -> None:
        app = self._alive(pick)
        if app is not None and app.key not in self.cluster.applications:
            app.invalid()

    @rule(executors=st.integers(0, 3), running=st.integers(0, 2), pick=picks)
    @precondition(lambda self: len(self.apps) < 8)
    def submitted_without_webhook(self, executors: int, running: int, pick: int) -> None:
        app = App(self.cluster, f"default/away-{len(self.apps)}-{self.cluster.at:.0f}", static(executors))
        node = self._physical_room(app.spec.driver, pick)
        self.cluster.at += 1
        if node:
            app.submit(found=False, gated=False)
            self.cluster.bind(app.driver, node)
            self.apps.append(app)
            for _ in range(running):
                self.executor_bound_by_kube_scheduler(len(self.apps) - 1, pick)

    @rule(pick=picks)
    def driver_finishes(self, pick: int) -> None:
        app = self._alive(pick)
        if app is not None and app.driver.node:
            app.end()
            self.cluster.applications.pop(app.key, None)

    @rule(pick=picks)
    def application_is_deleted(self, pick: int) -> None:
        if self.apps:
            app = self.apps.pop(pick % len(self.apps))
            app.collect()
            self.cluster.applications.pop(app.key, None)

    # Executors

    @rule(pick=picks, size=st.sampled_from([None, None, None, *SIZES]), profile=st.sampled_from([0, 0, 0, 1]))
    def executor_asks(self, pick: int, size: Resources | None, profile: int) -> None:
        app = self._started(pick)
        if app is None:
            return
        pod = app.executor(profile=profile, requests=size if size is not None else app.spec.executor)
        placement = self.cluster.ask(pod)
        assert self.cluster.ask(pod) == placement, "asking twice gives the same answer"
        self.asked.append((app, pod, placement))

    @rule(pick=picks)
    def executor_appears(self, pick: int) -> None:
        if self.asked:
            app, pod, placement = self.asked.pop(pick % len(self.asked))
            if placement.mode is Mode.HOLD or placement.node in self.cluster.nodes:
                app.appear(pod, placement)

    @rule(pick=picks)
    def executor_starts(self, pick: int) -> None:
        app = self._started(pick)
        if app is not None:
            app.start_executor()

    @rule(pick=picks, count=st.sampled_from([None, 2]))
    def executor_of_client_mode_starts(self, pick: int, count: int | None) -> None:
        app = App(self.cluster, f"default/notebook-{pick % 2}-{count}", dynamic(0))
        pod = replace(
            app.executor(gang_count=count, owner=""), name=f"notebook-{pick % 2}-{count}-{self.cluster.uid()}"
        )
        app.appear(pod, self.cluster.ask(pod))

    @rule(at=picks, pick=picks)
    def executor_bound_by_kube_scheduler(self, at: int, pick: int) -> None:
        """The webhook was away, and kube-scheduler sees pods only, no slots."""
        app = self._started(at)
        node = self._physical_room(app.spec.executor, pick) if app is not None else ""
        if app is not None and node:
            pod = self.cluster.see(replace(app.executor(), uid=self.cluster.uid(), created=self.cluster.at))
            self.cluster.bind(pod, node)

    @rule(pick=picks, gone=st.booleans())
    def executor_ends(self, pick: int, gone: bool) -> None:
        pod = _pick([pod for pod in self.cluster.pods.values() if pod.role is Role.EXECUTOR], pick)
        if pod is not None and gone:
            self.cluster.remove(pod)
        elif pod is not None and pod.node:
            self.cluster.change(pod, finished=True, running=False)

    @rule(pick=picks)
    def executor_shrinks(self, pick: int) -> None:
        pod = _pick([pod for pod in self.cluster.pods.values() if pod.role is Role.EXECUTOR and pod.node], pick)
        if pod is not None:
            self.cluster.change(pod, requests=Resources.of(cpu=500, memory=GIB))

    # Others, time, crashes

    @rule(pick=picks, cpu=st.sampled_from([500, 2000]))
    def other_pod_is_bound(self, pick: int, cpu: int) -> None:
        node = self._physical_room(Resources.of(cpu=cpu), pick)
        if node:
            self.cluster.daemon(node, cpu=cpu)

    @rule(pick=picks)
    def other_pod_ends(self, pick: int) -> None:
        pod = _pick([pod for pod in self.cluster.pods.values() if pod.role is Role.OTHER], pick)
        if pod is not None:
            self.cluster.remove(pod)

    @rule(seconds=st.sampled_from([1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.wait(seconds)
        self.asked = [entry for entry in self.asked if seconds < 30]

    @rule()
    def process_restarts(self) -> None:
        self.asked.clear()
        self.cluster.wait(31)
        before = books(self.cluster)
        self.cluster.restart()
        after = books(self.cluster)
        assert after == before, f"{before} became {after}"

    @rule(writes=st.booleans(), executors=st.integers(0, 2), pick=picks)
    @precondition(lambda self: len(self.apps) < 8)
    def process_crashes_at_a_decision(self, writes: bool, executors: int, pick: int) -> None:
        """Something happens, but what is decided about it is never carried out."""
        self.asked.clear()
        cluster = self.cluster
        cluster.carries_out, cluster.writes = False, writes
        if pick % 2:
            self.apps.append(cluster.submit(static(executors)))
        else:
            self.executor_ends(pick, gone=True)
        cluster.carries_out = cluster.writes = True
        cluster.restart()

    # What must hold

    @invariant()
    def books_are_right(self) -> None:
        self.cluster.scheduler.validate()
        assert self.cluster.overcommitted() == []

    @invariant()
    def nothing_possible_is_left_undone(self) -> None:
        self.cluster.wait(0)  # what an admission entails is decided with the next event
        state = self.cluster.scheduler._state
        for gang in state.gangs.values():
            if gangs.is_ready(gang) and not _is_behind(state, gang):
                assert _plan(state, gang) is None, f"{gang.key} could start"
            if gang.owed:
                assert gang.application is not None
                assert plan_gang(state, None, gang.application.executor, 1) is None, f"{gang.key} is owed"
            for record in gang.held.values():
                assert record.waits
                if gang.executor_seen or not gang.holds:
                    assert not executors.find_room(state, gang, record.pod).node, f"{record.id} could run"

    @invariant()
    def explanations_change_nothing(self) -> None:
        state = self.cluster.scheduler._state
        free, decisions = state.table.free.copy(), len(state.decisions)
        for key in state.gangs:
            assert self.cluster.explain(key).sentence.endswith(".")
        assert np.array_equal(free, state.table.free)
        assert len(state.decisions) == decisions

    def teardown(self) -> None:
        """Liveness: with all nodes usable and everybody ending in time, every gang that can ever fit starts."""
        cluster = self.cluster
        for name in list(cluster.nodes):
            cluster.change_node(name, ready=True, unschedulable=False, taints=())
        for pod in [pod for pod in cluster.pods.values() if pod.role is Role.OTHER]:
            cluster.remove(pod)
        for app in self.apps:
            if app.driver_id in cluster.pods and app.driver.gated and app.key not in cluster.applications:
                app.found()
        for _ in range(len(cluster.pods) + 1):
            cluster.wait(31)
            running = [pod for pod in cluster.pods.values() if not pod.gated or pod.role is Role.EXECUTOR]
            if not running:
                break
            for pod in running:
                if (pod.namespace, pod.name) in cluster.pods:
                    cluster.remove(pod)
        cluster.wait(31)
        for key, status in cluster.scheduler.applications().items():
            assert status.phase is Phase.PENDING, f"{key} is {status.phase}"
            assert status.reason == "ExceedsCluster", f"{key} waits: {status.message}"
        table = cluster.scheduler._state.table
        assert np.array_equal(table.free, table.allocatable), "nothing leaks"

    # Choices

    def _alive(self, pick: int) -> App | None:
        return _pick([a for a in self.apps if a.driver_id in self.cluster.pods and not a.driver.finished], pick)

    def _started(self, pick: int) -> App | None:
        return _pick([a for a in self.apps if a.driver_id in self.cluster.pods and a.driver.node], pick)

    def _physical_room(self, requests: Resources, pick: int) -> str:
        """A node on which kube-scheduler, who knows nothing of slots, would put such a pod."""
        used = self.cluster.used()
        promised = [(placement.node, pod.requests) for _, pod, placement in self.asked if placement.node]
        fitting = []
        for name, node in self.cluster.nodes.items():
            total = used.get(name, Resources()) + requests
            for _, amounts in (entry for entry in promised if entry[0] == name):
                total += amounts
            usable = node.ready and not node.unschedulable and not node.taints
            if usable and all(amount <= node.allocatable.get(r) for r, amount in total.amounts):
                fitting.append(name)
        return _pick(fitting, pick) or ""


def books(cluster: Cluster) -> dict[str, object]:
    """What is held, by whom and where; of ended applications only the room their last executors take."""
    state = cluster.scheduler._state
    held = {
        key: (gang.phase, gang.running, sorted(gang.held), gang.placed, gang.unfilled, gang.owed, gang.driver_slot)
        for key, gang in sorted(state.gangs.items())
        if gang.application is not None and gang.phase is not Phase.FINISHED
    }
    return {"held": held, "free": {name: state.table.free[:, row].tolist() for name, row in state.table.index.items()}}


def _pick(options: list[T], pick: int) -> T | None:
    return options[pick % len(options)] if options else None


def _plan(state: State, gang: Gang) -> object:
    assert gang.application is not None
    return plan_gang(state, gangs.driver_shape(gang), gang.application.executor, gang.application.minimum)


def _is_behind(state: State, gang: Gang) -> bool:
    blocker = state.blockers.get(gang.pool)
    return blocker is not None and blocker < gang.waiting


TestClusterLife = ClusterLife.TestCase
TestClusterLife.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
