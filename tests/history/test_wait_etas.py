"""When a waiting application starts, from the queue in front and the expected ends."""

from __future__ import annotations

import pytest

from muster.history.waiting import UNKNOWN, Eta, Holder, RunTime, Waiter, wait_eta

NOW = 1000.0


def exactly(seconds: float) -> RunTime:
    return RunTime(seconds, seconds, seconds)


def test_what_fits_starts_now() -> None:
    assert wait_eta(NOW, 5, [], [], 5) == Eta(NOW, NOW, NOW)


def test_it_starts_when_enough_has_ended() -> None:
    running = [Holder(NOW - 50, 4, exactly(100)), Holder(NOW - 10, 3, exactly(40)), Holder(NOW, 9, exactly(500))]
    assert wait_eta(NOW, 1, running, [], 4).expected == NOW + 30
    assert wait_eta(NOW, 1, running, [], 5).expected == NOW + 50
    assert wait_eta(NOW, 1, running, [], 9).expected == NOW + 500


def test_those_ahead_go_first_and_their_room_comes_back_when_they_end() -> None:
    running = [Holder(NOW, 4, exactly(100))]
    ahead = [Waiter(6, exactly(20)), Waiter(2, exactly(200))]
    # the first starts at 100 with all 6, ends at 120; then the second takes 2 and leaves 4
    assert wait_eta(NOW, 2, running, ahead, 4).expected == NOW + 120
    assert wait_eta(NOW, 2, running, ahead, 5).expected == NOW + 320


def test_short_and_long_runs_make_an_early_and_a_late_answer() -> None:
    eta = wait_eta(NOW, 0, [Holder(NOW - 10, 4, RunTime(30, 60, 90))], [Waiter(4, RunTime(1, 2, 3))], 4)
    assert eta == Eta(NOW + 21, NOW + 52, NOW + 83)


def test_who_has_run_longer_than_expected_is_expected_to_end_now() -> None:
    assert wait_eta(NOW, 0, [Holder(NOW - 100, 1, RunTime(10, 60, 120))], [], 1) == Eta(NOW, NOW, NOW + 20)


def test_nothing_is_said_when_it_depends_on_what_nobody_knows() -> None:
    unknown = Holder(NOW, 4, UNKNOWN)
    assert wait_eta(NOW, 0, [unknown], [], 1) == Eta(None, None, None)
    assert wait_eta(NOW, 0, [unknown, Holder(NOW, 1, exactly(5))], [], 1).expected == NOW + 5
    assert wait_eta(NOW, 1, [], [Waiter(1)], 1).expected is None
    assert wait_eta(NOW, 1, [], [], 2).expected is None, "more than there is"


@pytest.mark.parametrize(
    ("running", "ahead", "room"), [([Holder(NOW, -1)], [], 1), ([], [Waiter(-1)], 1), ([], [], -1)]
)
def test_negative_room_is_refused(running: list[Holder], ahead: list[Waiter], room: int) -> None:
    with pytest.raises(ValueError, match="room must not be negative"):
        wait_eta(NOW, 0, running, ahead, room)
