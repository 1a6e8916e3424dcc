"""Who gives room back, and that a plan takes no more than it must, from nobody who is protected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.resources import Resources
from muster.queueing.config import Preemption
from muster.queueing.preemption import (
    Candidate,
    Claimant,
    ExecutorLoss,
    Holder,
    PreemptionPlan,
    Room,
    Standing,
    dominant_share,
    loss_by_age,
    plan,
)

CORE = Resources.of(cpu=1000)
CLUSTER = Resources.of(cpu=100_000)


class CoresOnNodes:
    """The claimant needs ``count`` pods of ``each`` cores, anywhere; literal arithmetic in whole cores."""

    def __init__(self, count: int, each: int = 1) -> None:
        self.count, self.each = count, each
        self.freed: dict[str, int] = {}

    def free(self, rooms: Sequence[Room]) -> None:
        for room in rooms:
            self.freed[room.node] = self.freed.get(room.node, 0) + room.count * room.amounts.get("cpu") // 1000

    def take_back(self, rooms: Sequence[Room]) -> None:
        for room in rooms:
            self.freed[room.node] -= room.count * room.amounts.get("cpu") // 1000

    def fits(self) -> bool:
        return sum(cores // self.each for cores in self.freed.values()) >= self.count


def executor(
    key: str,
    node: str = "n1",
    *,
    cores: int = 1,
    lost: float = 0.0,
    shuffle: bool | None = None,
    age: float = 60.0,
    profile: int = 0,
) -> Candidate:
    return Candidate(key, node, CORE.times(cores), ExecutorLoss(lost, shuffle), age, 30.0, profile)


def driver(key: str, node: str = "n1", lost: float = 0.0) -> Candidate:
    return Candidate(key, node, CORE, ExecutorLoss(lost), 60.0, 30.0, driver=True)


def holder(
    key: str,
    *pods: Candidate,
    queue: str = "default",
    spare: int = 0,
    slots: tuple[Room, ...] = (),
    priority: int = 0,
    seconds: float = 3600.0,
) -> Holder:
    return Holder(key, queue, pods, ((0, spare),) if spare else (), slots, priority, seconds)


def standing(
    used: int,
    fair: float = 0.0,
    guaranteed: int = 0,
    preemption: Preemption = Preemption.EXTRAS,
    parent: str = "",
    min_runtime: float = 0.0,
) -> Standing:
    return Standing(CORE.times(used), fair, CORE.times(guaranteed), parent, preemption, min_runtime)


ONE_QUEUE = {"default": standing(50, fair=1.0)}


def planned(
    holders: Sequence[Holder],
    *,
    need: int,
    each: int = 1,
    queue: str = "default",
    queues: Mapping[str, Standing] = ONE_QUEUE,
    priority: int = 0,
    round_limit: int = 1,
) -> PreemptionPlan:
    trial = CoresOnNodes(need, each)
    claimant = Claimant("claimant", queue, CORE.times(need * each), priority)
    found = plan(claimant, holders, queues, CLUSTER, trial, round_limit=round_limit)
    assert not any(trial.freed.values()), "the trial is left as it was found"
    return found


def pods_of(found: PreemptionPlan) -> list[str]:
    return [victim.pod for victim in found.victims]


def test_only_executors_above_the_minimum_are_taken_back() -> None:
    lender = holder("lender", driver("d"), executor("e1"), executor("e2"), executor("e3"), spare=2)
    assert len(planned([lender], need=2).victims) == 2
    assert planned([lender], need=3).victims == ()


def test_nothing_is_evicted_in_vain() -> None:
    found = planned([holder("lender", executor("e1"), spare=1)], need=2)
    assert found.victims == ()
    assert found.reason == "what may be taken back would not make room for it"


def test_a_claimant_that_fits_takes_nothing() -> None:
    found = planned([holder("lender", executor("e1"), spare=1)], need=0)
    assert found.victims == ()
    assert found.reason == "it fits without taking anything back"


def test_executors_without_shuffle_data_go_before_those_that_lose_least_and_the_youngest() -> None:
    lender = holder(
        "lender",
        executor("keeps-shuffle", lost=1, shuffle=True),
        executor("lost-200", lost=200, shuffle=False),
        executor("lost-100-old", lost=100, shuffle=False, age=90),
        executor("lost-100-young", lost=100, shuffle=False, age=10),
        executor("unknown", lost=5),
        spare=5,
    )
    order = ["lost-100-young", "lost-100-old", "lost-200", "keeps-shuffle", "unknown"]
    for count in range(1, 6):
        assert sorted(pods_of(planned([lender], need=count))) == sorted(order[:count])


def test_the_queue_furthest_over_its_fair_share_gives_first_and_only_until_another_is() -> None:
    queues = {
        "claimant": standing(0, fair=0.4),
        "far": standing(44, fair=0.3),  # 14 % over
        "near": standing(41, fair=0.3),  # 11 % over
    }
    far = holder("far", *(executor(f"far-{i}", lost=9) for i in range(9)), queue="far", spare=9)
    near = holder("near", *(executor(f"near-{i}", lost=1) for i in range(9)), queue="near", spare=9)
    assert {name[:3] for name in pods_of(planned([near, far], need=3, queue="claimant", queues=queues))} == {"far"}
    names = [name.split("-")[0] for name in pods_of(planned([near, far], need=7, queue="claimant", queues=queues))]
    assert (names.count("far"), names.count("near")) == (5, 2)


def test_a_queue_never_gives_below_its_guarantee() -> None:
    queues = {"claimant": standing(0, fair=0.5), "lender": standing(10, fair=0.5, guaranteed=8)}
    lender = holder("lender", *(executor(f"e{i}") for i in range(10)), queue="lender", spare=10)
    assert len(planned([lender], need=2, queue="claimant", queues=queues).victims) == 2
    assert planned([lender], need=3, queue="claimant", queues=queues).victims == ()


def test_the_guarantee_of_a_parent_protects_its_children_from_others_but_not_from_each_other() -> None:
    queues = {
        "other": standing(0, fair=0.5),
        "team": standing(10, fair=0.5, guaranteed=10),
        "a": standing(10, fair=0.5, parent="team"),
        "b": standing(0, fair=0.5, parent="team"),
    }
    lender = holder("lender", executor("e1"), queue="a", spare=1)
    assert planned([lender], need=1, queue="other", queues=queues).victims == ()
    assert pods_of(planned([lender], need=1, queue="b", queues=queues)) == ["e1"]


def test_a_queue_that_lends_nothing_is_left_alone() -> None:
    queues = {"default": standing(10, preemption=Preemption.NEVER)}
    assert planned([holder("lender", executor("e1"), spare=1)], need=1, queues=queues).victims == ()


def test_neighbours_go_where_one_pod_needs_the_room_of_two() -> None:
    """The two cheapest are on different nodes, and two are all that the application can spare."""
    lender = holder(
        "lender",
        executor("a1", "a", lost=1),
        executor("b1", "b", lost=2),
        executor("c1", "c", lost=8),
        executor("c2", "c", lost=9),
        spare=2,
    )
    assert sorted(pods_of(planned([lender], need=1, each=2))) == ["c1", "c2"]


APPLICATIONS = {
    "claimant": standing(10, fair=0.5),
    "over": standing(80, fair=0.5, preemption=Preemption.APPLICATIONS, min_runtime=600),
}


def test_a_whole_application_goes_with_its_driver_where_the_policy_says_so() -> None:
    kept = Room("whole", "n1", CORE, 2)
    whole = holder("whole", driver("d"), executor("e1"), queue="over", slots=(kept,))
    found = planned([whole], need=4, queue="claimant", queues=APPLICATIONS)
    assert pods_of(found) == ["d", "e1"]
    assert all(victim.whole for victim in found.victims)
    extras_only = APPLICATIONS | {"over": standing(80, fair=0.5)}
    assert planned([whole], need=4, queue="claimant", queues=extras_only).victims == ()


def test_extras_spare_whole_applications() -> None:
    whole = holder("whole", driver("d"), executor("e1"), queue="over")
    lender = holder("lender", executor("x1", lost=1e6), executor("x2", lost=1e6), queue="over", spare=2)
    assert sorted(pods_of(planned([whole, lender], need=2, queue="claimant", queues=APPLICATIONS))) == ["x1", "x2"]


def test_an_application_that_has_not_run_for_the_minimum_time_is_protected() -> None:
    young = holder("young", driver("d"), executor("e1"), queue="over", seconds=599)
    assert planned([young], need=2, queue="claimant", queues=APPLICATIONS).victims == ()


def test_no_more_applications_go_at_once_than_the_round_limit() -> None:
    some = [holder(f"app-{i}", driver(f"d{i}"), executor(f"e{i}"), queue="over") for i in range(3)]
    assert planned(some, need=4, queue="claimant", queues=APPLICATIONS, round_limit=1).victims == ()
    found = planned(some, need=4, queue="claimant", queues=APPLICATIONS, round_limit=2)
    assert len({victim.application for victim in found.victims}) == 2


def test_no_ping_pong_a_claimant_that_would_be_over_its_own_share_preempts_no_application() -> None:
    queues = APPLICATIONS | {"claimant": standing(49, fair=0.5)}
    whole = holder("whole", driver("d"), executor("e1"), queue="over")
    assert planned([whole], need=2, queue="claimant", queues=queues).victims == ()


def test_in_its_own_queue_an_application_preempts_those_of_lower_priority_only() -> None:
    queues = {"default": standing(50, fair=0.1, preemption=Preemption.APPLICATIONS)}
    low, same = holder("low", driver("dl"), priority=1), holder("same", driver("ds"), priority=5)
    assert pods_of(planned([low, same], need=1, queues=queues, priority=5)) == ["dl"]
    assert planned([same], need=1, queues=queues, priority=5).victims == ()


def test_the_lowest_priority_and_then_the_least_loss_goes_first() -> None:
    queues = {"default": standing(50, fair=0.1, preemption=Preemption.APPLICATIONS)}
    some = [
        holder("two", driver("d2", lost=1), priority=2),
        holder("one-dear", driver("d1b", lost=9), priority=1),
        holder("one-cheap", driver("d1a", lost=3), priority=1),
    ]
    assert pods_of(planned(some, need=1, queues=queues, priority=9)) == ["d1a"]


def test_each_victim_has_its_reason_and_the_losses_are_summed() -> None:
    lender = holder("lender", executor("e1", lost=120, shuffle=False), executor("e2", lost=30, shuffle=True), spare=2)
    found = planned([lender], need=2)
    assert found.core_seconds == 150
    assert [victim.reason for victim in found.victims] == [
        "e1 is an executor above the minimum of lender, whose queue default holds 50.0% of the cluster of a fair "
        "100.0%; it keeps no shuffle data, at most 120 core-seconds are lost",
        "e2 is an executor above the minimum of lender, whose queue default holds 49.0% of the cluster of a fair "
        "100.0%; it keeps shuffle data, at most 30 core-seconds are lost",
    ]


def test_without_knowledge_a_pod_loses_what_its_cores_have_done_since_it_started() -> None:
    assert loss_by_age(90.0, Resources.of(cpu=2500)) == ExecutorLoss(225.0, None)
    assert loss_by_age(-1.0, CORE) == ExecutorLoss(0.0, None)


def test_the_dominant_share_is_of_the_scarcest_resource() -> None:
    """Ghodsi et al., the example of §4: 9 CPUs and 18 GB; user A runs 3 tasks of (1 CPU, 4 GB)."""
    total = Resources.of(cpu=9000, memory=18)
    assert dominant_share(Resources.of(cpu=3000, memory=12), total) == pytest.approx(2 / 3)


# Properties

QUEUES = ("a", "b", "c")
NODES = ("n1", "n2", "n3")


@st.composite
def standings(draw: st.DrawFn) -> dict[str, Standing]:
    queues = {
        "team": standing(draw(st.integers(20, 60)), draw(st.floats(0, 1)), draw(st.integers(0, 60))),
    }
    for name in QUEUES:
        queues[name] = standing(
            draw(st.integers(5, 40)),
            draw(st.floats(0, 1)),
            draw(st.integers(0, 40)),
            draw(st.sampled_from(Preemption)),
            draw(st.sampled_from(["", "team"])),
            draw(st.sampled_from([0.0, 600.0])),
        )
    return queues


@st.composite
def holders_of(draw: st.DrawFn, number: int) -> Holder:
    key = f"app-{number}"
    executors = [
        executor(
            f"{key}-{i}",
            draw(st.sampled_from(NODES)),
            cores=draw(st.integers(1, 3)),
            lost=draw(st.integers(0, 5)),
            shuffle=draw(st.sampled_from([None, True, False])),
            age=draw(st.integers(0, 5)),
            profile=draw(st.sampled_from([0, 0, 1])),
        )
        for i in range(draw(st.integers(0, 4)))
    ]
    return Holder(
        key,
        draw(st.sampled_from(QUEUES)),
        (driver(f"{key}-driver", draw(st.sampled_from(NODES))), *executors),
        ((0, draw(st.integers(0, 3))), (1, draw(st.integers(0, 3)))),
        (Room(key, draw(st.sampled_from(NODES)), CORE, 1),) if draw(st.booleans()) else (),
        draw(st.integers(0, 3)),
        draw(st.sampled_from([60.0, 900.0])),
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Holder], dict[str, Standing], int, int, int, str, int]:
    holders = [draw(holders_of(i)) for i in range(draw(st.integers(1, 6)))]
    each, need = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    return (
        holders,
        draw(standings()),
        need,
        each,
        draw(st.integers(0, 3)),
        draw(st.sampled_from(QUEUES)),
        draw(st.integers(0, 3)),
    )


def _rooms(found: PreemptionPlan, holders: Sequence[Holder], without: str = "") -> list[Room]:
    """What becomes free by a plan, without one extra (a pod's key) or one whole application (its key)."""
    by_key = {holder.key: holder for holder in holders}
    rooms, whole = [], set()
    for victim in found.victims:
        if without and without == (victim.application if victim.whole else victim.pod):
            continue
        pod = next(pod for pod in by_key[victim.application].pods if pod.key == victim.pod)
        rooms.append(Room(victim.application, pod.node, pod.amounts))
        if victim.whole:
            whole.add(victim.application)
    for key in whole:
        rooms.extend(by_key[key].slots)
    return rooms


def _fits_with(rooms: Sequence[Room], need: int, each: int) -> bool:
    trial = CoresOnNodes(need, each)
    trial.free(rooms)
    return trial.fits()


@given(situations())
def test_a_plan_is_empty_or_sufficient_and_nobody_in_it_could_be_spared(
    situation: tuple[list[Holder], dict[str, Standing], int, int, int, str, int],
) -> None:
    holders, queues, need, each, limit, queue, priority = situation
    found = planned(holders, need=need, each=each, queue=queue, queues=queues, priority=priority, round_limit=limit)
    if not found.victims:
        assert found.reason
        return
    assert _fits_with(_rooms(found, holders), need, each)
    for victim in found.victims:
        spared = victim.application if victim.whole else victim.pod
        assert not _fits_with(_rooms(found, holders, without=spared), need, each), f"{spared} could be spared"


@given(situations())
def test_nobody_who_is_protected_is_in_a_plan(
    situation: tuple[list[Holder], dict[str, Standing], int, int, int, str, int],
) -> None:
    holders, queues, need, each, limit, queue, priority = situation
    found = planned(holders, need=need, each=each, queue=queue, queues=queues, priority=priority, round_limit=limit)
    by_key = {holder.key: holder for holder in holders}
    victims = [(victim, by_key[victim.application]) for victim in found.victims]
    pods = [victim.pod for victim in found.victims]
    assert len(set(pods)) == len(pods), "nobody goes twice"
    assert all(queues[holder.queue].preemption is not Preemption.NEVER for _, holder in victims)
    assert all(victim.reason for victim, _ in victims)
    for key in {victim.application for victim in found.victims}:
        holder, standing_ = by_key[key], queues[by_key[key].queue]
        mine = [victim for victim in found.victims if victim.application == key]
        if any(victim.whole for victim in mine):
            assert {victim.pod for victim in mine} == {pod.key for pod in holder.pods}, "whole means whole"
            assert standing_.preemption is Preemption.APPLICATIONS
            assert holder.seconds >= standing_.min_runtime_seconds
            if holder.queue == queue:
                assert holder.priority < priority
            else:
                grown = queues[queue].used.get("cpu") + need * each * 1000
                assert grown / CLUSTER.get("cpu") <= queues[queue].fair_share, "no ping-pong"
                assert standing_.used.get("cpu") / CLUSTER.get("cpu") > standing_.fair_share
        else:
            assert not any(victim.driver for victim in mine), "no driver without its application"
            profile = {pod.key: pod.profile for pod in holder.pods}
            for number, spare in holder.spare:
                assert sum(profile[victim.pod] == number for victim in mine) <= spare
    assert len({victim.application for victim in found.victims if victim.whole}) <= limit


@given(situations())
def test_no_queue_falls_below_its_guarantee_for_a_claimant_from_elsewhere(
    situation: tuple[list[Holder], dict[str, Standing], int, int, int, str, int],
) -> None:
    holders, queues, need, each, limit, queue, priority = situation
    found = planned(holders, need=need, each=each, queue=queue, queues=queues, priority=priority, round_limit=limit)
    own = {queue, queues[queue].parent}
    queue_of = {holder.key: holder.queue for holder in holders}
    lost: dict[str, int] = {}
    for room in _rooms(found, holders):
        name = queue_of[room.application]
        while name and name not in own:
            lost[name] = lost.get(name, 0) + room.count * room.amounts.get("cpu")
            name = queues[name].parent
    for name, amount in lost.items():
        assert queues[name].used.get("cpu") - amount >= queues[name].guaranteed.get("cpu"), name


@given(situations(), st.randoms(use_true_random=False))
def test_the_order_in_which_holders_are_told_does_not_matter(
    situation: tuple[list[Holder], dict[str, Standing], int, int, int, str, int], random: object
) -> None:
    holders, queues, need, each, limit, queue, priority = situation
    first = planned(holders, need=need, each=each, queue=queue, queues=queues, priority=priority, round_limit=limit)
    shuffled = list(holders)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    queues = dict(sorted(queues.items(), reverse=True))
    again = planned(shuffled, need=need, each=each, queue=queue, queues=queues, priority=priority, round_limit=limit)
    assert again == first
