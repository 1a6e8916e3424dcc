"""Losses as drivers tell them over Spark's REST API, and what happens when they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from muster.control.executor_losses import AT_ONCE, KEPT_SECONDS, Executor, ExecutorLosses, Losses, loss_of, losses_of
from muster.queueing.preemption import ExecutorLoss

KEY = "team-a/spark-1"
PATH = "/api/v1/applications/{application}/executors"
SUMMARY = {
    "id": "1",
    "hostPort": "10.0.0.7:41235",
    "isActive": True,
    "rddBlocks": 0,
    "totalCores": 2,
    "activeTasks": 2,
    "failedTasks": 1,
    "completedTasks": 9,
    "totalDuration": 50_000,
    "totalShuffleWrite": 169,
}
"""Of Spark's documentation (``ExecutorSummary``), shortened."""
LOSS = ExecutorLoss(60.0, has_shuffle=True)
"""Fifty seconds of ended tasks, and two tasks that run for five on average."""


@pytest.mark.parametrize(
    ("executor", "loss"),
    [
        (Executor("1", completed_tasks=5, total_duration=5000), ExecutorLoss(0.0, False)),
        (Executor("1", completed_tasks=5, total_duration=5000, total_shuffle_write=1), ExecutorLoss(5.0, True)),
        (Executor("1", completed_tasks=5, total_duration=5000, rdd_blocks=3), ExecutorLoss(5.0, False)),
        (Executor("1", completed_tasks=5, total_duration=5000, active_tasks=2), ExecutorLoss(2.0, False)),
        (Executor("1"), ExecutorLoss(0.0, False)),
        (Executor("1", active_tasks=1), None),
    ],
)
def test_what_is_lost_is_ended_work_whose_output_is_kept_there_and_what_runs(
    executor: Executor, loss: ExecutorLoss | None
) -> None:
    assert loss_of(executor) == loss


def test_the_driver_itself_and_executors_that_are_gone_are_left_out() -> None:
    some = [Executor("driver"), Executor("1", is_active=False), Executor("2")]
    assert losses_of(some) == (("2", ExecutorLoss(0.0, False)),)


class Told:
    """What was reported, and when to look."""

    def __init__(self) -> None:
        self.losses: list[tuple[str, Losses]] = []
        self.now = 1000.0
        self.source = ExecutorLosses(lambda key, losses: self.losses.append((key, losses)), lambda: self.now)

    async def ask(self, server: BaseTestServer, key: str = KEY) -> None:
        assert server.port is not None
        self.source.ask(key, "127.0.0.1", server.port)
        await self.settled()

    async def settled(self) -> None:
        await asyncio.gather(*self.source._tasks.values())


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def driver(answer: Handler) -> AsyncIterator[tuple[BaseTestServer, Told]]:
    app = web.Application()
    app.router.add_get(PATH, answer)
    told = Told()
    async with TestServer(app) as server:
        yield server, told
        await told.source.close()


async def test_an_answer_is_reported_and_kept_for_a_while() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.match_info["application"])
        return web.json_response([SUMMARY, SUMMARY | {"id": "driver"}])

    async with driver(answer) as (server, told):
        await told.ask(server)
        await told.ask(server)
        assert told.losses == [(KEY, (("1", LOSS),))] * 2
        assert asked == ["spark-1"]
        told.now += KEPT_SECONDS + 1
        await told.ask(server)
        assert asked == ["spark-1"] * 2


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.json_response({"error": "no such app"}),
        lambda: web.json_response([SUMMARY | {"totalDuration": "long"}]),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(status=403),
        lambda: web.Response(status=302, headers={"Location": "https://127.0.0.1:1/"}),
        lambda: web.Response(body=b"[" + b" " * 5 * 2**20 + b"]"),
    ],
)
async def test_an_answer_that_is_of_no_use_is_no_answer_and_not_asked_for_again_at_once(
    response: Callable[[], web.Response],
) -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return response()

    async with driver(answer) as (server, told):
        await told.ask(server)
        await told.ask(server)
        assert (told.losses, asked) == ([], 1)


async def test_a_driver_without_a_ui_is_no_trouble() -> None:
    told = Told()
    told.source.ask(KEY, "127.0.0.1", 1)
    await told.settled()
    assert told.losses == []
    await told.source.close()


async def test_few_are_asked_at_a_time_and_closing_waits_for_nobody() -> None:
    under_way = most = 0
    enough = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == AT_ONCE:
            enough.set()
        await asyncio.sleep(3600)
        return web.Response()

    async with driver(answer) as (server, told):
        assert server.port is not None
        for number in range(3 * AT_ONCE):
            told.source.ask(f"team-a/spark-{number}", "127.0.0.1", server.port)
        await enough.wait()
        await told.source.close()
        assert (told.losses, most) == ([], AT_ONCE)
