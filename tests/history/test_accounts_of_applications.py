"""Sums of what an application held and wasted: by hand for plain lives, against a scan of every second for any life."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.resources import Resources
from muster.control.extender.placement_metrics import zone_traffic
from muster.history.accounts import Account, PodShare

DRIVER = Resources.of(cpu=500, memory=100)
EXECUTOR = Resources.of(cpu=2000, memory=1000)


def driver_pod() -> PodShare:
    return PodShare(DRIVER, executor=False, in_gang=False)


def executor_pod(*, in_gang: bool = True) -> PodShare:
    return PodShare(EXECUTOR, executor=True, in_gang=in_gang)


def sized_account() -> Account:
    account = Account(0.0)
    account.sized(0.0, DRIVER, EXECUTOR)
    return account


def test_a_gang_holds_its_slots_before_its_pods_come() -> None:
    account = sized_account()
    account.reserved(10.0, 2, driver=True)
    account.bound(12.0, driver_pod(), "a", ready=True)  # 2 s for the driver's slot
    first, second = executor_pod(), executor_pod()
    account.bound(15.0, first, "a", ready=True)  # 5 s for the first slot
    account.bound(20.0, second, "a", ready=True)  # 10 s for the second one
    use = account.use(110.0)
    assert use.unbound_slot_seconds == 2 + 5 + 10
    assert use.unbound_core_seconds == 2 * 0.5 + 5 * 2 + 10 * 2
    assert use.core_seconds == 100 * 0.5 + 2 * 100 * 2
    assert use.memory_byte_seconds == 100 * 100 + 2 * 100 * 1000
    assert use.idle_core_seconds == use.lost_core_seconds == 0
    assert account.most_executors == 2


def test_an_executor_that_ends_leaves_its_slot_to_the_next_one() -> None:
    account = sized_account()
    account.reserved(0.0, 1, driver=False)
    first = executor_pod()
    account.bound(0.0, first, "a", ready=True)
    account.left(10.0, first)
    account.bound(13.0, executor_pod(), "a", ready=True)
    assert account.use(20.0).unbound_slot_seconds == 3
    assert account.most_executors == 1


def test_extras_and_other_profiles_fill_no_slot() -> None:
    account = sized_account()
    account.reserved(0.0, 1, driver=False)
    account.bound(0.0, executor_pod(in_gang=False), "a", ready=True)
    assert account.use(4.0).unbound_slot_seconds == 4
    account.bound(4.0, executor_pod(), "a", ready=True)
    account.bound(4.0, executor_pod(), "a", ready=True)
    assert account.use(9.0).unbound_slot_seconds == 4


def test_executors_are_idle_until_their_containers_are_ready() -> None:
    account = sized_account()
    pod = executor_pod()
    account.bound(0.0, pod, "a", ready=False)
    account.ready(7.0, pod, True)
    account.ready(20.0, pod, False)
    account.left(21.0, pod)
    use = account.use(30.0)
    assert (use.idle_pod_seconds, use.idle_core_seconds) == (8, 16)


def test_a_waiting_driver_is_not_idle() -> None:
    account = sized_account()
    account.bound(0.0, driver_pod(), "a", ready=False)
    assert account.use(5.0).idle_pod_seconds == 0


def test_evicted_executors_lose_what_they_held_and_others_nothing() -> None:
    account = sized_account()
    evicted, done = executor_pod(), executor_pod()
    account.bound(0.0, evicted, "a", ready=True)
    account.bound(0.0, done, "a", ready=True)
    evicted.evicted = True
    account.left(30.0, evicted)
    account.left(40.0, done)
    assert account.use(50.0).lost_core_seconds == 60


def test_with_an_evicted_driver_everything_is_lost() -> None:
    account = sized_account()
    driver = driver_pod()
    account.bound(0.0, driver, "a", ready=True)
    account.bound(0.0, executor_pod(), "a", ready=True)
    driver.evicted = True
    account.left(10.0, driver)
    assert account.use(12.0).lost_core_seconds == 10 * 2.5


def test_a_pod_that_was_there_before_is_counted_from_when_it_was_bound() -> None:
    account = Account(100.0)
    account.bound(100.0, executor_pod(), "a", ready=True, since=40.0)
    use = account.use(110.0)
    assert use.core_seconds == 70 * 2
    assert use.memory_byte_seconds == 70 * 1000


def test_time_that_stands_still_adds_nothing() -> None:
    account = sized_account()
    account.reserved(5.0, 3, driver=True)
    assert account.use(5.0) == account.use(5.0) == Account(5.0).use(5.0)


@pytest.mark.parametrize("zones", ["aaab", "abc", "aa", "a", "aabbcc"])
def test_pairs_over_zones_are_counted_as_the_archived_scheduler_does(zones: str) -> None:
    account = sized_account()
    for zone in zones:
        account.bound(0.0, executor_pod(), zone, ready=True)
    traffic = zone_traffic(Counter(zones).values())
    assert account.most_cross_zone == (traffic.cross_zone, traffic.total)
    use = account.use(10.0)
    assert (use.cross_zone_pair_seconds, use.pair_seconds) == (10 * traffic.cross_zone, 10 * traffic.total)


def test_pods_that_leave_take_their_pairs_with_them() -> None:
    account = sized_account()
    pods = [executor_pod() for _ in "aabc"]
    for pod, zone in zip(pods, "aabc", strict=True):
        account.bound(0.0, pod, zone, ready=True)
    account.left(0.0, pods[0])  # leaves a, b and c: three pairs, all of them over zones
    use = account.use(10.0)
    assert (use.cross_zone_pair_seconds, use.pair_seconds) == (30, 30)
    assert account.most_cross_zone == (5, 6)


Change = tuple[str, int]
changes = st.lists(
    st.tuples(st.sampled_from(["bind", "ready", "unready", "leave", "evict", "reserve", "wait"]), st.integers(0, 5)),
    min_size=10,
    max_size=60,
)


class _Literal:
    """The same life, one second at a time: what is so now is looked up anew and added."""

    def __init__(self) -> None:
        self.pods: dict[int, tuple[str, bool, int]] = {}
        self.slots = 0
        self.core = self.unbound = self.idle = self.pairs = self.cross = self.lost = 0
        self.most = 0

    def second(self) -> None:
        executors = len(self.pods)
        unfilled = max(0, self.slots - executors)
        self.unbound += unfilled
        self.core += (executors + unfilled) * 2
        self.idle += sum(not ready for _, ready, _ in self.pods.values())
        places = [zone for zone, _, _ in self.pods.values()]
        for number, one in enumerate(places):
            for other in places[:number]:
                self.pairs += 1
                self.cross += one != other
        self.most = max(self.most, executors)


@given(changes)
def test_any_life_adds_up_to_what_a_scan_of_every_second_finds(life: list[Change]) -> None:
    account, literal = sized_account(), _Literal()
    pods: dict[int, PodShare] = {}
    at = 0
    for what, number in life:
        pod = pods.get(number)
        if what == "wait":
            for _ in range(number):
                literal.second()
            at += number
        elif what == "reserve":
            account.reserved(at, number, driver=False)
            literal.slots = number
        elif what == "bind" and pod is None:
            pods[number] = executor_pod()
            zone = "abc"[number % 3]
            account.bound(at, pods[number], zone, ready=False)
            literal.pods[number] = (zone, False, at)
            literal.most = max(literal.most, len(literal.pods))
        elif what in ("ready", "unready") and pod is not None:
            account.ready(at, pod, what == "ready")
            zone, _, since = literal.pods[number]
            literal.pods[number] = (zone, what == "ready", since)
        elif what in ("leave", "evict") and pod is not None:
            pod.evicted = what == "evict"
            account.left(at, pods.pop(number))
            _, _, since = literal.pods.pop(number)
            literal.lost += 2 * (at - since) * (what == "evict")
    use = account.use(at)
    assert use.core_seconds == literal.core
    assert use.unbound_slot_seconds == literal.unbound
    assert use.idle_pod_seconds == literal.idle
    assert (use.cross_zone_pair_seconds, use.pair_seconds) == (literal.cross, literal.pairs)
    assert use.lost_core_seconds == literal.lost
    assert account.most_executors == literal.most
    assert account.executors == len(literal.pods)
