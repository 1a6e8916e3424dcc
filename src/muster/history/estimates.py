"""How long an application will run, from the last runs of the same job; with how far off that has been. Pure.

Jobs repeat, and their run times are skewed: a day's nightly report takes twice as long once a fortnight. Backfill keeps
its promise to the head of the queue only when the small application ends in time, so what is given is no mean but a
bound that most runs keep: an order statistic, which holds for any distribution of like runs (Wilks, "Determination of
Sample Sizes for Setting Tolerance Limits", 1941). Its error is measured on the same runs, each predicted from the
others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from math import ceil

import msgspec

from muster.history.naming import job_name

COVERAGE = 0.95
"""Share of runs that should end within their estimate."""
FEWEST = 3
"""Runs of a job below which nothing is said."""
RUNS_KEPT = 50
"""The last runs of a job that count: data grow, code changes."""
JOBS_KEPT = 20_000
"""Jobs remembered; the ones that ran longest ago go first."""


class Shape(msgspec.Struct, frozen=True, gc=False):
    """What a run had to work with: one of more executors takes less time."""

    cpu: int
    """Of one executor, millicores."""
    memory: int
    """Of one executor, bytes."""
    minimum: int
    """Executors it started with."""


class Estimate(msgspec.Struct, frozen=True, rename="camel"):
    """A run time that most runs keep to, and how good that is; seconds."""

    seconds: float
    """The bound: see ``coverage``."""
    samples: int
    same_shape: bool
    """All of them had the same executors; else the job's runs of any shape count."""
    coverage: float
    """Share of runs like these that end within ``seconds``, if the next one is like them: at least this much."""
    kept: float
    """Share of the runs that did end within the bound that the others give."""
    low: float
    """A tenth of the runs was shorter."""
    median: float
    high: float
    """A tenth of the runs was longer."""
    error: float
    """Median of |predicted - actual| / actual, each run predicted as the median of the others."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """One run that ended well."""

    shape: Shape
    seconds: float


_Job = tuple[str, str]


class Estimator:
    """The last runs of each job, bounded in runs and jobs. One job: a namespace and a ``job_name``."""

    def __init__(self, *, runs_kept: int = RUNS_KEPT, jobs_kept: int = JOBS_KEPT) -> None:
        self._runs_kept = runs_kept
        self._jobs_kept = jobs_kept
        self._jobs: OrderedDict[_Job, deque[Run]] = OrderedDict()

    def __len__(self) -> int:
        """Jobs that are known."""
        return len(self._jobs)

    def add(self, namespace: str, name: str, run: Run) -> None:
        """Take note of a run, later ones after earlier ones. Only of runs that succeeded: how long one lasted that
        failed says little."""
        job = (namespace, job_name(name))
        runs = self._jobs.get(job)
        if runs is None:
            runs = self._jobs[job] = deque(maxlen=self._runs_kept)
            if len(self._jobs) > self._jobs_kept:
                self._jobs.popitem(last=False)
        else:
            self._jobs.move_to_end(job)
        runs.append(run)

    def run_seconds(self, namespace: str, name: str, shape: Shape) -> Estimate | None:
        """What runs like this one took; ``None`` when too few are known to say."""
        runs = self._jobs.get((namespace, job_name(name)), ())
        alike = [run.seconds for run in runs if run.shape == shape]
        if len(alike) >= FEWEST:
            return estimate(alike, same_shape=True)
        every = [run.seconds for run in runs]
        return estimate(every, same_shape=False) if len(every) >= FEWEST else None


def estimate(seconds: Sequence[float], *, same_shape: bool = True) -> Estimate:
    """From at least two run times."""
    ordered = sorted(seconds)
    count = len(ordered)
    rank = _bound_rank(count)
    predicted = [(_without(ordered, index), actual) for index, actual in enumerate(ordered)]
    errors = sorted(abs(_median(others) - actual) / max(actual, 1e-9) for others, actual in predicted)
    kept = sum(actual <= others[_bound_rank(count - 1) - 1] for others, actual in predicted)
    return Estimate(
        seconds=ordered[rank - 1],
        samples=count,
        same_shape=same_shape,
        coverage=rank / (count + 1),
        kept=kept / count,
        low=_quantile(ordered, 0.1),
        median=_median(ordered),
        high=_quantile(ordered, 0.9),
        error=_median(errors),
    )


def _bound_rank(count: int) -> int:
    """Which of ``count`` ordered run times (from 1) bounds the next one: it is kept with probability rank / (count + 1)
    when all are alike; the longest when there are too few for ``COVERAGE``."""
    return min(count, ceil(COVERAGE * (count + 1)))


def _without(ordered: Sequence[float], index: int) -> list[float]:
    return [*ordered[:index], *ordered[index + 1 :]]


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
