"""``muster why``: the scheduler's explanation in words, and what is said when nobody answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from muster.cli.arguments import Failure
from muster.cli.why import answer_in_words, ask, from_status, with_names
from muster.cluster.breakdown import Breakdown
from muster.control.why_in_words import in_words
from muster.scheduling.explaining import Ahead, CalledBack, Eta, Explanation, FutureStart, Quota, WaitsFor
from muster.scheduling.model import Phase
from muster.scheduling.what_if import Change, Proposal

FULL = Breakdown(
    nodes=10, not_ready=1, cordoned=0, selector=3, affinity=0, taint=0, too_small=0, too_full=4, fit=2,
    selector_labels=(("disk=ssd", 3),), too_full_in=(("cpu", 4), ("memory", 1)),
)  # fmt: skip
WAITING = Explanation(
    application="team-a/spark-1",
    name="nightly",
    at=10_000.0,
    sentence="An earlier application of its node pool waits for capacity, and goes first.",
    state=Phase.PENDING,
    reason="BehindEarlier",
    waits_for=WaitsFor.CAPACITY,
    queue=("etl", "hourly"),
    pool="batch",
    position=2,
    ahead=(Ahead("team-a/spark-0", "hourly", "etl", 200.0, True, "it is older", "WaitingForCapacity"),),
    ahead_more=0,
    minimum=20,
    maximum=20,
    placed=0,
    unfilled=0,
    owed=0,
    executors_fit_now=12,
    driver_nodes=FULL,
    executor_nodes=FULL,
)
replace = msgspec.structs.replace


def words(explanation: Explanation, *, wide: bool = False) -> str:
    """As the command prints it."""
    return "\n".join(in_words(explanation, "nightly", wide=wide))


@asynccontextmanager
async def read_api(status: int, body: Any) -> AsyncIterator[tuple[str, list[str]]]:
    """A management port that explains applications; gives its URL and what it was asked."""
    asked: list[str] = []

    async def why(request: web.Request) -> web.Response:
        asked.append("{namespace}/{id}".format(**request.match_info))
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/applications/{namespace}/{id}/why", why)
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
    assert "Queue etl / hourly, node pool batch." in text
    assert "Place 2 among all that wait in node pool batch." in text
    assert "behind team-a/spark-0, 3m20s old: it is older, and must start first (WaitingForCapacity)" in text
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
    assert "behind team-a/hourly, 3m20s old" in with_names(words(WAITING), known)


def test_a_long_queue_is_cut_and_wide_shows_more_of_it() -> None:
    many = tuple(Ahead(f"team-a/spark-{number}", "", "etl", 1.0, True, "it is older", "") for number in range(9))
    long = replace(WAITING, ahead=many, ahead_more=90, position=100)
    assert words(long).count("behind team-a/") == 5
    assert "and 94 more" in words(long)
    assert words(long, wide=True).count("behind team-a/") == 9
    assert "behind team-a/spark-8 in queue etl, 1s old" in words(long, wide=True)
    assert "and 90 more" in words(long, wide=True)


def test_the_head_of_the_queue_is_told_so() -> None:
    assert "Nobody is ahead." in words(replace(WAITING, ahead=(), position=1))


def test_one_that_runs_is_not_told_of_queue_and_nodes() -> None:
    running = replace(
        WAITING, position=None, ahead=(), state=Phase.RUNNING, reason="", waits_for=None, sentence="It runs."
    )
    assert words(running) == "nightly: Running\n  It runs."


def test_quota_is_told_with_its_numbers_and_without_nodes() -> None:
    limit = Quota("QueueMax", "etl", "cpu", "5", "3", "5", "", "", 'queue "etl" may hold cpu 5, holds 3, and …')
    text = words(replace(WAITING, waits_for=WaitsFor.QUOTA, quota=limit))
    assert "It waits for quota, not for nodes:" in text
    assert 'queue "etl" may hold cpu 5, holds 3' in text
    assert "Nodes for its executor" not in text


def test_what_is_coming_is_told() -> None:
    eta = Eta(early=10_060.0, expected=10_090.0, late=10_300.0, estimated=7, unknown=2, error=0.25)
    text = words(
        replace(
            WAITING,
            future=FutureStart("team-a/spark-0", 10_200.0, 3),
            called_back=CalledBack(4, ("team-b/spark-7",)),
            eta=eta,
        )
    )
    assert ("team-a/spark-0 starts in 3m20s at the latest, if what runs ends as expected (3 expected end(s)).") in text
    assert "Called back for it: 4 pod(s) of team-b/spark-7" in text
    assert (
        "It should start in about 90s, between 60s and 5m "
        "(from 7 known run time(s), 2 unknown; such estimates were off by 25%)."
    ) in text


def test_what_nobody_knows_is_said() -> None:
    eta = Eta(early=None, expected=None, late=None, estimated=0, unknown=9, error=None)
    text = words(replace(WAITING, future=FutureStart("team-a/spark-1", None, 0), eta=eta))
    assert "When it will start cannot be told: of too few that run an end is expected." in text
    assert "When it starts cannot be told from earlier runs (from 0 known run time(s), 9 unknown)." in text


def test_changes_that_would_start_it_are_listed_or_that_there_are_none() -> None:
    fewer = Proposal(Change.FEWER_EXECUTORS, "with 12 executor(s) instead of 20", executors=12)
    assert "It would start now\n  - with 12 executor(s) instead of 20" in words(replace(WAITING, proposals=(fewer,)))
    assert "No single change that was tried would start it now." in words(WAITING)


def test_an_answer_of_another_version_is_named() -> None:
    with pytest.raises(Failure, match="of another version of Muster"):
        answer_in_words({"sentence": "It runs."}, "nightly", wide=False)


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
