"""Plan, arguments and report of ``muster bench kubernetes``; the runs themselves are in tests/kubernetes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from muster.cli.bench.kubernetes import cpu, report
from muster.cli.bench.kubernetes.command import plan_of
from muster.cli.bench.kubernetes.plan import Mode, Run, Shape, parse_shape
from muster.cli.bench.kubernetes.run import Measurement
from muster.cli.main import build_parser, main

RUN = Run(Mode.BIND, 1000, Shape(10), applications=3, round=1, rounds=1)


def measurement(mode: Mode = Mode.BIND, span: float = 1.0, cpu_seconds: float = 0.1, **changes: Any) -> Measurement:
    """Three applications of 1 + 10."""
    measured = Measurement(
        run=msgspec.structs.replace(RUN, mode=mode),
        span=span,
        minimum_bound=(0.5, 1.0, 0.7),
        driver_bound=(0.1, 0.2, 0.3),
        creating=0.5,
        born_bound=30,
        cpu={"kube-apiserver": cpu_seconds},
        creator_cpu=0.05,
        writes={"create pods": 33, "create pods/binding": 3, "patch pods": 3, "create events": 3},
        failures={},
        requests=36,
    )
    return msgspec.structs.replace(measured, **changes)


def plan(*arguments: str) -> Any:
    return plan_of(build_parser().parse_args(["bench", "kubernetes", *arguments]))


def test_the_modes_take_turns_within_a_round() -> None:
    runs = plan("--nodes", "1000", "--shape", "1+10", "--rounds", "2", "--mode", "bind", "--mode", "pin").runs()
    assert [(run.mode, run.round) for run in runs] == [
        (Mode.BIND, 1),
        (Mode.PIN, 1),
        (Mode.BIND, 2),
        (Mode.PIN, 2),
    ]


def test_by_default_all_modes_and_shapes_run_on_both_clusters_with_4500_executors() -> None:
    runs = plan().runs()
    assert {(run.nodes, str(run.shape), run.mode) for run in runs} == {
        (nodes, shape, mode) for nodes in (1000, 5000) for shape in ("1+10", "1+50") for mode in Mode
    }
    assert {(str(run.shape), run.executors, run.pods) for run in runs} == {("1+10", 4500, 4950), ("1+50", 4500, 4590)}


def test_as_many_whole_applications_run_as_the_pods_asked_for_need() -> None:
    [run] = plan("--quick", "--shape", "1+50", "--mode", "bind", "--pods", "101").runs()
    assert (run.applications, run.executors, run.pods) == (3, 150, 153)


@pytest.mark.parametrize("text", ["10", "2+10", "1+0", "1+x", "1+", "+10"])
def test_a_shape_is_one_driver_and_some_executors(text: str) -> None:
    with pytest.raises(ValueError, match="such as 1\\+10"):
        parse_shape(text)


def test_pods_per_second_count_executors_and_costs_count_drivers_too() -> None:
    [row] = report.rows([measurement(span=2.0, cpu_seconds=0.33)])
    assert row.pods_per_s == 15.0
    assert row.cpu_s_per_1000 == 10.0
    assert row.writes_per_pod == round(39 / 33, 3)
    assert (row.p50_s, row.p99_s) == (0.7, 1.0)
    assert row.events_per_pod == round(3 / 33, 3)
    assert row.creator_requests_per_s == 72.0


def test_rounds_are_summed_up_by_their_median() -> None:
    [row] = report.rows([measurement(span=span) for span in (1.0, 10.0, 3.0)])
    assert row.pods_per_s == 10.0
    assert [each.pods_per_s for each in row.rounds] == [30.0, 3.0, 10.0]


def test_the_json_is_a_list_with_the_figures_of_each_mode() -> None:
    [row] = json.loads(report.as_json(report.rows([measurement()])))
    promised = ("mode", "nodes", "pods", "shape", "pods_per_s", "p50_s", "p99_s", "cpu_s_per_1000", "writes_per_pod")
    assert [row[key] for key in promised] == ["bind", 1000, 33, "1+10", 30.0, 0.7, 1.0, 3.03, 1.182]


def test_bind_is_judged_against_kube_scheduler() -> None:
    stock = measurement(Mode.KUBE_SCHEDULER, span=3.0, cpu_seconds=0.2)
    good = report.verdicts(report.rows([measurement(), stock]))
    assert [verdict.holds for verdict in good] == [True, True, True]
    bad = report.verdicts(report.rows([measurement(span=1.1, cpu_seconds=0.11, writes={"create pods": 50}), stock]))
    assert [verdict.holds for verdict in bad] == [False, False, False]
    assert bad[0].text.startswith("2.7 × kube-scheduler's pods/s")


def test_without_kube_scheduler_only_the_writes_are_judged() -> None:
    assert [verdict.text for verdict in report.verdicts(report.rows([measurement()]))] == [
        "1.18 API writes per pod (at most 1.5)"
    ]


def test_the_tables_go_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- kubernetes: begin -->\noutdated\n<!-- kubernetes: end -->\nafter\n")
    report.write_between_markers(page, report.as_markdown(report.rows([measurement()]), "2026-01-31"))
    text = page.read_text()
    assert text.startswith("before\n<!-- kubernetes: begin -->\n\nMeasured on 2026-01-31, ")
    assert text.endswith("<!-- kubernetes: end -->\nafter\n")
    assert "| 1,000 | 1+10 | bind | 30 | 30 | 0.7 s | 1.0 s | 3.0 | 1.18 | 0.09 |" in text
    assert "outdated" not in text


def test_a_file_without_markers_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    assert main(["bench", "kubernetes", "--markdown", str(page)]) == 1
    assert "has no <!-- kubernetes: begin -->" in capsys.readouterr().err


def test_without_the_binaries_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert main(["bench", "kubernetes"]) == 1
    assert "run `make kubernetes`" in capsys.readouterr().err


def test_the_cpu_time_of_a_process_is_what_the_kernel_tells_itself() -> None:
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    before = time.process_time()
    told = cpu.cpu_seconds(os.getpid())
    # clock ticks are a hundredth of a second
    assert before - 0.05 <= told <= time.process_time() + 0.05


def test_report_and_page_are_written_and_the_exit_code_says_whether_bind_reached_its_aims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spans = {Mode.BIND: 1.0, Mode.KUBE_SCHEDULER: 2.0}

    async def measure(run: Run, tell: Any) -> Measurement:
        tell("measuring")
        return measurement(span=spans[run.mode], run=run)

    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setattr("muster.cli.bench.kubernetes.run.measure", measure)
    page, written = tmp_path / "page.md", tmp_path / "deep" / "kubernetes.json"
    page.write_text("<!-- kubernetes: begin -->\n<!-- kubernetes: end -->\n")
    options = ["--nodes", "20", "--shape", "1+10", "--pods", "30", "--rounds", "2", "-o", "json"]
    modes = ["--mode", "bind", "--mode", "kube-scheduler"]
    command = ["bench", "kubernetes", *options, *modes, "--report", str(written), "--markdown", str(page)]
    assert main(command) == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads(written.read_text())
    assert [(row["mode"], len(row["rounds"])) for row in json.loads(told.out)] == [("bind", 2), ("kube-scheduler", 2)]
    assert "20 nodes, 1+10, bind, round 2 of 2: 30 pods/s" in told.err
    assert "2.0 × kube-scheduler's pods/s (at least 3): **does not hold**" in page.read_text()
    spans[Mode.KUBE_SCHEDULER] = 3.0
    monkeypatch.setattr(report, "MOST_CPU", 1.0)
    assert main(command) == 0
