"""``muster bench kubernetes``: its arguments, and what it tells while it runs."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from muster.cli.arguments import Failure, SubParsers, add_command, add_output_option, count
from muster.cli.bench.kubernetes.plan import SCHEDULER_QPS, Mode, Plan, Run, Shape, parse_shape

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from muster.cli.bench.kubernetes.report import Row

REPORT = Path("build/bench/kubernetes.json")
NODES, SHAPES = (1000, 5000), (Shape(10), Shape(50))
EXECUTORS, ROUNDS, ROUNDS_LARGE = 4500, 3, 1
_WIDTH = 132
"""Columns of the table where no terminal says how many there are."""
QUICK_NODES, QUICK_EXECUTORS = (1000,), 1500


def add_parser(suites: SubParsers) -> None:
    parser = add_command(
        suites,
        "kubernetes",
        _run,
        "Measure Spark's pods on a real API server: create only, kube-scheduler alone, Muster's bind and pin modes.",
        "muster bench kubernetes --quick",
        "muster bench kubernetes --nodes 1000 --shape 1+10 --mode bind --mode kube-scheduler",
        "muster bench kubernetes --markdown docs/benchmarks.md",
    )
    add_output_option(parser, "table", "json")
    parser.add_argument(
        "--nodes", type=count, action="append", metavar="N", help="size of the cluster; may be repeated (1000, 5000)"
    )
    parser.add_argument(
        "--shape",
        type=_shape,
        action="append",
        metavar="1+N",
        help="executors of a driver; may be repeated (1+10, 1+50)",
    )
    parser.add_argument(
        "--mode",
        type=Mode,
        choices=tuple(Mode),
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(Mode)}; may be repeated (all)",
    )
    parser.add_argument(
        "--rounds", type=count, metavar="N", help=f"rounds ({ROUNDS}; above 1,000 nodes {ROUNDS_LARGE})"
    )
    parser.add_argument("--pods", type=count, metavar="N", help=f"executor pods of a run, at least ({EXECUTORS})")
    parser.add_argument(
        "--scheduler-qps",
        type=count,
        default=SCHEDULER_QPS,
        metavar="N",
        help="requests a second of kube-scheduler's client (%(default)s; its own default is 50)",
    )
    parser.add_argument("--quick", action="store_true", help="one round of fewer pods at 1,000 nodes: about 5 minutes")
    parser.add_argument(
        "--report", type=Path, default=REPORT, metavar="FILE", help="JSON, written after every run (%(default)s)"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables between the markers of this file"
    )


def plan_of(arguments: argparse.Namespace) -> Plan:
    quick = arguments.quick
    rounds = arguments.rounds or (1 if quick else None)
    return Plan(
        nodes=tuple(arguments.nodes or (QUICK_NODES if quick else NODES)),
        shapes=tuple(arguments.shape or SHAPES),
        modes=tuple(arguments.mode or Mode),
        executors=arguments.pods or (QUICK_EXECUTORS if quick else EXECUTORS),
        rounds=rounds or ROUNDS,
        rounds_large=rounds or ROUNDS_LARGE,
        scheduler_qps=arguments.scheduler_qps,
    )


def _run(arguments: argparse.Namespace) -> int:
    """0 when everything that *bind* must reach was reached, else 1."""
    from datetime import UTC, datetime

    from rich.console import Console

    from muster.cli.bench.kubernetes.report import (
        as_json,
        as_markdown,
        as_table,
        check_markers,
        verdicts,
        write_between_markers,
    )
    from muster.devcluster.control_plane import NotBuilt, binaries

    try:
        binaries()
    except NotBuilt as error:
        raise Failure(str(error)) from None
    if arguments.markdown is not None:
        check_markers(arguments.markdown)
    rows = _measure_all(plan_of(arguments), arguments.report, Console(stderr=True))
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    if arguments.output == "json":
        print(as_json(rows))
    else:
        console.print(as_table(rows))
        for verdict in verdicts(rows):
            colour, word = ("green", "holds") if verdict.holds else ("red", "does not hold")
            console.print(f"{verdict.where}: bind has {verdict.text}: [{colour}]{word}[/{colour}]", highlight=False)
    if arguments.markdown is not None:
        write_between_markers(arguments.markdown, as_markdown(rows, datetime.now(UTC).date().isoformat()))
    return 0 if all(verdict.holds for verdict in verdicts(rows)) else 1


def _measure_all(plan: Plan, report: Path, console: Console) -> list[Row]:
    """Run after run, each told in a line; the report holds what has been measured so far."""
    import asyncio

    from rich import progress as bars

    from muster.cli.bench.kubernetes.report import as_json, figures, rows
    from muster.cli.bench.kubernetes.run import measure

    runs = plan.runs()
    measurements = []
    report.parent.mkdir(parents=True, exist_ok=True)
    columns = (
        bars.BarColumn(20),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.description}"),
    )
    with bars.Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(runs))
        for run in runs:
            progress.update(task, description=str(run))
            measured = asyncio.run(measure(run, partial(_describe, progress, task, run)))
            measurements.append(measured)
            report.write_text(as_json(rows(measurements)) + "\n", encoding="utf-8")
            got = figures(measured)
            progress.advance(task)
            progress.console.print(
                f"{run}: {got.pods_per_s:.0f} pods/s, minimum bound p50 {got.p50_s:.1f} s, p99 {got.p99_s:.1f} s, "
                f"{got.cpu_s_per_1000:.1f} CPU-s per 1,000 pods, {got.writes_per_pod:.2f} API writes per pod",
                highlight=False,
                soft_wrap=True,
            )
    return rows(measurements)


def _describe(progress: Progress, task: TaskID, run: Run, what: str) -> None:
    progress.update(task, description=f"{run}: {what}")


def _shape(text: str) -> Shape:
    try:
        return parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
