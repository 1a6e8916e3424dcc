"""``muster bench extender`` on a small cluster: that it measures what it says, and judges it."""

from __future__ import annotations

import json

import msgspec
import pytest

from muster.cli.bench.extender_measures import EXTRA, FITS, INFEASIBLE, SLOT, Calls
from muster.cli.main import main


def test_every_kind_of_call_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "extender", "--nodes", "20", "--calls", "4", "--output", "json"])

    found = json.loads(capsys.readouterr().out)
    assert [(each["nodes"], each["kind"], each["count"]) for each in found] == [
        (20, kind, 4) for kind in (FITS, INFEASIBLE, SLOT, EXTRA)
    ]
    for each in found:
        assert 0 < each["http_cpu_ms"] <= each["cpu_ms"]
        assert each["p50_ms"] <= each["p99_ms"]
    sizes = {each["kind"]: each["answer_kb"] for each in found}
    assert sizes[INFEASIBLE] > sizes[FITS], "a refusal names every node"


def test_a_call_over_its_budget_is_one() -> None:
    calls = Calls(5000, INFEASIBLE, 1, 1, 1, cpu_ms=2.9, http_cpu_ms=1.5, request_kb=1, answer_kb=1)

    assert calls.within_budget
    assert not msgspec.structs.replace(calls, cpu_ms=3.1).within_budget
    assert not msgspec.structs.replace(calls, http_cpu_ms=1.6).within_budget
    assert msgspec.structs.replace(calls, kind=FITS, cpu_ms=3.1).within_budget
