"""``muster why``: the scheduler's explanation in words, and what is said when nobody answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from muster.cli.arguments import Failure
from muster.cli.why import ask, from_status, in_words, with_names
from muster.cluster.breakdown import Breakdown
from muster.scheduling.explaining import Ahead, Explanation
from muster.scheduling.model import GangStatus, Phase

FULL = Breakdown(
    nodes=10, not_ready=1, cordoned=0, selector=3, affinity=0, taint=0, too_small=0, too_full=4, fit=2,
    selector_labels=(("disk=ssd", 3),), too_full_in=(("cpu", 4), ("memory", 1)),
)  # fmt: skip
WAITING = Explanation(
    application="team-a/spark-1",
    sentence="It waits its turn: team-a/spark-0 came first in its node pool and must start first.",
    status=GangStatus(Phase.PENDING, "BehindEarlier"),
    pool="batch",
    position=2,
    ahead=(Ahead("team-a/spark-0", 200.0, True, "WaitingForCapacity"),),
    minimum=20,
    maximum=20,
    placed=0,
    unfilled=0,
    owed=0,
    executors_fit_now=12,
    driver_nodes=FULL,
    executor_nodes=FULL,
)


def words(explanation: Explanation) -> str:
    """As the command prints it: from the JSON of the read API."""
    return "\n".join(in_words(msgspec.to_builtins(explanation), "nightly"))


@asynccontextmanager
async def read_api(status: int, body: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """A management port that answers ``/why``; gives its URL and what it was asked."""
    asked: list[str] = []

    async def why(request: web.Request) -> web.Response:
        asked.append(request.query["application"])
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/why", why)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def test_the_answer_begins_with_the_state_and_one_sentence() -> None:
    first, second, *_ = words(WAITING).splitlines()
    assert first == "nightly: Pending, BehindEarlier"
    assert second.strip() == WAITING.sentence


def test_place_and_who_is_ahead_are_told() -> None:
    text = words(WAITING)
    assert "Place 2 in the queue of node pool batch." in text
    assert "behind team-a/spark-0, 3m20s old, which must start first (WaitingForCapacity)" in text
    assert "Of its 20 executors, 12 would fit now." in text


def test_nodes_are_counted_by_what_keeps_pods_away() -> None:
    lines = [line.strip() for line in words(WAITING).splitlines()]
    assert "Nodes for its executor: 2 of 10" in lines
    assert "1 not ready" in lines
    assert "3 do not match its node selector: disk=ssd on 3" in lines
    assert "4 are too full now: cpu on 4, memory on 1" in lines
    assert not any("cordoned" in line for line in lines)


def test_applications_are_called_by_name_where_it_is_known() -> None:
    known = [{"metadata": {"name": "spark-0"}, "spec": {"applicationName": "hourly"}}]
    assert "team-a/hourly came first" in with_names(words(WAITING), known)


def test_a_long_queue_is_cut() -> None:
    many = tuple(Ahead(f"team-a/spark-{number}", 1.0, True, "") for number in range(9))
    text = words(msgspec.structs.replace(WAITING, ahead=many, position=10))
    assert text.count("behind team-a/") == 5
    assert "and 4 more" in text


def test_the_head_of_the_queue_is_told_so() -> None:
    assert "Nobody is ahead." in words(msgspec.structs.replace(WAITING, ahead=(), position=1))


def test_one_that_runs_is_not_told_of_queue_and_nodes() -> None:
    running = msgspec.structs.replace(
        WAITING, position=None, ahead=(), status=GangStatus(Phase.RUNNING), sentence="It runs."
    )
    assert words(running) == "nightly: Running\n  It runs."


async def test_the_leader_is_asked_for_namespace_and_id() -> None:
    async with read_api(200, {"sentence": "It runs."}) as (server, asked):
        assert await ask(server + "/", "team-a/spark-1") == ({"sentence": "It runs."}, "")
    assert asked == ["team-a/spark-1"]


async def test_what_a_replica_refuses_is_passed_on() -> None:
    async with read_api(503, {"error": "this replica does not decide; the lease is held by b"}) as (server, _):
        explanation, trouble = await ask(server, "team-a/spark-1")
    assert explanation is None
    assert trouble == f"{server} says: this replica does not decide; the lease is held by b"


async def test_an_address_where_nobody_listens_is_named() -> None:
    async with read_api(200, {}) as (server, _):
        pass
    explanation, trouble = await ask(server, "team-a/spark-1")
    assert explanation is None
    assert trouble.startswith(f"{server} cannot be reached")


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(Failure, match=r"--server 'nonsense' is no URL; expected for example http://127\.0\.0\.1:8484"):
        await ask("nonsense", "team-a/spark-1")


def test_the_status_of_the_gang_tells_what_it_knows() -> None:
    gang = {
        "metadata": {"name": "spark-1"},
        "spec": {"applicationName": "nightly"},
        "status": {
            "phase": "Pending",
            "reason": "WaitingForCapacity",
            "message": "its driver and 20 executors do not fit",
            "conditions": [{"type": "Reserved", "status": "False", "reason": "WaitingForCapacity", "message": ""}],
        },
    }
    assert from_status(gang) == [
        "nightly: Pending, WaitingForCapacity",
        "  its driver and 20 executors do not fit",
        "  Reserved=False: WaitingForCapacity",
    ]
