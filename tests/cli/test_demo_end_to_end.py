"""The demo itself, small and without real Spark, as a process; with its service killed on the way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE

KEYS = {"applications", "pods", "partial_gangs", "overcommitted_nodes", "writes_per_pod", "seconds"}
APPLICATION_KEYS = {"name", "real", "min", "submit_to_driver_s", "submit_to_minimum_s", "outcome"}


async def test_a_small_demo_ends_well_though_its_service_is_killed() -> None:
    """One JSON object on standard output and nothing else; the service is killed while gangs wait."""
    arguments = ("demo", "--no-spark", "--nodes", "100", "--applications", "6", "--speed", "3", "--output", "json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster.cli.main", *arguments, stdout=PIPE, stderr=PIPE
    )
    assert process.stderr is not None
    assert process.stdout is not None
    told: list[str] = []
    killed = 0
    async for line in process.stderr:
        told.append(line.decode())
        started = re.search(r"muster serve is process (\d+)", told[-1])
        if started:
            killed = int(started.group(1))
        elif killed and "waiting" in told[-1]:
            os.kill(killed, signal.SIGKILL)
            killed = 0
    output = (await process.stdout.read()).decode()
    assert await process.wait() == 0, "".join(told)

    report = json.loads(output)
    assert set(report) == KEYS
    assert all(set(application) == APPLICATION_KEYS for application in report["applications"])
    assert {application["outcome"] for application in report["applications"]} == {"succeeded"}
    assert len(report["applications"]) == 6
    assert report["partial_gangs"] == 0
    assert report["overcommitted_nodes"] == 0
    assert report["pods"] >= sum(1 + application["min"] for application in report["applications"])
    assert 1 < report["writes_per_pod"] < 4
    assert any("was started again" in line for line in told), "".join(told)
