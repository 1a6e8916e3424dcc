"""Decisions are carried out in order, once, and until they hold, whatever the API does."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from muster.cluster.resources import Resources
from muster.control.outbox import PENDING_GRACE, PLACES_AT_ONCE, STATUS_INTERVAL, Gone, Outbox, Retry
from muster.scheduling.decisions import Condition, Decision, Evict, Place, Publish, ReleaseDriver, Reserve
from muster.scheduling.model import (
    Application,
    ApplicationKey,
    GangStatus,
    Phase,
    PodRef,
    PodShape,
    Reservation,
    Slot,
)
from tests.virtual_time import run_virtual

KEY = "team-a/spark-1"
DRIVER = PodRef("team-a", "pi-driver", "uid-1")
APPLICATION = Application(
    key=KEY,
    name="pi",
    created=0.0,
    driver=PodShape(Resources()),
    executor=PodShape(Resources()),
    minimum=2,
    maximum=2,
    driver_pod=DRIVER,
)
RESERVED = GangStatus(Phase.RESERVED, found=0.0, reserved=1.0)
RUNNING = GangStatus(Phase.RUNNING, running=2, found=0.0, reserved=1.0, minimum_reached=2.0)
STARTING = GangStatus(Phase.RUNNING, running=1, found=0.0, reserved=1.0)
FINISHED = GangStatus(Phase.FINISHED, found=0.0, reserved=1.0, ended=9.0)
PENDING = GangStatus(Phase.PENDING, reason="WaitingForCapacity", found=0.0)


def reservation(revision: int = 1, node: str = "n1") -> Reservation:
    return Reservation(KEY, revision, node, (Slot(node, 2),))


class Api:
    """Remembers what was written and when; ``fail`` may raise before a write happens."""

    def __init__(self, fail: Callable[[str], Exception | None] = lambda what: None) -> None:
        self.done: list[str] = []
        self.times: list[float] = []
        self.fail = fail

    def _write(self, what: str) -> Coroutine[Any, Any, None]:
        async def write() -> None:
            await asyncio.sleep(0.01)
            failure = self.fail(what)
            if failure is not None:
                raise failure
            self.done.append(what)
            self.times.append(asyncio.get_running_loop().time())

        return write()

    async def write_gang(self, application: Application, reservation: Reservation | None) -> None:
        await self._write(f"gang {reservation.revision if reservation else 'without slots'}")

    async def write_invalid_gang(self, key: ApplicationKey, driver_pod: PodRef) -> None:
        await self._write("gang of unknown size")

    async def write_status(self, key: ApplicationKey, status: GangStatus) -> None:
        await self._write(f"status {status.phase.value} {status.running}")

    async def delete_gang(self, key: ApplicationKey) -> None:
        await self._write("delete gang")

    async def release(self, pod: PodRef, key: ApplicationKey, node: str, extra: bool) -> None:
        await self._write(f"release {pod.name} to {node or 'anywhere'}")

    async def evict(self, pod: PodRef, grace_seconds: float) -> None:
        await self._write(f"evict {pod.name} with {grace_seconds:.0f} s")

    async def publish(self, event: Publish) -> None:
        await self._write(f"event {event.reason}")


def carried_out(
    api: Api, story: Callable[[Outbox], Coroutine[Any, Any, None]], seed: int = 0, may_write_from: float = 0.0
) -> list[str]:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        outbox = Outbox(
            api,
            loop.time,
            lambda attempt: min(0.1 * 2**attempt, 5.0),
            lambda: loop.time() - begun >= may_write_from,
        )
        await story(outbox)
        await asyncio.sleep(100)
        assert len(outbox) == 0
        await outbox.close()

    run_virtual(main(), seed)
    return api.done


def pushed(*decisions: Decision) -> Callable[[Outbox], Coroutine[Any, Any, None]]:
    async def story(outbox: Outbox) -> None:
        for decision in decisions:
            outbox.push(decision)

    return story


RESERVE_AND_RELEASE = (
    Reserve(APPLICATION, reservation(), RESERVED),
    ReleaseDriver(KEY, DRIVER, "n1", "Reserved"),
)


def test_the_reservation_is_durable_before_the_driver_is_released() -> None:
    assert carried_out(Api(), pushed(*RESERVE_AND_RELEASE))[:2] == ["gang 1", "release pi-driver to n1"]


@pytest.mark.parametrize("seed", range(20))
def test_it_stays_so_when_any_write_may_fail(seed: int) -> None:
    luck = random.Random(seed)
    api = Api(lambda what: Retry("500") if luck.random() < 0.7 else None)
    done = carried_out(api, pushed(*RESERVE_AND_RELEASE, Condition(KEY, RUNNING), Condition(KEY, FINISHED)), seed)
    assert done == ["gang 1", "release pi-driver to n1", "status Finished 0"]


def test_only_the_newest_reservation_is_written_when_the_api_was_away() -> None:
    async def story(outbox: Outbox) -> None:
        away = True
        api.fail = lambda what: Retry("no answer") if away else None
        outbox.push(RESERVE_AND_RELEASE[0])
        await asyncio.sleep(3)
        outbox.push(Reserve(APPLICATION, reservation(2, "n2"), RESERVED))
        outbox.push(ReleaseDriver(KEY, DRIVER, "n2", "Reserved"))
        await asyncio.sleep(3)
        away = False

    api = Api()
    assert carried_out(api, story)[:2] == ["gang 2", "release pi-driver to n2"]


def test_a_driver_is_not_released_for_a_reservation_that_was_given_up_meanwhile() -> None:
    async def story(outbox: Outbox) -> None:
        away = True
        api.fail = lambda what: Retry("503") if away and what.startswith("release") else None
        for decision in RESERVE_AND_RELEASE:
            outbox.push(decision)
        await asyncio.sleep(1)
        outbox.push(Reserve(APPLICATION, Reservation(KEY, 2, "", ()), PENDING))  # its node is lost
        await asyncio.sleep(1)
        away = False
        await asyncio.sleep(20)
        assert not any(what.startswith("release") for what in api.done)
        outbox.push(Reserve(APPLICATION, reservation(3, "n2"), RESERVED))
        outbox.push(ReleaseDriver(KEY, DRIVER, "n2", "Reserved"))

    api = Api()
    assert "release pi-driver to n2" in carried_out(api, story)
    assert api.done.index("gang 3") < api.done.index("release pi-driver to n2")


def test_a_gang_that_starts_runs_and_ends_costs_three_writes_of_its_own() -> None:
    async def story(outbox: Outbox) -> None:
        outbox.push(Condition(KEY, PENDING))
        for decision in RESERVE_AND_RELEASE:
            outbox.push(decision)
        for running in range(20):
            await asyncio.sleep(0.2)
            outbox.push(Condition(KEY, msgspec.structs.replace(STARTING, running=running)))
        await asyncio.sleep(60)
        outbox.push(Condition(KEY, FINISHED))

    assert carried_out(Api(), story) == ["gang 1", "release pi-driver to n1", "status Running 19", "status Finished 0"]


def test_reaching_the_minimum_is_written_at_once() -> None:
    async def story(outbox: Outbox) -> None:
        for decision in RESERVE_AND_RELEASE:
            outbox.push(decision)
        await asyncio.sleep(1)
        outbox.push(Condition(KEY, RUNNING))
        await asyncio.sleep(1)
        assert api.done[-1] == "status Running 2"

    api = Api()
    carried_out(api, story)


def test_the_end_is_written_once_when_the_last_executors_are_gone() -> None:
    async def story(outbox: Outbox) -> None:
        for decision in RESERVE_AND_RELEASE:
            outbox.push(decision)
        await asyncio.sleep(30)
        ended = asyncio.get_running_loop().time()
        for running in (5, 3, 0):
            outbox.push(Condition(KEY, GangStatus(Phase.FINISHED, running=running, found=0.0, ended=ended)))
            await asyncio.sleep(0.3)

    done = carried_out(Api(), story)
    assert [what for what in done if "Finished" in what] == ["status Finished 0"]


def test_an_end_whose_executors_linger_is_written_all_the_same() -> None:
    async def story(outbox: Outbox) -> None:
        for decision in RESERVE_AND_RELEASE:
            outbox.push(decision)
        await asyncio.sleep(30)
        ended = asyncio.get_running_loop().time()
        outbox.push(Condition(KEY, GangStatus(Phase.FINISHED, running=5, found=0.0, ended=ended)))
        await asyncio.sleep(5)
        outbox.push(Condition(KEY, GangStatus(Phase.FINISHED, running=0, found=0.0, ended=ended)))

    done = carried_out(Api(), story)
    assert [what for what in done if "Finished" in what] == ["status Finished 5"]


def test_status_is_written_at_most_every_ten_seconds_while_it_changes() -> None:
    async def story(outbox: Outbox) -> None:
        for decision in RESERVE_AND_RELEASE:
            outbox.push(decision)
        for running in range(600):
            await asyncio.sleep(0.1)
            outbox.push(Condition(KEY, msgspec.structs.replace(STARTING, running=running)))

    api = Api()
    carried_out(api, story)
    times = [time for what, time in zip(api.done, api.times, strict=True) if what.startswith("status")]
    assert len(times) == 6, "one at each of 10, 20, … 60 seconds"
    assert all(later - earlier >= STATUS_INTERVAL for earlier, later in itertools.pairwise(times))
    assert api.done[-1] == "status Running 599", "the last state is written in the end"


def test_a_gang_that_waits_is_shown_after_a_moment() -> None:
    async def story(outbox: Outbox) -> None:
        outbox.found(APPLICATION)
        outbox.push(Condition(KEY, PENDING))
        await asyncio.sleep(PENDING_GRACE / 2)
        assert api.done == []

    api = Api()
    assert carried_out(api, story) == ["gang without slots", "status Pending 0"]


def test_an_invalid_application_gets_a_gang_that_says_so_and_its_driver_goes_on() -> None:
    status = GangStatus(Phase.INVALID, reason="InvalidSize", message="spark.executor.instances must not be negative")
    done = carried_out(
        Api(),
        pushed(
            Condition(KEY, status),
            Publish(KEY, DRIVER, True, "InvalidSize", status.message),
            ReleaseDriver(KEY, DRIVER, "", "InvalidSize"),
        ),
    )
    assert done == [
        "release pi-driver to anywhere",
        "event InvalidSize",
        "gang of unknown size",
        "status Invalid 0",
    ]


def test_a_pod_that_is_gone_is_dropped_and_the_rest_goes_on() -> None:
    pods = [PodRef("team-a", f"pi-exec-{number}", f"uid-e{number}") for number in range(40)]
    api = Api(lambda what: Gone("404") if "pi-exec-7 " in what else None)
    done = carried_out(api, pushed(*(Place(KEY, pod, "n1", False) for pod in pods)))
    assert sorted(done) == sorted(f"release {pod.name} to n1" for pod in pods if pod.name != "pi-exec-7")


def test_one_failing_executor_does_not_repeat_the_others() -> None:
    failures = iter([Retry("429"), Retry("429")])
    api = Api(lambda what: next(failures, None) if "pi-exec-1 " in what else None)
    pods = [PodRef("team-a", f"pi-exec-{number}", f"uid-e{number}") for number in range(3)]
    done = carried_out(api, pushed(*(Place(KEY, pod, "n1", False) for pod in pods)))
    assert sorted(done) == sorted(f"release {pod.name} to n1" for pod in pods)


def test_pods_are_called_back_until_it_holds_each_once_and_then_the_events_tell() -> None:
    failures = iter([Retry("no answer"), Retry("500")])
    api = Api(lambda what: next(failures, None) if "pi-exec-1 " in what else None)
    pods = [PodRef("team-a", f"pi-exec-{number}", f"uid-e{number}") for number in range(3)]
    told = Publish(KEY, DRIVER, False, "ExecutorCalledBack", "3 executors are called back")
    evictions = [Evict(KEY, pod, 60.0, "ExecutorCalledBack") for pod in pods]
    done = carried_out(api, pushed(told, *evictions, evictions[0]))
    assert sorted(done[:3]) == [f"evict {pod.name} with 60 s" for pod in pods]
    assert done[3:] == ["event ExecutorCalledBack"]


def test_a_replica_that_lost_its_lease_calls_nobody_back() -> None:
    assert (
        carried_out(Api(), pushed(Evict(KEY, DRIVER, 60.0, "ApplicationPreempted")), may_write_from=float("inf")) == []
    )


WRITTEN = ["gang 1", "release pi-driver to n1"]


def test_a_gang_without_driver_pod_is_removed_by_muster_at_the_end() -> None:
    application = msgspec.structs.replace(APPLICATION, driver=None, driver_pod=None)
    done = carried_out(Api(), pushed(Reserve(application, reservation(), RESERVED), Condition(KEY, FINISHED)))
    assert done == ["gang 1", "delete gang"]


def test_a_replica_that_lost_its_lease_writes_nothing() -> None:
    assert carried_out(Api(), pushed(*RESERVE_AND_RELEASE), may_write_from=float("inf")) == []


def test_what_was_decided_while_a_renewal_of_the_lease_was_late_is_written_after_it() -> None:
    assert carried_out(Api(), pushed(*RESERVE_AND_RELEASE), may_write_from=3.0)[:2] == WRITTEN


class SlowApi(Api):
    """Counts the executors whose release is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = 0

    async def release(self, pod: PodRef, key: ApplicationKey, node: str, extra: bool) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await super().release(pod, key, node, extra)
        self.under_way -= 1


def held_executors(applications: int, each: int, node: str = "n1") -> list[Place]:
    return [
        Place(f"team-a/spark-{app}", PodRef("team-a", f"exec-{app}-{number}", f"u-{app}-{number}"), node, False)
        for app in range(applications)
        for number in range(each)
    ]


def test_many_held_executors_are_released_a_few_at_a_time_over_all_applications() -> None:
    api = SlowApi()
    done = carried_out(api, pushed(*held_executors(40, 20)))
    assert len(done) == len(set(done)) == 800
    assert api.most == PLACES_AT_ONCE


def test_an_executor_decided_anew_while_it_waited_for_its_turn_goes_where_it_was_decided_last() -> None:
    async def story(outbox: Outbox) -> None:
        crowd = held_executors(4, 20)
        for place in crowd:
            outbox.push(place)
        await asyncio.sleep(0.005)
        outbox.push(msgspec.structs.replace(crowd[-1], node="n2"))

    done = carried_out(Api(), story)
    assert [what for what in done if "exec-3-19" in what] == ["release exec-3-19 to n2"]


def test_nothing_that_waited_for_its_turn_is_written_once_the_lease_is_gone() -> None:
    async def main() -> list[str]:
        api, leads = Api(), True
        outbox = Outbox(api, asyncio.get_running_loop().time, lambda attempt: 0.1, lambda: leads)
        for place in held_executors(4, 20):
            outbox.push(place)
        await asyncio.sleep(0.005)
        leads = False
        await asyncio.sleep(100)
        await outbox.close()
        return api.done

    assert len(run_virtual(main())) == PLACES_AT_ONCE, "only those that were under way"
