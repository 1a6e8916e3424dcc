"""A virtual driver asks for executors as Spark's allocator does, and works while it has some."""

import math

import pytest

from muster.devcluster.executor_allocation import (
    AllocationSettings,
    Create,
    DeletePending,
    ExecutorAllocation,
    Instruction,
    Release,
    Remove,
    Stop,
)


def static(executors: int, version: str = "4.3.0", run_seconds: float = 60.0, **properties: str) -> AllocationSettings:
    given = {"spark.executor.instances": str(executors)} | properties
    return AllocationSettings.of(given, {"devcluster.muster.dev/run-seconds": str(run_seconds)}, version)


def dynamic(
    minimum: int = 0, initial: int = 0, maximum: int | None = None, run_seconds: float = 60.0, tail_seconds: float = 0
) -> AllocationSettings:
    given = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(minimum),
        "spark.dynamicAllocation.initialExecutors": str(initial),
    }
    if maximum is not None:
        given["spark.dynamicAllocation.maxExecutors"] = str(maximum)
    work = {"run-seconds": run_seconds, "tail-seconds": tail_seconds, "parallelism": maximum or 8}
    return AllocationSettings.of(
        given, {f"devcluster.muster.dev/{key}": str(value) for key, value in work.items()}, "4.3.0"
    )


class Driver:
    """An allocation and its virtual clock; pods come up as soon as the test says so."""

    def __init__(self, settings: AllocationSettings) -> None:
        self.now = 0.0
        self.allocation = ExecutorAllocation(settings, self.now)
        self.history: list[tuple[float, Instruction]] = []

    def step(self) -> list[Instruction]:
        done = self.allocation.step(self.now)
        self.history += [(self.now, instruction) for instruction in done]
        return done

    def seen(self, *executors: int, phase: str = "Pending", deleting: bool = False) -> None:
        for executor in executors:
            self.allocation.pod_seen(executor, phase, deleting, self.now)

    def come_up(self, *executors: int) -> None:
        self.seen(*executors, phase="Running")
        for executor in executors:
            self.allocation.registered(executor, self.now)

    def until(self, time: float) -> None:
        """Step whenever the allocation wants to, bringing up every executor at once."""
        while True:
            for instruction in self.step():
                if isinstance(instruction, Create):
                    self.come_up(*instruction.executors)
                if isinstance(instruction, Release):
                    self.seen(*instruction.executors, phase="Succeeded")
            due = self.allocation.next_step(self.now)
            if due > time:
                self.now = time
                return
            self.now = max(due, self.now)

    def created(self) -> list[tuple[float, int]]:
        return [(at, len(each.executors)) for at, each in self.history if isinstance(each, Create)]


@pytest.mark.parametrize(("version", "batch"), [("3.5.9", 5), ("4.0.5", 10), ("4.1.4", 10), ("4.3.0", 20)])
def test_executors_are_asked_for_in_the_batches_of_their_version(version: str, batch: int) -> None:
    driver = Driver(static(50, version))
    (first,) = driver.step()
    assert first == Create(tuple(range(1, batch + 1)))


def test_no_batch_follows_while_a_pod_of_the_last_one_is_unseen() -> None:
    driver = Driver(static(25))
    driver.step()
    driver.seen(*range(1, 20))
    driver.now = 10.0
    assert driver.step() == []
    driver.seen(20)
    driver.now = 11.0
    assert driver.step() == [Create((21, 22, 23, 24, 25))]


def test_a_batch_follows_the_last_one_after_the_batch_delay() -> None:
    driver = Driver(static(45))
    driver.until(10.0)
    assert driver.created() == [(0.0, 20), (1.0, 20), (2.0, 5)]


def test_pending_executors_count_so_that_no_more_are_asked_for() -> None:
    driver = Driver(static(2))
    driver.step()
    driver.seen(1, 2)
    driver.now = 3600.0
    driver.allocation.step(driver.now)
    assert driver.allocation.created == 2


def test_work_begins_when_four_fifths_have_registered() -> None:
    driver = Driver(static(10))
    driver.step()
    driver.come_up(*range(1, 8))
    driver.step()
    assert driver.allocation.started is None
    driver.come_up(8)
    driver.step()
    assert driver.allocation.started == 0.0


def test_work_begins_after_thirty_seconds_with_whoever_is_there() -> None:
    driver = Driver(static(10))
    driver.step()
    driver.come_up(1)
    assert driver.allocation.next_step(driver.now) == 30.0
    driver.now = 30.0
    driver.step()
    assert driver.allocation.started == 30.0


def test_the_work_takes_its_time_when_the_gang_is_whole_and_longer_when_it_is_not() -> None:
    whole, half = Driver(static(4, run_seconds=60)), Driver(static(4, run_seconds=60))
    for driver, executors in ((whole, (1, 2, 3, 4)), (half, (1, 2))):
        driver.step()
        driver.come_up(*executors)
        driver.seen(3, 4)
    whole.until(1000)
    half.until(1000)
    assert whole.history[-1] == (60.0, Stop(0))
    assert half.history[-1] == (30.0 + 2 * 60.0, Stop(0))


def test_without_any_executor_nothing_gets_done() -> None:
    driver = Driver(static(2, run_seconds=5))
    driver.step()
    driver.seen(1, 2)
    driver.now = 31.0
    driver.step()
    assert driver.allocation.next_step(driver.now) == math.inf


def test_a_lost_executor_is_replaced_under_a_new_number_and_its_pod_removed() -> None:
    driver = Driver(static(2))
    driver.until(5.0)
    driver.seen(1, phase="Failed")
    assert driver.step() == [Remove((1,)), Create((3,))]


def test_a_deleted_pod_is_no_failure_but_is_replaced() -> None:
    driver = Driver(static(2))
    driver.until(5.0)
    driver.allocation.pod_gone(2, driver.now)
    assert driver.step() == [Create((3,))]
    assert driver.allocation.failures == 0


def test_a_pod_that_is_deleted_gracefully_counts_as_running_until_it_ends() -> None:
    # ExecutorPodsSnapshot.toState: a deletion timestamp on a Running pod changes nothing
    driver = Driver(static(2))
    driver.until(5.0)
    driver.seen(2, phase="Running", deleting=True)
    assert driver.step() == []


def test_too_many_failures_end_the_application_with_exit_code_11() -> None:
    driver = Driver(static(2))
    for _ in range(6):
        driver.until(driver.now + 2)
        alive = list(driver.allocation.executors)
        if not alive:
            break
        driver.seen(*alive, phase="Failed")
    stops = [each for _, each in driver.history if isinstance(each, Stop)]
    assert stops == [Stop(11, "Max number of executor failures (4) reached")]


def test_refused_pods_count_as_failures_since_4_2_only() -> None:
    # Seen with a quota that refuses every pod: 4.3 exits with 11, 3.5 tries once a second for ever
    for version, code in (("4.3.0", 11), ("3.5.9", None)):
        driver = Driver(static(2, version))
        for second in range(60):
            driver.now = float(second)
            for instruction in driver.step():
                if isinstance(instruction, Create):
                    driver.allocation.creation_failed(instruction.executors, driver.now)
        stops = [each.exit_code for _, each in driver.history if isinstance(each, Stop)]
        assert stops == ([code] if code else [])


def test_dynamic_allocation_starts_with_the_largest_of_its_three_numbers() -> None:
    # SchedulerBackendUtils.getInitialTargetExecutorNumber
    given = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": "1",
        "spark.dynamicAllocation.initialExecutors": "2",
        "spark.executor.instances": "3",
    }
    assert AllocationSettings.of(given, {}, "4.3.0").initial == 3


def test_dynamic_allocation_grows_by_doubling_up_to_its_maximum() -> None:
    driver = Driver(dynamic(initial=1, maximum=12, run_seconds=600))
    driver.until(20.0)
    assert driver.created() == [(0.0, 1), (1.0, 1), (2.0, 2), (3.0, 4), (4.0, 4)]
    assert driver.allocation.target == 12


def test_dynamic_allocation_from_nothing_begins_with_the_first_backlog() -> None:
    driver = Driver(dynamic(initial=0, maximum=3, run_seconds=600))
    driver.until(20.0)
    assert driver.created() == [(1.0, 1), (2.0, 2)]


def test_idle_executors_are_released_after_a_minute_down_to_the_busy_one() -> None:
    driver = Driver(dynamic(initial=4, maximum=4, run_seconds=60, tail_seconds=120))
    driver.until(500.0)
    assert [(at, each) for at, each in driver.history if isinstance(each, Release)] == [(120.0, Release((2, 3, 4)))]
    assert driver.history[-1] == (180.0, Stop(0))


def test_the_minimum_is_kept_even_when_idle() -> None:
    driver = Driver(dynamic(minimum=3, initial=4, maximum=4, run_seconds=60, tail_seconds=120))
    driver.until(500.0)
    released = [each for _, each in driver.history if isinstance(each, Release)]
    assert len(released) == 1
    assert len(released[0].executors) == 1


def test_pending_executors_above_the_target_are_deleted_after_a_minute() -> None:
    # ExecutorPodsAllocator: only those older than executorIdleTimeout, and only Pending ones
    driver = Driver(dynamic(initial=4, maximum=4, run_seconds=30, tail_seconds=300))
    driver.step()
    driver.come_up(1, 2)
    driver.seen(3, 4)
    driver.until(200.0)
    deleted = [(at, each) for at, each in driver.history if isinstance(each, DeletePending)]
    # 80 % are never there, so work begins at 30 s; two of four do 30 s of work in 60
    assert deleted == [(90.0, DeletePending((3, 4)))]


def test_nothing_is_due_before_the_pass_that_deletes_them() -> None:
    driver = Driver(dynamic(initial=4, maximum=4, run_seconds=30, tail_seconds=300))
    driver.step()
    driver.come_up(1, 2)
    driver.seen(3, 4)
    driver.until(89.5)
    driver.step()  # a pass; the next one is a second later, the work ends in between
    driver.now = 90.0
    assert not any(isinstance(each, DeletePending) for each in driver.step())
    assert driver.allocation.next_step(driver.now) == 90.5


def test_durations_are_read_as_spark_writes_them() -> None:
    settings = static(1, **{"spark.kubernetes.allocation.batch.delay": "500ms"})
    assert settings.batch_delay == 0.5
    settings = static(1, **{"spark.scheduler.maxRegisteredResourcesWaitingTime": "2min"})
    assert settings.registered_wait == 120.0
