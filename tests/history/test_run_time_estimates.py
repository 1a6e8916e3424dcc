"""Run times of recorded jobs are estimated from their earlier runs, and most runs keep to the estimate."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import pytest
import zstandard

from muster.cli.demo import traces
from muster.history.estimates import FEWEST, Estimator, Run, Shape, estimate

SMALL = Shape(cpu=1000, memory=2**30, minimum=2)
LARGE = Shape(cpu=4000, memory=2**34, minimum=20)


class Recorded(NamedTuple):
    user: str
    job: str
    seconds: float


def recorded() -> Iterator[Recorded]:
    """Recurring jobs of a real cluster in the order in which they ended (data/README.md)."""
    packed = (Path(__file__).parent / "data" / "google2011_recurring_jobs.csv.zst").read_bytes()
    text = zstandard.ZstdDecompressor().decompressobj().decompress(packed).decode()
    for row in csv.DictReader(io.StringIO(text)):
        yield Recorded(row["user"], row["job"], float(row["run_s"]))


def estimator(*seconds: float, shape: Shape = SMALL, name: str = "etl") -> Estimator:
    one = Estimator()
    for each in seconds:
        one.add("team-a", name, Run(shape, each))
    return one


def test_most_recorded_runs_end_within_what_their_predecessors_promised() -> None:
    known = Estimator()
    kept, too_long, off, means_kept = [], [], [], []
    earlier: dict[tuple[str, str], list[float]] = {}
    for run in recorded():
        name = run.job.translate(str.maketrans("0123456789", "abcdefghij"))  # the numbers are names here
        before = earlier.setdefault((run.user, run.job), [])
        guess = known.run_seconds(run.user, name, SMALL)
        assert (guess is not None) == (len(before) >= FEWEST)
        if guess is not None:
            kept.append(run.seconds <= guess.seconds)
            too_long.append(guess.seconds / run.seconds)
            off.append(abs(guess.median - run.seconds) / run.seconds)
            means_kept.append(run.seconds <= mean(before))
        known.add(run.user, name, Run(SMALL, run.seconds))
        before.append(run.seconds)
    assert len(kept) > 2000
    assert mean(kept) >= 0.9
    assert mean(means_kept) < 0.7, "the mean, for comparison, is a promise that is broken every third time"
    assert median(too_long) < 2.5, "and the bound is of use: it is no worst case of all times"
    assert median(off) < 0.25


def test_the_error_that_is_shown_is_the_error_that_is_made() -> None:
    """Told from the first half of each job's runs, and measured on the second half."""
    by_job: dict[tuple[str, str], list[float]] = {}
    for run in recorded():
        by_job.setdefault((run.user, run.job), []).append(run.seconds)
    told, made, told_kept, made_kept = [], [], [], []
    for runs in by_job.values():
        half = len(runs) // 2
        if half < 10:
            continue
        guess = estimate(runs[:half])
        told.append(guess.error)
        told_kept.append(guess.kept)
        made += [abs(guess.median - seconds) / seconds for seconds in runs[half:]]
        made_kept += [seconds <= guess.seconds for seconds in runs[half:]]
    assert median(made) == pytest.approx(median(told), abs=0.1)
    assert mean(made_kept) == pytest.approx(mean(told_kept), abs=0.1)


def test_attempts_of_a_real_spark_application_predict_the_last_one() -> None:
    attempts = [row for row in traces.load(traces.EVENT_LOGS) if row.extra.name == "ProcessLargeDataset"]
    assert len(attempts) == 4
    known = Estimator()
    for attempt in attempts[:3]:
        assert attempt.duration_s is not None
        known.add("team-a", "processlargedataset", Run(SMALL, attempt.duration_s))
    guess = known.run_seconds("team-a", "processlargedataset", SMALL)
    last = attempts[3].duration_s
    assert guess is not None and last is not None
    assert last <= guess.seconds <= 1.1 * last
    assert guess.error < 0.05


def test_the_bound_is_the_order_statistic_of_wilks() -> None:
    """Of n runs alike, the r-th shortest bounds the next one with probability r / (n + 1)."""
    few = estimate([3.0, 1.0, 2.0])
    assert (few.seconds, few.samples, few.coverage) == (3.0, 3, 0.75)
    many = estimate([float(number) for number in range(1, 40)])
    assert (many.seconds, many.coverage) == (38.0, 0.95)
    assert (many.low, many.median, many.high) == (4.0, 20.0, 36.0)


def test_each_run_is_predicted_from_the_others() -> None:
    guess = estimate([10.0, 10.0, 20.0])
    # medians of the other two: 15, 15, 10; so it is off by half of each run
    assert guess.error == 0.5
    assert guess.kept == pytest.approx(2 / 3), "the longest run is longer than the bound of the others"


def test_nothing_is_said_of_jobs_that_are_hardly_known() -> None:
    assert estimator(10.0, 11.0).run_seconds("team-a", "etl", SMALL) is None
    assert estimator(10.0, 11.0, 12.0).run_seconds("team-a", "other", SMALL) is None
    assert estimator(10.0, 11.0, 12.0).run_seconds("team-b", "etl", SMALL) is None


def test_runs_of_another_day_are_runs_of_the_same_job() -> None:
    known = Estimator()
    for day in (23, 24, 25):
        known.add("team-a", f"etl-2026-11-{day}", Run(SMALL, float(day)))
    guess = known.run_seconds("team-a", "etl-2026-11-26", SMALL)
    assert guess is not None
    assert guess.seconds == 25.0


def test_runs_with_the_same_executors_count_first() -> None:
    known = estimator(100.0, 101.0, 102.0)
    known.add("team-a", "etl", Run(LARGE, 10.0))
    mixed = known.run_seconds("team-a", "etl", LARGE)
    assert mixed is not None
    assert (mixed.seconds, mixed.samples, mixed.same_shape) == (102.0, 4, False)
    for seconds in (11.0, 12.0):
        known.add("team-a", "etl", Run(LARGE, seconds))
    alike = known.run_seconds("team-a", "etl", LARGE)
    assert alike is not None
    assert (alike.seconds, alike.samples, alike.same_shape) == (12.0, 3, True)


def test_what_it_remembers_is_bounded_in_runs_and_in_jobs() -> None:
    known = Estimator(runs_kept=5, jobs_kept=3)
    for number in range(100):
        known.add("team-a", "steady", Run(SMALL, float(number)))
        known.add("team-a", f"once-{'x' * (number + 1)}", Run(SMALL, 1.0))
    guess = known.run_seconds("team-a", "steady", SMALL)
    assert len(known) == 3
    assert guess is not None
    assert (guess.samples, guess.low) == (5, 95.0)
