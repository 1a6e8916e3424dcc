"""Each replica has what the others recorded: a new pod and a new leader know the earlier runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from muster.control import history_api
from muster.control.history_copies import HistoryCopies
from muster.control.management import management_app
from muster.control.serve import Service
from muster.devcluster.node_pool import NodePool
from muster.history.archive import Archive
from muster.history.estimates import Shape
from muster.history.queries import Query
from tests.control.running_cluster import running_cluster
from tests.control.test_history_of_running_clusters import expect_row
from tests.history.finished import finished

SHAPE = Shape(4000, 2**34, 20)


class Replica:
    """An archive, and the real management port before it."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(folder / "history.db", keep_days=90, keep_applications=1000, notice=print)
        self.url = ""
        self.asked = 0

    async def ids(self) -> list[str]:
        return sorted(one.application_id for one in await self.archive.applications(Query(limit=500)))

    async def copy_from(self, url: str) -> int:
        return await HistoryCopies(self.archive, url).round()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            self.asked += 1
            answer: web.StreamResponse = await handler(request)
            return answer

        app = management_app(cast(Service, SimpleNamespace(history=self.archive)))
        app.middlewares.append(count)
        runner = web.AppRunner(app)
        await runner.setup()
        self.archive.start()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()
            await self.archive.close(30.0)


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Replica(tmp_path / name).running()) for name in "abc"]


def ids(numbers: Sequence[int]) -> list[str]:
    return sorted(f"spark-{number}" for number in numbers)


async def record(replica: Replica, numbers: Sequence[int]) -> None:
    for number in numbers:
        replica.archive.record(finished(number=number))
    await replica.archive.settled()


async def test_a_new_replica_copies_everything_page_by_page_and_then_only_what_is_new(replicas: list[Replica]) -> None:
    old, new, _ = replicas
    await record(old, range(250))
    assert await new.copy_from(old.url) == 250
    assert await new.ids() == ids(range(250))
    [copied] = await new.archive.applications(Query(application="spark-7"), timelines=True)
    assert copied == finished(number=7), "with its timeline"
    old.asked = 0
    await record(old, [300])
    assert await new.copy_from(old.url) == 1
    assert old.asked <= 3, "it goes on where it was"
    assert await new.copy_from(old.url) == 0


async def test_what_was_copied_serves_the_estimates(replicas: list[Replica]) -> None:
    old, new, _ = replicas
    await record(old, range(5))
    assert new.archive.estimator.run_seconds("team-a", "nightly-2026-11-26", SHAPE) is None
    await new.copy_from(old.url)
    guess = new.archive.estimator.run_seconds("team-a", "nightly-2026-12-01", SHAPE)
    assert guess is not None
    assert (guess.samples, guess.seconds) == (5, 604.0)


async def test_copies_of_copies_come_once(replicas: list[Replica]) -> None:
    a, b, c = replicas
    await record(a, [1, 2])
    await record(b, [3])
    await b.copy_from(a.url)
    await c.copy_from(b.url)
    await c.copy_from(a.url)
    await a.copy_from(c.url)
    for replica in replicas:
        assert await replica.ids() == ids([1, 2, 3])
    assert a.archive.estimator.run_seconds("team-a", "nightly-2026-11-26", SHAPE) is not None
    guess = c.archive.estimator.run_seconds("team-a", "nightly-2026-11-26", SHAPE)
    assert guess is not None
    assert guess.samples == 3


async def test_a_replica_that_is_sent_to_itself_copies_nothing(replicas: list[Replica]) -> None:
    one, *_ = replicas
    await record(one, [1])
    assert await one.copy_from(one.url) == 0
    assert await one.ids() == ids([1])


async def test_where_it_was_outlives_a_restart(tmp_path: Path, replicas: list[Replica]) -> None:
    old, *_ = replicas
    await record(old, range(150))
    async with Replica(tmp_path / "d").running() as new:
        await new.copy_from(old.url)
    old.asked = 0
    async with Replica(tmp_path / "d").running() as again:
        assert await again.copy_from(old.url) == 0
        assert len(await again.ids()) == 150
    assert old.asked == 2, "who are you, and what is new"


async def test_nobody_there_is_no_trouble(replicas: list[Replica]) -> None:
    new = replicas[0]
    async with Replica(new.archive.path.parent / "gone").running() as gone:
        pass
    assert await new.copy_from(gone.url) == 0
    assert await new.copy_from("http://127.0.0.1:9/nothing") == 0


async def test_an_answer_that_is_no_history_is_not_kept(replicas: list[Replica]) -> None:
    new = replicas[0]

    async def nonsense(request: web.Request) -> web.Response:
        return web.json_response({"origin": "x", "last": 3, "applications": [{"name": "half"}]})

    app = web.Application()
    app.router.add_get("/history/entries", nonsense)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        assert await new.copy_from(f"http://127.0.0.1:{runner.addresses[0][1]}") == 0
    finally:
        await runner.cleanup()
    assert await new.ids() == []


@pytest.mark.parametrize("text", ["-1", "x", "1" * 30, "½"])
def test_pages_are_asked_for_by_number(text: str) -> None:
    with pytest.raises(history_api.BadQuery, match="is no number of an entry"):
        history_api.after_from({"after": text})


async def test_a_service_copies_from_its_peers_as_it_starts(tmp_path: Path, replicas: list[Replica]) -> None:
    peer = replicas[0]
    await record(peer, [1, 2, 3])
    settings = {"path": str(tmp_path / "own" / "history.db"), "peers": peer.url}
    async with running_cluster(NodePool(count=1, cpu=8), history=settings) as cluster:
        assert (await expect_row(cluster, "spark-2"))["outcome"] == "Succeeded"
