"""Random lives under pressure: minimums are kept, nothing goes in vain, and nobody waits for what others were lent."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.cluster.resources import Resources
from muster.queueing.preemption import Room
from muster.scheduling import gangs, lending
from muster.scheduling.config import PressureConfig, SchedulerConfig
from muster.scheduling.decisions import Decision, Evict
from muster.scheduling.model import Role
from muster.scheduling.records import Gang
from muster.scheduling.state import State
from tests.scheduling.cluster_story import EXECUTOR, GIB, App, Cluster, Spec

SMALL, LARGE = Resources.of(cpu=1000, memory=2 * GIB), Resources.of(cpu=5000, memory=8 * GIB)
SPECS = st.builds(
    lambda minimum, more, size: Spec(minimum, None if more is None else minimum + more, executor=size),
    st.sampled_from([0, 1, 2, 4]),
    st.sampled_from([None, None, 0, 3]),
    st.sampled_from([EXECUTOR, EXECUTOR, SMALL, LARGE]),
)
ACTIONS = st.one_of(
    st.tuples(st.just("submit"), SPECS),
    st.tuples(st.just("grow"), st.integers(0, 9)),
    st.tuples(st.just("grow"), st.integers(0, 9)),
    st.tuples(st.just("lose"), st.integers(0, 99)),
    st.tuples(st.just("end"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 6.0, 30.0])),
)


class PressedCluster(Cluster):
    """Looks at each eviction before it is carried out."""

    def __init__(self) -> None:
        self.called_back = 0
        super().__init__(SchedulerConfig(pressure=PressureConfig(after=5.0, interval=10.0, grace=20.0)))

    def _take(self, decided: list[Decision]) -> list[Decision]:
        evictions = [one for one in decided if isinstance(one, Evict)]
        self.called_back += len(evictions)
        for key in {one.key for one in evictions}:
            gang = state_of(self).gangs[key]
            leaving = [r for r in gang.pods.values() if r.leaving or r.pod.terminating]
            assert all(record.pod.role is Role.EXECUTOR for record in leaving)
            assert gang.placed_in_gang - len(leaving) >= gang.minimum, f"{key} is left with less than its minimum"
        return super()._take(decided)


def state_of(cluster: Cluster) -> State:
    return cluster.scheduler._state


def act(cluster: Cluster, apps: list[App], what: str, how: object) -> None:
    running = [app for app in apps if app.driver_id in cluster.pods and app.driver.node and not app.driver.finished]
    match what, how:
        case "submit", Spec() if len(apps) < 6:
            apps.append(cluster.submit(how))
        case "grow", int() if running:
            running[how % len(running)].start_executors(3)
        case "lose", int():
            pods = [pod for pod in cluster.pods.values() if pod.role is Role.EXECUTOR]
            if pods:
                cluster.remove(pods[how % len(pods)])
        case "end", int() if running:
            running[how % len(running)].end().collect()
        case "wait", float():
            cluster.wait(how)


def would_fit_without_extras(state: State, gang: Gang) -> bool:
    """Whether all that others have above their minimums would make room: pods of a kind are alike here."""
    extras = []
    for lender in state.gangs.values():
        if lender is not gang and lender.holds:
            records = [record for record in lender.pods.values() if record.in_gang]
            extras += [Room(lender.key, r.room, r.charged) for r in records[: lender.placed_in_gang - lender.minimum]]
    trial = lending.Trial(state, gang)
    trial.free(extras)
    try:
        return trial.fits()
    finally:
        trial.take_back(extras)


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS, min_size=10, max_size=50), st.integers(1, 3))
def test_minimums_are_kept_and_nobody_waits_for_what_was_lent(actions: list[tuple[str, object]], nodes: int) -> None:
    cluster, apps = PressedCluster(), list[App]()
    cluster.with_nodes(nodes)
    for what, how in [("submit", Spec(1, None)), *[("grow", 0)] * nodes, *actions]:
        act(cluster, apps, what, how)
        cluster.scheduler.validate()
        assert cluster.overcommitted() == []

    for _ in range(40):
        cluster.wait(10.0)
    cluster.scheduler.validate()

    state = state_of(cluster)
    for blocker in state.blockers.values():
        gang = state.gangs[blocker.key]
        if gangs.is_ready(gang) or gang.owed:
            assert not would_fit_without_extras(state, gang), f"{gang.key} waits for what others were lent"
    assert not state.leaving, "what was called back is gone"


def test_such_lives_do_come_under_pressure() -> None:
    """The property above is about something: this life is one of them."""
    cluster, apps = PressedCluster(), list[App]()
    cluster.with_nodes(1)
    for what, how in (("submit", Spec(0, None)), ("grow", 0), ("submit", Spec(1, None)), ("wait", 6.0)):
        act(cluster, apps, what, how)
    assert cluster.called_back == 1
