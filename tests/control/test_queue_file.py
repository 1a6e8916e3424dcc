"""``queues.yaml`` on disk: how changes of it are noticed, and what a mistake in it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from muster.control.documents import ConfigError
from muster.control.queue_file import QueueFile

PATIENCE = 30.0


@asynccontextmanager
async def followed(file: QueueFile) -> AsyncIterator[Callable[[], int]]:
    """The file is looked at all the time; gives how often something new was told."""
    told = 0

    def listener() -> None:
        nonlocal told
        told += 1

    stop = file.listen(listener)
    task = asyncio.create_task(file.follow(0.02))
    try:
        yield lambda: told
    finally:
        stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - the file system tells nobody
            await asyncio.sleep(0.01)


def names(file: QueueFile) -> list[str]:
    return list(file.documents.queues)


async def test_a_change_of_the_content_is_read(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: a}]")
    file = QueueFile(path)
    assert names(file) == ["a"]
    async with followed(file) as told:
        path.write_text("queues: [{name: a}, {name: b}]")
        await until(lambda: told() == 1)
        assert names(file) == ["a", "b"]


async def test_a_mounted_config_map_is_a_link_that_is_replaced(tmp_path: Path) -> None:
    """As the kubelet does it (pkg/volume/util/atomic_writer.go): ..data points to a folder with a time in its name."""
    for revision, text in (("..1", "queues: [{name: a}]"), ("..2", "queues: [{name: b}]")):
        (tmp_path / revision).mkdir()
        (tmp_path / revision / "queues.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "queues.yaml").symlink_to("..data/queues.yaml")
    file = QueueFile(tmp_path / "queues.yaml")
    async with followed(file) as told:
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await until(lambda: told() == 1)
        assert names(file) == ["b"]


async def test_a_mistake_keeps_what_was_there_and_is_mended_by_the_next_change(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: a, weight: 2}]")
    file = QueueFile(path)
    async with followed(file) as told:
        path.write_text("queues: [{name: a, weight: 0}, {name: b}]")
        await until(lambda: told() == 1)
        assert (file.ok, names(file), file.documents.queues["a"].weight) == (False, ["a"], 2)
        path.write_text("queues: [{name: a, weight: 3}, {name: b}]")
        await until(lambda: file.ok)
        assert (names(file), file.documents.queues["a"].weight) == (["a", "b"], 3)


async def test_a_file_that_cannot_be_read_any_more_keeps_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: a}]")
    file = QueueFile(path)
    async with followed(file):
        path.write_bytes(b"\xff\xfe\xfd")
        await until(lambda: not file.ok)
        assert names(file) == ["a"]
        path.write_text("queues: [{name: a}]")
        await until(lambda: file.ok)


async def test_a_file_that_is_not_there_says_nothing_until_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    file = QueueFile(path)
    assert (file.ok, names(file)) == (True, [])
    async with followed(file) as told:
        path.write_text("queues: [{name: a}]")
        await until(lambda: told() == 1)
        assert names(file) == ["a"]
        path.unlink()
        await until(lambda: told() == 2)
        assert (file.ok, names(file)) == (True, [])


def test_a_mistake_at_the_start_ends_it_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: a, weight: 0}, {name: b, policy: FIFO}]")
    with pytest.raises(ConfigError) as caught:
        QueueFile(path)
    assert str(caught.value) == (
        f"{path}: queue a: weight = 0: expected at least 1; "
        f"{path}: queue b: policy = 'FIFO': allowed are fifo, fair, priority"
    )


async def test_a_file_that_is_still_being_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = "queues: [{name: a}, {name: b}]"
    looks = iter(["", "queues: []", "", whole])
    path = tmp_path / "queues.yaml"
    path.write_text("queues: [{name: a}]")
    file = QueueFile(path)
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: next(looks, whole))
    async with followed(file) as told:
        await until(lambda: told() == 1)
    assert names(file) == ["a", "b"], "and nothing was in force between"
