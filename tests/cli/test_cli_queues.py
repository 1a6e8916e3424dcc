"""``muster queues``: the tree, one queue in words, and the check of files."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from muster.cli.main import main
from muster.cli.queues import details, tree

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples" / "queues.yaml"


def queue(name: str, parent: str = "", **more: Any) -> dict[str, Any]:
    """As the read API tells it."""
    return {
        "name": name,
        "parent": parent,
        "leaf": True,
        "policy": "fifo",
        "weight": 1,
        "guaranteed": {},
        "max": {},
        "used": {},
        "drivers": {},
        "running": 0,
        "waiting": 0,
        "share": 0.0,
        "maxApplications": None,
        "driverShare": 100,
        "preemption": "extras",
        "nodePools": [],
    } | more


COMPANY = queue("company", policy="fair", max={"cpu": "2k", "memory": "8Ti"}, running=3, waiting=1, share=0.405)
ETL = queue(
    "etl",
    "company",
    policy="priority",
    guaranteed={"cpu": "600"},
    used={"cpu": "410", "memory": "1Ti"},
    drivers={"cpu": "3"},
    running=3,
    waiting=1,
    share=0.205,
    weight=3,
    maxApplications=50,
    driverShare=20,
    nodePools=["batch", ""],
)
TREE = [COMPANY, queue("analytics", "company"), queue("team-a", "analytics"), ETL, queue("default")]


def test_the_tree_is_drawn_with_what_each_queue_holds() -> None:
    lines = tree(TREE).split("\n")
    assert [line.split("   ")[0].rstrip() for line in lines] == [
        "NAME",
        "company",
        "├─ analytics",
        "│  └─ team-a",
        "└─ etl",
        "default",
    ]
    assert lines[0].split() == ["NAME", "POLICY", "GUARANTEED", "USED", "MAX", "RUNNING", "WAITING", "SHARE"]
    assert lines[1].split() == ["company", "fair", "-", "-", "cpu=2k,memory=8Ti", "3", "1", "40.5%"]
    assert lines[4].split() == ["└─", "etl", "priority", "cpu=600", "cpu=410,memory=1Ti", "-", "3", "1", "20.5%"]


def test_wide_has_the_rest() -> None:
    lines = tree(TREE, wide=True).split("\n")
    assert lines[0].split()[-5:] == ["WEIGHT", "DRIVERS", "APPLICATIONS", "PREEMPTION", "POOLS"]
    assert lines[1].split()[-5:] == ["1", "-", "∞", "extras", "all"]
    assert lines[4].split()[-5:] == ["3", "cpu=3", "50", "extras", "batch,(none)"]


ANSWER = {
    "queue": ETL,
    "problem": "",
    "path": ["company", "etl"],
    "children": [],
    "limits": [{"users": ["*"], "groups": [], "max": {"cpu": "400"}, "maxApplications": 5}],
    "submitters": {"groups": ["data-platform"], "serviceAccounts": ["etl/spark"]},
    "minRuntimeSeconds": 600.0,
    "users": [
        {"user": "alice", "running": 3, "waiting": 0, "used": {"cpu": "410"}},
        {"user": "", "running": 0, "waiting": 1, "used": {}},
    ],
    "waiting": [
        {
            "position": 2,
            "application": "etl/spark-1",
            "name": "nightly",
            "queue": "etl",
            "pool": "batch",
            "user": "",
            "priority": 700,
            "created": 1_800_000_000.0,
            "reason": "OverQuota",
            "message": 'queue "etl" may hold cpu 600',
        }
    ],
}


def test_one_queue_is_told_in_words() -> None:
    text = "\n".join(details(ANSWER, 1_800_000_200.0, wide=True))
    for words in (
        "company / etl\n",
        "policy       priority, weight 3",
        "used         cpu=410,memory=1Ti (20.5% of the cluster)",
        "max          -",
        "applications 3 of 50 running, 1 waiting",
        "drivers      cpu=3, at most 20 % of max",
        "preemption   extras, safe for 10m",
        "node pools   batch,(none)",
        "submitters   groups data-platform; serviceAccounts etl/spark",
    ):
        assert words in text
    header, row = text.split("\n")[-2:]
    assert header.split() == ["PLACE", "APPLICATION", "USER", "QUEUE", "PRIORITY", "WAITS", "REASON", "MESSAGE"]
    assert row.split()[:8] == ["2", "(batch)", "etl/nightly", "-", "etl", "700", "3m20s", "OverQuota"]
    assert row.endswith('   queue "etl" may hold cpu 600')
    assert "(unknown)" in text
    assert "not in force" not in text


def test_one_whose_newest_version_is_not_in_force_says_so_first() -> None:
    text = "\n".join(details(ANSWER | {"problem": "weight: 0 is not allowed"}, 1_800_000_200.0))
    assert text.startswith("company / etl\n  not in force as it is written: weight: 0 is not allowed\n")


@asynccontextmanager
async def read_api() -> AsyncIterator[str]:
    async def queues(request: web.Request) -> web.Response:
        return web.json_response({"queues": TREE, "problems": {"etl": "weight: 0 is not allowed"}})

    async def one(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name != "etl":
            return web.json_response({"error": f'there is no queue "{name}"'}, status=404)
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_get("/queues", queues)
    app.router.add_get("/queues/{name}", one)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def command(*arguments: str) -> int:
    """In a thread of its own, as the command runs a loop of its own."""
    import asyncio

    return await asyncio.to_thread(main, ["queues", *arguments])


async def test_the_service_is_asked_and_mistakes_are_told_beside_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api() as server:
        assert await command("--server", server) == 0
    out, err = capsys.readouterr()
    assert "└─ etl" in out
    assert err == "queue etl is not in force as it is written: weight: 0 is not allowed\n"


async def test_json_is_the_answer_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api() as server:
        assert await command("etl", "--server", server, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


async def test_a_queue_that_does_not_exist_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async with read_api() as server:
        assert await command("sales", "--server", server) == 1
    assert 'there is no queue "sales"' in capsys.readouterr().err


def test_a_sound_file_passes_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queues", "check", str(EXAMPLES)]) == 0
    assert capsys.readouterr().out == "4 queues, no mistakes\n"


def test_every_mistake_is_a_line_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("queues: [{name: a, weight: 0}, {name: b, policy: FIFO}]")
    second.write_text("queues: [{name: c, color: red}]")
    assert main(["queues", "check", str(first), str(second)]) == 1
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (3, "")
    assert out.splitlines()[2].startswith(f"{second}: queue c: color = 'red': unknown key; allowed here: driverShare, ")


def test_standard_input_can_be_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("queues: [{name: a, parent: b}]"))
    assert main(["queues", "check", "-"]) == 1
    assert capsys.readouterr().out.startswith('-: queue a: parent: there is no queue "b"')


def test_a_file_that_is_not_there_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queues", "check", str(tmp_path / "none.yaml")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_two_queues_at_a_time_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queues", "a", "b"]) == 2
    assert "one queue at a time, not a b" in capsys.readouterr().err
