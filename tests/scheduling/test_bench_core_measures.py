"""``muster bench core`` measures what it says on a small cluster; how long anything takes is no matter of tests."""

from __future__ import annotations

import json

import pytest

from muster.cli.main import main

NAMES = [
    "gang_fits",
    "gang_infeasible",
    "gang_100k_executors",
    "executor_own_slot",
    "executor_extra",
    "gang_behind_50",
    "queue_round",
    "decision_round",
    "why",
]


def test_every_measurement_is_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "core", "--nodes", "500", "--rounds", "1", "--calls", "3", "--output", "json"])

    rows = json.loads(capsys.readouterr().out)

    assert [row["name"] for row in rows] == NAMES
    assert all(set(row) == {"name", "nodes", "rounds", "p50_us", "p99_us"} for row in rows)
    assert all(0 < row["p50_us"] <= row["p99_us"] for row in rows)


def test_the_table_has_a_budget_and_a_verdict_in_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "core", "--nodes", "500", "--rounds", "1", "--calls", "2", "--only", "gang_fits"])

    told = capsys.readouterr().out

    assert "gang_fits" in told
    assert "500 µs" in told
    assert "within" in told or "over" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nonsense"], "no such measurement"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--nodes", "10"], "--nodes must be at least 500, not 10"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "core", *arguments]) == 2
    assert told in capsys.readouterr().err
