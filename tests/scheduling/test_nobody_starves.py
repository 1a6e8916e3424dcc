"""Ten thousand applications of all sizes in random trees of queues: every one starts, also the largest."""

from __future__ import annotations

import statistics

import pytest

from tests.scheduling.busy_day import BusyDay


def everybody_starts(seed: int, applications: int) -> None:
    day = BusyDay(seed, nodes=12, applications=applications)
    day.run()

    assert len(day.started) == applications
    assert day.most_waiting > 20, "a day on which hardly anybody waits shows nothing"
    assert len(day.promised) > 20
    late = {key: day.started[key] - at for key, at in day.promised.items() if day.started[key] > at}
    assert not late, f"seconds after what was promised: {late}"
    largest = max(day.sizes.values())
    waits = {key: day.started[key] - day.submitted[key] for key in day.started}
    of_largest = [waits[key] for key, size in day.sizes.items() if size == largest]
    of_others = [wait for key, wait in waits.items() if day.sizes[key] != largest]
    assert len(of_largest) > 2, "some need nearly all of the cluster"
    assert statistics.median(of_largest) < 10 * (statistics.median(of_others) + 900), "they wait, but in their turn"
    assert day.scheduler.applications() == {}, "nothing is left"


def test_everybody_starts_and_the_largest_too() -> None:
    everybody_starts(seed=4, applications=500)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_everybody_of_ten_thousand_starts(seed: int) -> None:
    everybody_starts(seed, applications=2500)
