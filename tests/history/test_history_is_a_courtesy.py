"""The archive never holds up the service: what cannot be written waits, is counted when lost, and is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.history import archive as archive_module
from muster.history.archive import Archive
from muster.history.estimates import Shape
from muster.history.queries import By, Query
from muster.history.records import Requests, StrandedSample
from muster.history.store import Store, StoreError
from tests.history.finished import NIGHTLY, NOON, finished

PATIENCE = 30.0
SHAPE = Shape(4000, 2**34, 20)


class Told:
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.written = self.dropped = 0

    def add_written(self, count: int) -> None:
        self.written += count

    def add_dropped(self, count: int) -> None:
        self.dropped += count


@asynccontextmanager
async def archive(path: Path, told: Told | None = None, **more: Any) -> AsyncIterator[Archive]:
    told = told or Told()
    one = Archive(
        path,
        **({"keep_days": 90, "keep_applications": 1000} | more),
        notice=told.notices.append,
        written=told.add_written,
        dropped=told.add_dropped,
    )
    one.start()
    try:
        yield one
    finally:
        await one.close(PATIENCE)


async def until(holds: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not holds():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history" / "history.db"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "RETRY_S", 0.02)


async def test_what_is_recorded_is_there_after_a_stop(path: Path) -> None:
    told = Told()
    async with archive(path, told) as first:
        for number in range(450):
            first.record(finished(number=number))
        first.sample(StrandedSample(NOON, "p", 1, 10, 10, 5, 5, 5, 0))
    assert (told.written, told.dropped, told.notices) == (451, 0, [])
    async with archive(path) as again:
        assert len(await again.applications(Query(limit=500))) == 450
        assert [one.key for one in await again.summary(By.POOL, Query())] == ["spark", "p"]


async def test_recording_takes_no_time_of_the_event_loop(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on while the disk does not answer."""
    add, release, entered = Store.add, asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stuck(store: Store, *rows: Any) -> None:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(PATIENCE)
        add(store, *rows)

    monkeypatch.setattr(Store, "add", stuck)
    told = Told()
    async with archive(path, told) as one:
        one.record(NIGHTLY)
        await asyncio.wait_for(entered.wait(), PATIENCE)
        for number in range(10):
            one.record(finished(number=number + 2))
        assert told.written == 0
        release.set()
        await one.settled()
        assert told.written == 11


async def test_more_than_may_wait_is_dropped_and_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MOST_PENDING", 20)
    told = Told()
    async with archive(path, told) as one:
        for number in range(25):  # none is written before the loop runs again
            one.record(finished(number=number))
        one.sample(StrandedSample(NOON, "p", 1, 1, 1, 1, 1, 1, 1))
        assert told.dropped == 6
        await one.settled()
        assert len(await one.applications(Query())) == 20
        one.record(finished(number=100))
    assert (told.written, told.dropped) == (21, 6)


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_cannot_be_opened_is_told_once_and_tried_again(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    told = Told()
    async with archive(path, told) as one:
        one.record(NIGHTLY)
        await until(lambda: len(told.notices) > 0)
        for number in range(2, 5):
            one.record(finished(number=number))
            await asyncio.sleep(0.05)  # some tries
        assert len(told.notices) == 1
        assert "history is not written now" in told.notices[0]
        with pytest.raises(StoreError):
            await one.applications(Query())
        path.parent.unlink()
        await until(lambda: told.written == 4)
        assert told.notices[1:] == ["history is written again; 0 entries were lost"]
        assert len(await one.applications(Query())) == 4


async def test_a_damaged_file_is_kept_aside_and_history_begins_anew(path: Path) -> None:
    overwrite(path, 0, b"no database" * 1000)
    told = Told()
    async with archive(path, told) as one:
        one.record(NIGHTLY)
        await one.settled()
        assert await one.applications(Query(), timelines=True) == [NIGHTLY]
    [notice] = told.notices
    assert "is begun anew" in notice
    assert path.with_name("history.db.damaged").read_bytes().startswith(b"no database")


async def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(path: Path) -> None:
    told = Told()
    async with archive(path, told) as one:
        for number in range(300):
            one.record(finished(number=number))
        await one.settled()
    overwrite(path, 4096, b"\xff" * 100_000)
    async with archive(path, told) as one:
        one.record(NIGHTLY)
        await one.settled()
        assert await one.applications(Query(), timelines=True) == [NIGHTLY]
    assert "is begun anew" in told.notices[0]


async def test_an_entry_that_can_never_be_kept_does_not_stop_the_others(path: Path) -> None:
    told = Told()
    async with archive(path, told) as one:
        one.record(finished(executor=Requests(2**70, 1)))
        await one.settled()
        one.record(NIGHTLY)
        await one.settled()
        assert await one.applications(Query(), timelines=True) == [NIGHTLY]
    assert (told.written, told.dropped) == (1, 1)
    assert [notice.partition(":")[0] for notice in told.notices] == ["1 entries of the history cannot be kept"]


async def test_estimates_know_the_runs_of_earlier_processes_and_new_ones_at_once(path: Path) -> None:
    async with archive(path) as one:
        for number in range(3):
            one.record(finished(number=number))
    async with archive(path) as again:
        for number in (7, 8):
            again.record(finished(number=number))  # before the file has been read
        await again.settled()
        again.record(finished(number=9))
        guess = again.estimator.run_seconds("team-a", "nightly-2026-12-01", SHAPE)
        assert guess is not None
        # runs of 600 s and their number: 0, 1, 2, 7, 8, 9
        assert (guess.samples, guess.low, guess.median, guess.seconds) == (6, 600.0, 604.5, 609.0)


async def test_estimates_know_nothing_of_runs_that_failed_or_never_started(path: Path) -> None:
    async with archive(path) as one:
        for number in range(5):
            one.record(finished(number=number, outcome="Failed"))
            one.record(finished(number=10 + number, reserved=None))
        assert one.estimator.run_seconds("team-a", "nightly-2026-11-26", SHAPE) is None
