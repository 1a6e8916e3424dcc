"""The recorded applications, and what the demo makes of them."""

from __future__ import annotations

import pytest

from muster.cli.demo.traces import EVENT_LOGS, WIKIMEDIA, TraceError, load, parse
from muster.cli.demo.workload import LONGEST_S, SHORTEST_S, WEEK_S, build, scaled_width, schedule_offset

HEADER = (
    "source,app_id,wait_s,duration_s,status,driver_cpu_m,driver_mem_mib,executor_cpu_m,executor_mem_mib,"
    "min_exec,max_exec,dyn_alloc,inferred,extra"
)


def test_every_row_of_both_files_is_read() -> None:
    assert len(load(EVENT_LOGS)) == 41
    assert len(load(WIKIMEDIA)) == 84


def test_a_recorded_kubernetes_application_is_read_as_recorded() -> None:
    taxi = load(EVENT_LOGS)[0]
    assert taxi.app_id == "spark-110be3a8424d4a2789cb88134418217b"
    assert (taxi.wait_s, taxi.duration_s) == (69.881, 234.641)
    assert (taxi.executor_cpu_m, taxi.executor_mem_mib, taxi.min_exec, taxi.max_exec) == (1000, 8192, 4, 4)
    assert not taxi.dyn_alloc
    assert taxi.inferred == frozenset()


def test_what_was_not_recorded_is_absent_and_what_was_inferred_is_named() -> None:
    row = load(WIKIMEDIA)[0]
    assert row.duration_s is None
    assert row.extra.schedule == "every 7d"
    assert "dyn_alloc" in row.inferred


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("s,a,,1,ok,lots,1,1,1,0,1,0,,", "driver_cpu_m"),
        ('s,a,,1,ok,1,1,1,1,0,1,0,,{"peak_exec":"many"}', "peak_exec"),
        ("s,a,,1,ok,1,1,1,1,0,1,0,,{broken", "line 2"),
        ("s,a,,1,ok", "column driver_cpu_m is missing"),
        ('s,"a', "is no CSV"),
    ],
)
def test_a_damaged_row_is_named(line: str, what: str) -> None:
    with pytest.raises(TraceError, match=r"^somewhere\.csv, line") as caught:
        parse(f"{HEADER}\n{line}\n", "somewhere.csv")
    assert what in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(TraceError, match=r"nothing\.csv\.zst: cannot be read"):
        load("nothing.csv.zst")


def test_every_recorded_application_is_played_once() -> None:
    applications = build(seed=7)
    assert len(applications) == 125
    assert len({application.name for application in applications}) == 125


def test_the_same_seed_gives_the_same_workload_and_another_one_another() -> None:
    assert build(seed=1) == build(seed=1)
    assert build(seed=1) != build(seed=2)


def test_the_first_applications_can_be_played_alone() -> None:
    assert build(seed=7, limit=5) == build(seed=7)[:5]


def test_applications_come_in_order_and_within_the_week() -> None:
    times = [application.submit_s for application in build(seed=3)]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] <= WEEK_S


def test_names_are_dns_labels_that_leave_room_for_sparks_suffixes() -> None:
    for application in build(seed=7):
        assert application.name.replace("-", "a").isalnum()
        assert application.name == application.name.lower()
        assert application.name[0].isalpha()
        assert len(application.name) <= 35


def test_run_times_are_bounded_and_recorded_ones_kept_within() -> None:
    applications = {application.name: application for application in build(seed=7)}
    assert all(SHORTEST_S <= application.duration_s <= LONGEST_S for application in applications.values())
    assert applications["nds-power-run"].duration_s == 101.953


def test_static_gangs_are_all_their_executors_and_sizes_are_as_recorded() -> None:
    taxi = next(one for one in build(seed=7) if one.name.startswith("newyorktax"))
    assert (taxi.minimum, taxi.maximum, taxi.dynamic) == (4, 4, False)
    assert (taxi.executor.cpu_m, taxi.executor.memory_mib) == (1000, 8192)


def test_dynamic_gangs_are_the_recorded_initial_executors() -> None:
    shell = next(one for one in build(seed=7) if one.name == "spark-shell")
    assert (shell.minimum, shell.maximum, shell.dynamic) == (3, 8, True)
    assert shell.recorded_maximum == 10


def test_the_gang_of_nine_hundred_stays_the_largest() -> None:
    largest = max(build(seed=7), key=lambda application: application.minimum)
    assert (largest.recorded_maximum, largest.minimum) == (900, 119)


def test_widths_are_scaled_monotonically_and_small_ones_not_at_all() -> None:
    assert [scaled_width(count) for count in (0, 1, 8, 16, 64, 900)] == [0, 1, 8, 9, 15, 119]
    widths = [scaled_width(count) for count in range(1000)]
    assert widths == sorted(widths)


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ("@hourly", 0),
        ("@monthly", 0),
        ("38 0 * * *", 38 * 60),
        ("0 3 * * 5", 4 * 86400 + 3 * 3600),
        ("0 0 * * 0", 6 * 86400),
        ("0 0 * * 1", 0),
        ("every 7d", None),
        ("none", None),
    ],
)
def test_schedules_are_placed_in_a_week_that_begins_on_monday(schedule: str, seconds: float | None) -> None:
    assert schedule_offset(schedule) == seconds


def test_a_schedule_that_is_not_understood_is_refused() -> None:
    with pytest.raises(ValueError, match=r"schedule '\*/5 \* \* \* \*'"):
        schedule_offset("*/5 * * * *")
