"""Two replicas of Muster on the embedded cluster, 200 seeded runs in which nearly everything goes wrong.

Leaders are killed and paused beyond their lease, the API server is restarted, watches are cut and expire, requests are
refused, delayed or done with the answer lost, nodes vanish. Meanwhile nothing may be overcommitted, started in part or
given twice; afterwards every gang that fits must have run, and all room must be free again. One run alone:
``python -m tests.faults.survival SEED``.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.survival import survive

RUNS, BATCH = 200, 10
EVERYDAY = 40
"""The first so many are part of ``make test``."""


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    """Each term of a leader freezes the garbage collector's view of what lives then; after a batch it is garbage."""
    yield
    gc.unfreeze()


def _batches() -> Iterator[Any]:
    for first in range(0, RUNS, BATCH):
        marks = () if first < EVERYDAY else (pytest.mark.faults,)
        yield pytest.param(first, marks=marks, id=f"seeds {first} to {first + BATCH - 1}")


@pytest.mark.parametrize("first", list(_batches()))
def test_it_survives(first: int) -> None:
    outcomes = [survive(seed) for seed in range(first, first + BATCH)]
    for outcome in outcomes:
        assert not outcome.problems, _story(outcome.seed, outcome.problems)
    assert sum(outcome.counts["lives of replicas"] for outcome in outcomes) > 2 * BATCH, "no replica was killed"


@pytest.mark.parametrize("seed", range(4))
def test_applications_are_reserved_in_the_order_of_their_coming_when_nothing_fails(seed: int) -> None:
    outcome = survive(seed, calm=True)
    assert not outcome.problems, _story(seed, outcome.problems)
    assert outcome.reserved == outcome.submitted


def test_a_run_is_the_same_each_time() -> None:
    """Also in another process, where strings hash differently."""
    seed = 12
    here = survive(seed).digest
    assert survive(seed).digest == here
    code = f"from tests.faults.survival import survive; print(survive({seed}).digest)"
    root = Path(__file__).parents[2]
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert elsewhere.stdout.strip() == here


def _story(seed: int, problems: tuple[str, ...]) -> str:
    told = "\n  ".join(problems)
    return f"seed {seed} (alone: python -m tests.faults.survival {seed}):\n  {told}"
