"""``muster history``: what is asked of the read API, and how its answers are shown."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import web
from tests.history.finished import NIGHTLY, NOON, finished

from muster.cli.history import applications_table, in_words, span, summary_table
from muster.cli.main import main
from muster.history.queries import Summary


def served(**changes: Any) -> dict[str, Any]:
    """An application as the read API gives it."""
    one = finished(**changes)
    item: dict[str, Any] = msgspec.to_builtins(one)
    return item | {"runSeconds": one.run_seconds, "waitSeconds": one.wait_seconds}


SUMMARY = Summary(
    key="batch", applications=4, failed=1, core_seconds=7200, memory_byte_seconds=2**31 * 3600, unbound_core_seconds=72,
    idle_core_seconds=36, lost_core_seconds=1800, pair_seconds=100, cross_zone_pair_seconds=25, wait_seconds=400,
    estimated=3, estimate_kept=2, stranded_cpu=0.125, stranded_memory=None,
)  # fmt: skip


@asynccontextmanager
async def read_api(status: int, body: Any) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A management port that answers ``/history``; gives its URL and what it was asked."""
    asked: list[dict[str, str]] = []

    async def history(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_get("/history", history)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have a kubeconfig: it must not be needed."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


async def muster(server: str, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["history", *arguments, "--server", server])


def test_a_list_has_the_columns_people_look_for() -> None:
    failed = served(number=3600, name="text-mining", outcome="Failed", reserved=None, queue="adhoc")
    text = applications_table([served(), failed], NOON + 7200, wide=False, namespaces=False)
    assert text.splitlines() == [
        "NAME                 OUTCOME     QUEUE   WAIT   RUN   EXECUTORS   CORE-H   WASTE   ENDED",
        "nightly-2026-11-25   Succeeded   batch   100s   10m   31          10.0     1.5 %   120m ago",
        "text-mining          Failed      adhoc   11m          31          10.0     1.5 %   60m ago",
    ]


def test_wide_lists_say_more_and_namespaces_come_first() -> None:
    header, line = applications_table([served()], NOON, wide=True, namespaces=True).splitlines()
    assert header.split()[0] == "NAMESPACE"
    shown = dict(zip(header.split(), line.replace(" ago", "").replace(" %", "%").split(), strict=True))
    assert shown["ID"] == "spark-0"
    assert (shown["MIN"], shown["MAX"], shown["POOL"], shown["USER"]) == ("20", "∞", "spark", "alice")
    assert (shown["GIB-H"], shown["CROSS-ZONE"], shown["LOST-CORE-H"], shown["ESTIMATE"]) == (
        "2.0",
        "50.0%",
        "0.025",
        "10m",
    )


def test_a_summary_shows_shares_of_what_was_held() -> None:
    header, line = summary_table([msgspec.to_builtins(SUMMARY)], "queue").splitlines()
    assert dict(zip(header.split(), line.replace(" %", "%").split(), strict=True)) == {
        "QUEUE": "batch", "APPS": "4", "FAILED": "1", "MEAN-WAIT": "100s", "CORE-H": "2.0", "GIB-H": "2.0",
        "UNBOUND": "1.0%", "IDLE": "0.5%", "CROSS-ZONE": "25.0%", "LOST-CORE-H": "0.500", "ESTIMATES-KEPT": "66.7%",
    }  # fmt: skip


def test_a_summary_of_pools_shows_stranded_capacity() -> None:
    unnamed = msgspec.structs.replace(SUMMARY, key="", stranded_memory=0.5)
    header, named, other = summary_table(
        [msgspec.to_builtins(SUMMARY), msgspec.to_builtins(unnamed)], "pool"
    ).splitlines()
    assert header.split()[-2:] == ["STRANDED-CPU", "STRANDED-MEMORY"]
    assert named.endswith("12.5 %")
    assert other.startswith("<none>")
    assert other.endswith("50.0 %")


def test_one_application_is_told_in_words_with_its_timeline() -> None:
    assert in_words(served(number=0)) == [
        "nightly-2026-11-25: Succeeded, waited 100s, ran 10m",
        "  spark-0 in namespace team-a, queue batch, user alice, node pool spark",
        "  31 executor(s) at most (minimum 20, no maximum), each 4 core(s), 16.0 GiB; driver 1 core(s), 1.0 GiB",
        "  held 10.0 core-hours, 2.0 GiB-hours: 1.0 % reserved but unbound, 0.5 % bound but idle",
        "  50.0 % of its pairs of pods were in different zones, 100 at most",
        "  0.025 core-hours were lost with evicted pods",
        "  expected to run 10m: kept, 8 % too long",
        "",
        "TIME                   AFTER   WHAT                               CAUSE",
        "2026-11-25T11:50:00Z   +100s   reserved 20 slot(s) on 4 node(s)   NodeSeen node-7",
        "2026-11-25T12:00:00Z   +11m    its driver finished                PodSeen team-a/nightly-driver",
    ]


def test_what_an_application_did_not_do_is_left_out() -> None:
    bare = served(
        driver=None, reserved=None, maximum=20, estimated_seconds=300.0, timeline=(), observed_since=NOON,
        use=type(NIGHTLY.use)(),
    )  # fmt: skip
    assert in_words(bare) == [
        "nightly-2026-11-25: Succeeded, waited 11m, it never started",
        "  spark-0 in namespace team-a, queue batch, user alice, node pool spark",
        "  31 executor(s) at most (minimum 20, maximum 20), each 4 core(s), 16.0 GiB; driver outside the cluster",
        "  held 0 core-hours, 0 GiB-hours: 0 % reserved but unbound, 0 % bound but idle",
        "  seen from 2026-11-25T12:00:00Z on: another replica led before",
    ]


def test_an_estimate_that_was_too_short_is_told() -> None:
    assert "  expected to run 5m: not kept, 50 % too short" in in_words(served(estimated_seconds=300.0))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("24h", 86_400), ("7d", 604_800), ("1d12h", 129_600), ("5s", 5)]
)
def test_spans_are_written_as_people_write_them(text: str, seconds: int) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "h", "1h1d", "-1h", "1.5h", "week"])
def test_other_spans_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected for example 90m, 24h or 7d"):
        span(text)


async def test_every_filter_reaches_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {"records": True, "items": [served()]}) as (server, asked):
        options = (
            "--queue",
            "q",
            "--user",
            "u",
            "--name",
            "etl-*",
            "--sort",
            "waste",
            "--limit",
            "7",
            "--since",
            "24h",
        )
        assert await muster(server, "-n", "team-b", *options) == 0
    [query] = asked
    assert float(query.pop("since")) > NOON - 86_400 * 10_000
    assert query == {"namespace": "team-b", "queue": "q", "user": "u", "name": "etl-*", "sort": "waste", "limit": "7"}
    assert capsys.readouterr().out.startswith("NAME ")


async def test_all_namespaces_need_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {"records": True, "items": [served()]}) as (server, asked):
        assert await muster(server, "-A") == 0
    assert "namespace" not in asked[0]
    assert capsys.readouterr().out.startswith("NAMESPACE ")


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
async def test_machines_get_everything(output: str, load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {"records": True, "items": [served()]}) as (server, _):
        assert await muster(server, "-A", "-o", output) == 0
    assert load(capsys.readouterr().out) == json.loads(json.dumps([served()]))


async def test_one_name_asks_for_its_last_run(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {"records": True, "items": [served()]}) as (server, asked):
        assert await muster(server, "-n", "team-a", "nightly-2026-11-25") == 0
    assert (asked[0]["application"], asked[0]["limit"], asked[0]["sort"]) == ("nightly-2026-11-25", "1", "ended")
    assert capsys.readouterr().out.startswith("nightly-2026-11-25: Succeeded")


async def test_a_name_that_nobody_knows_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {"records": True, "items": []}) as (server, _):
        assert await muster(server, "-n", "team-a", "nigthly") == 1
        assert await muster(server, "-n", "team-a") == 0
    said = capsys.readouterr().err
    assert "no finished application nigthly in namespace team-a; `muster gangs` lists the others" in said
    assert "No finished applications found in namespace team-a." in said


async def test_a_replica_that_does_not_lead_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {"records": False, "items": [served()]}) as (server, _):
        assert await muster(server, "-A") == 0
    assert "This replica does not lead now" in capsys.readouterr().err


async def test_what_the_service_refuses_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(404, {"error": "no history is kept: history.path is not set in muster.yaml"}) as (server, _):
        assert await muster(server, "-A") == 1
    assert f"{server} says: no history is kept: history.path is not set in muster.yaml" in capsys.readouterr().err


async def test_an_address_where_nobody_listens_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api(200, {}) as (server, _):
        pass
    assert await muster(server, "-A") == 1
    assert f"{server} cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-A", "app", "--summary", "queue"), 2, "--summary sums over many applications"),
        (("-A", "--server", "nonsense"), 1, "--server 'nonsense' is no URL"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", *arguments]) == code
    assert said in capsys.readouterr().err
