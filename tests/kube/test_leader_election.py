"""At most one leads at any moment, by everybody's own clock; somebody leads when the API works."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.kube.errors import ApiError
from muster.kube.kinds import LEASES
from muster.kube.lease import LeaderElection, LeaseTiming

PATH = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/muster"


def candidate(api, identity: str, **more) -> LeaderElection:
    return LeaderElection(api, "ns", "muster", identity, random=lambda: 0.0, **more)


async def test_the_first_one_gets_the_lease_and_keeps_it(memory_api, clock):
    first, second = candidate(memory_api, "first"), candidate(memory_api, "second")
    assert await first.attempt()
    assert not await second.attempt()
    for _ in range(30):
        clock.now += 2
        assert await first.attempt()
        assert not await second.attempt()
    assert second.holder == "first"


async def test_the_lease_is_written_as_client_go_writes_it(memory_api):
    await candidate(memory_api, "first").attempt()
    assert memory_api.stored[PATH]["spec"] == {
        "holderIdentity": "first",
        "leaseDurationSeconds": 15,
        "acquireTime": "2027-01-15T08:00:00.000000Z",
        "renewTime": "2027-01-15T08:00:00.000000Z",
        "leaseTransitions": 0,
    }


async def test_renewing_keeps_the_time_of_acquisition_and_counts_no_transition(memory_api, clock):
    first = candidate(memory_api, "first")
    await first.attempt()
    clock.now += 2
    await first.attempt()
    spec = memory_api.stored[PATH]["spec"]
    assert (spec["acquireTime"], spec["renewTime"]) == ("2027-01-15T08:00:00.000000Z", "2027-01-15T08:00:02.000000Z")
    assert spec["leaseTransitions"] == 0


async def test_a_silent_holder_is_followed_after_a_whole_lease_duration_of_watching(memory_api, clock):
    first, second = candidate(memory_api, "first"), candidate(memory_api, "second")
    await first.attempt()
    clock.now += 100
    assert not await second.attempt(), "the second has only just seen it: the time written in it counts for nothing"
    clock.now += 14.9
    assert not await second.attempt()
    clock.now += 0.2
    assert await second.attempt()
    assert memory_api.stored[PATH]["spec"]["leaseTransitions"] == 1


async def test_a_paused_leader_knows_on_waking_that_it_leads_no_more(memory_api, clock):
    leader = candidate(memory_api, "first")
    await leader.attempt()
    clock.now += 9.9
    assert leader.is_leader()
    clock.now += 0.2
    assert not leader.is_leader()


async def test_a_leader_that_was_paused_while_another_led_is_told_so_even_if_it_leads_again_at_once(memory_api, clock):
    told: list[bool] = []
    leader, other = candidate(memory_api, "first", on_change=told.append), candidate(memory_api, "second")
    await leader.attempt()
    term = leader.term
    await other.attempt()
    clock.now += 15.1
    assert await other.attempt()
    await other.release()
    assert await leader.attempt()
    assert told == [True, False, True]
    assert leader.leads_in(leader.term) and not leader.leads_in(term)


async def test_renewing_in_time_goes_on_with_the_same_term(memory_api, clock):
    leader = candidate(memory_api, "first")
    await leader.attempt()
    term = leader.term
    for _ in range(10):
        clock.now += 9
        await leader.attempt()
        assert leader.leads_in(term)


async def test_leadership_is_counted_from_before_the_request_not_from_its_answer(memory_api, clock):
    leader = candidate(memory_api, "first")

    async def slow():
        clock.now += 4

    memory_api._after = slow
    await leader.attempt()
    # two requests of 4 s (look, create): 2 s are left of 10
    clock.now += 1.9
    assert leader.is_leader()
    clock.now += 0.2
    assert not leader.is_leader()


async def test_a_leader_who_finds_another_holder_stops_at_once(memory_api, clock):
    leader = candidate(memory_api, "first")
    await leader.attempt()
    memory_api.stored[PATH]["spec"]["holderIdentity"] = "usurper"
    memory_api.stored[PATH]["metadata"]["resourceVersion"] = "99"
    clock.now += 2
    await leader.attempt()  # conflict: somebody wrote, perhaps our own lost renewal
    await leader.attempt()  # looks, and sees who
    assert not leader.is_leader()


async def test_a_renewal_whose_answer_was_lost_does_not_cost_the_leadership(memory_api, clock):
    leader = candidate(memory_api, "first")
    await leader.attempt()

    async def lost():
        memory_api._after = None
        raise ApiError("PUT", 0, "Unreachable", "")

    memory_api._after = lost
    clock.now += 2
    await leader.attempt()
    clock.now += 2
    assert await leader.attempt()
    assert memory_api.stored[PATH]["spec"]["renewTime"].endswith("08:00:04.000000Z")


async def test_a_released_lease_is_taken_without_a_wait(memory_api):
    changes: list[bool] = []
    first, second = candidate(memory_api, "first", on_change=changes.append), candidate(memory_api, "second")
    await first.attempt()
    assert not await second.attempt()
    await first.release()
    assert changes == [True, False]
    assert not first.is_leader()
    assert await second.attempt()


async def test_two_who_take_a_free_lease_at_once_do_not_both_get_it(memory_api_type, clock):
    api = memory_api_type(clock, before=lambda: asyncio.sleep(0), after=lambda: asyncio.sleep(0))
    both = [candidate(api, "first"), candidate(api, "second")]
    assert sorted(await asyncio.gather(*(each.attempt() for each in both))) == [False, True]


async def test_cancelling_releases_the_lease(memory_api):
    leads = asyncio.Event()
    leader = candidate(memory_api, "first", on_change=lambda now: leads.set())
    task = asyncio.create_task(leader.run())
    await leads.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert memory_api.stored[PATH]["spec"]["holderIdentity"] == ""


@pytest.mark.parametrize("timing", [(10, 10.0, 2.0), (15, 10.0, 10.0), (15, 10.0, 0.0)])
def test_timing_that_cannot_be_safe_is_refused(timing):
    with pytest.raises(ValueError, match="retry < renew deadline < duration"):
        LeaseTiming(*timing)


# Two contenders, any delays, lost answers, failures and pauses, under virtual time


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._virtual = max(self._virtual, self._scheduled[0]._when)
        super()._run_once()


class LoopClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        return 1_800_000_000 + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def in_virtual_time(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_never_two_leaders_and_always_one_again_when_the_api_works(memory_api_type, seed):
    chance = random.Random(seed)
    troubled = True
    leaders_seen = 0

    async def trouble() -> None:
        """Network and machine: mostly quick, sometimes slow, sometimes lost, sometimes longer than any lease."""
        kind = chance.random() if troubled else 1.0
        if kind < 0.05:
            await asyncio.sleep(chance.uniform(10, 60))
        elif kind < 0.15:
            raise ApiError("PUT", 0, "Unreachable", "the answer was lost")
        elif kind < 0.25:
            await asyncio.sleep(chance.uniform(1, 12))
        else:
            await asyncio.sleep(chance.uniform(0, 0.2))

    async def main() -> None:
        nonlocal troubled, leaders_seen
        api = memory_api_type(LoopClock(), before=trouble, after=trouble)
        candidates = [LeaderElection(api, "ns", "muster", f"c{i}", random=chance.random) for i in range(2)]

        async def live(election: LeaderElection) -> None:
            """A process that runs, is stopped without a goodbye, and starts again; or stops cleanly."""
            while True:
                task = asyncio.create_task(election.run())
                await asyncio.sleep(chance.uniform(5, 200))
                if troubled and chance.random() < 0.5:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    await asyncio.sleep(chance.uniform(0, 30))
                else:
                    await task

        lives = [asyncio.create_task(live(each)) for each in candidates]
        for step in range(4000):
            await asyncio.sleep(0.1)
            leading = [each for each in candidates if each.is_leader()]
            assert len(leading) <= 1
            if leading:
                leaders_seen += 1
                holder = api.stored[PATH]["spec"]["holderIdentity"]
                assert holder == leading[0].identity, "a leader holds the lease in the API too"
            if step == 3000:
                troubled = False
        assert len(leading) == 1, "a minute and a half without trouble: somebody leads"
        for task in lives:
            task.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    in_virtual_time(main)
    assert leaders_seen > 0


def test_the_lease_resource_is_the_one_of_kubernetes():
    assert LEASES.path("ns", "muster") == PATH
