"""Rounds summed up: JSON, the table for the terminal, and the table of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from muster.cli.bench.kubernetes.audit import writes_that_count
from muster.cli.bench.kubernetes.plan import Mode
from muster.cli.bench.kubernetes.run import CREATOR_IN_FLIGHT, CREATOR_QPS, Measurement

if TYPE_CHECKING:
    from rich.table import Table

LEAST_SPEED_UP, MOST_CPU, MOST_WRITES = 3.0, 0.5, 1.5
"""What *bind* must reach: pods/s and CPU against kube-scheduler, API writes per pod at 1 + 10."""
WRITES_SHAPE = "1+10"
_BEGIN, _END = "<!-- kubernetes: begin -->", "<!-- kubernetes: end -->"


class Figures(msgspec.Struct, frozen=True):
    pods_per_s: float
    """Executors bound per second, from the first create to the last binding."""
    p50_s: float
    p99_s: float
    """From the driver's create to the binding of the application's last executor."""
    cpu_s_per_1000: float
    """CPU seconds of all processes but the creator per 1,000 pods, drivers included."""
    writes_per_pod: float


class Row(msgspec.Struct, frozen=True):
    """The medians of a mode's rounds on one cluster with one shape."""

    mode: Mode
    nodes: int
    pods: int
    executors: int
    shape: str
    pods_per_s: float
    p50_s: float
    p99_s: float
    cpu_s_per_1000: float
    writes_per_pod: float
    cpu_s_per_1000_by_process: dict[str, float]
    creator_cpu_s_per_1000: float
    creator_requests_per_s: float
    creator_qps: int
    creator_in_flight: int
    scheduler_qps: int
    writes_per_pod_by_call: dict[str, float]
    """Those that count."""
    events_per_pod: float
    born_bound: int
    """Executors that were bound when they came into being, of ``executors``."""
    driver_bound_p50_s: float
    refused_writes: dict[str, int]
    """Of all rounds."""
    rounds: list[Figures]


class NoMarkers(Exception):
    """The file does not say where the tables belong."""


class Verdict(msgspec.Struct, frozen=True):
    """One requirement on *bind*, and what was measured."""

    where: str
    text: str
    holds: bool


def figures(measured: Measurement) -> Figures:
    return Figures(
        pods_per_s=round(measured.pods_per_s, 1),
        p50_s=round(percentile(measured.minimum_bound, 50), 2),
        p99_s=round(percentile(measured.minimum_bound, 99), 2),
        cpu_s_per_1000=round(measured.cpu_s_per_1000, 2),
        writes_per_pod=round(measured.writes_per_pod, 3),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def rows(measurements: Sequence[Measurement]) -> list[Row]:
    """One for each mode, cluster and shape, in the order of their first rounds."""
    grouped: dict[tuple[int, int, Mode], list[Measurement]] = {}
    for measured in measurements:
        run = measured.run
        grouped.setdefault((run.nodes, run.shape.executors, run.mode), []).append(measured)
    return [_row(rounds) for rounds in grouped.values()]


def _row(rounds: Sequence[Measurement]) -> Row:
    run = rounds[0].run
    per_round = [figures(measured) for measured in rounds]

    def median(of: Callable[[Figures], float]) -> float:
        return round(statistics.median(of(each) for each in per_round), 3)

    def median_per_pod(of: Callable[[Measurement], Mapping[str, float]], scale: float = 1.0) -> dict[str, float]:
        names = sorted({name for measured in rounds for name in of(measured)})
        medians = {name: statistics.median(of(measured).get(name, 0) for measured in rounds) for name in names}
        return {name: round(value * scale / run.pods, 3) for name, value in medians.items()}

    refused: dict[str, int] = {}
    for measured in rounds:
        for call, count in measured.failures.items():
            refused[call] = refused.get(call, 0) + count
    return Row(
        mode=run.mode,
        nodes=run.nodes,
        pods=run.pods,
        executors=run.executors,
        shape=str(run.shape),
        pods_per_s=median(lambda each: each.pods_per_s),
        p50_s=median(lambda each: each.p50_s),
        p99_s=median(lambda each: each.p99_s),
        cpu_s_per_1000=median(lambda each: each.cpu_s_per_1000),
        writes_per_pod=median(lambda each: each.writes_per_pod),
        cpu_s_per_1000_by_process=median_per_pod(lambda measured: measured.cpu, 1000),
        creator_cpu_s_per_1000=median_per_pod(lambda measured: {"creator": measured.creator_cpu}, 1000)["creator"],
        creator_requests_per_s=round(statistics.median(each.requests / each.creating for each in rounds), 1),
        creator_qps=CREATOR_QPS,
        creator_in_flight=CREATOR_IN_FLIGHT,
        scheduler_qps=run.scheduler_qps,
        writes_per_pod_by_call=median_per_pod(lambda measured: _counted(measured.writes)),
        events_per_pod=median_per_pod(lambda measured: {"": _events(measured.writes)})[""],
        born_bound=int(statistics.median(each.born_bound for each in rounds)),
        driver_bound_p50_s=round(statistics.median(percentile(each.driver_bound, 50) for each in rounds), 2),
        refused_writes=refused,
        rounds=per_round,
    )


def _counted(writes: Mapping[str, int]) -> dict[str, int]:
    return {call: count for call, count in writes.items() if writes_that_count({call: count})}


def _events(writes: Mapping[str, int]) -> int:
    return sum(count for call, count in writes.items() if call.endswith(" events"))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Of every cluster and shape on which *bind* and kube-scheduler were measured."""
    by_place = {(row.nodes, row.shape, row.mode): row for row in rows}
    told = []
    for row in rows:
        stock = by_place.get((row.nodes, row.shape, Mode.KUBE_SCHEDULER))
        if row.mode is not Mode.BIND:
            continue
        where = f"{row.nodes:,} nodes, {row.shape}"
        if stock is not None:
            speed_up = row.pods_per_s / stock.pods_per_s
            cost = row.cpu_s_per_1000 / stock.cpu_s_per_1000
            told.append(
                Verdict(
                    where,
                    f"{speed_up:.1f} × kube-scheduler's pods/s (at least {LEAST_SPEED_UP:g})",
                    speed_up >= LEAST_SPEED_UP,
                )
            )
            told.append(
                Verdict(where, f"{cost:.2f} × kube-scheduler's CPU per pod (at most {MOST_CPU:g})", cost <= MOST_CPU)
            )
        if row.shape == WRITES_SHAPE:
            told.append(
                Verdict(
                    where,
                    f"{row.writes_per_pod:.2f} API writes per pod (at most {MOST_WRITES:g})",
                    row.writes_per_pod <= MOST_WRITES,
                )
            )
    return told


def as_json(rows: Sequence[Row]) -> str:
    return msgspec.json.format(msgspec.json.encode(rows)).decode()


def as_table(rows: Sequence[Row]) -> Table:
    from rich.table import Table

    table = Table(title="Spark's pods on a real API server (medians; smallest and largest round)", title_justify="left")
    for heading in ("nodes", "shape", "mode"):
        table.add_column(heading)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for (nodes, shape), group in groupby(rows, key=lambda row: (row.nodes, row.shape)):
        for number, row in enumerate(group):
            place = (f"{nodes:,}", shape) if number == 0 else ("", "")
            table.add_row(*place, row.mode.value, *_cells(row))
        table.add_section()
    return table


_HEADINGS = ("pods/s", "minimum bound p50", "p99", "CPU-s per 1,000 pods", "API writes per pod", "Events per pod")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.pods_per_s:.0f}{_spread(row, lambda each: each.pods_per_s, '.0f')}",
        f"{row.p50_s:.1f} s",
        f"{row.p99_s:.1f} s",
        f"{row.cpu_s_per_1000:.1f}{_spread(row, lambda each: each.cpu_s_per_1000, '.1f')}",
        f"{row.writes_per_pod:.2f}",
        f"{row.events_per_pod:.2f}",
    )


def _spread(row: Row, of: Callable[[Figures], float], style: str) -> str:
    values = [of(each) for each in row.rounds]
    return f" ({min(values):{style}}–{max(values):{style}})" if len(values) > 1 else ""


def as_markdown(rows: Sequence[Row], date: str) -> str:
    """The figures, the CPU time of each process, the writes by call, and the machine."""
    processes = sorted({name for row in rows for name in row.cpu_s_per_1000_by_process})
    calls = sorted({call for row in rows for call in row.writes_per_pod_by_call})
    parts = [
        f"Measured on {date}, {_machine()}; kube-scheduler's client limited to "
        f"{rows[0].scheduler_qps:,} requests a second, the creator to {rows[0].creator_qps:,}; rounds: "
        + ", ".join(f"{count} at {nodes:,} nodes" for nodes, count in _rounds(rows).items())
        + ". In brackets: smallest and largest round.",
        _grid([*_PLACE, "executors", *_HEADINGS], [[*_place(r), f"{r.executors:,}", *_cells(r)] for r in rows]),
        "CPU seconds per 1,000 pods, by process (the creator's come on top of the sum above), and how fast it created:",
        _grid(
            [*_PLACE, *processes, "creator", "requests/s"],
            [
                [
                    *_place(row),
                    *(_number(row.cpu_s_per_1000_by_process.get(name)) for name in processes),
                    _number(row.creator_cpu_s_per_1000),
                    f"{row.creator_requests_per_s:.0f}",
                ]
                for row in rows
            ],
        ),
        "API writes per pod, by call, and executors that were born bound:",
        _grid(
            [*_PLACE, *calls, "born bound"],
            [
                [
                    *_place(row),
                    *(_number(row.writes_per_pod_by_call.get(call)) for call in calls),
                    f"{row.born_bound:,} of {row.executors:,}",
                ]
                for row in rows
            ],
        ),
        "\n".join(
            f"- {v.where}: bind has {v.text}: {'holds' if v.holds else '**does not hold**'}" for v in verdicts(rows)
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_PLACE = ("nodes", "shape", "mode")


def _place(row: Row) -> tuple[str, str, str]:
    return f"{row.nodes:,}", row.shape, row.mode.value


def _rounds(rows: Sequence[Row]) -> dict[int, int]:
    return {row.nodes: len(row.rounds) for row in rows}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(_PLACE) + ["---:"] * (len(header) - len(_PLACE))
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, Python {platform.python_version()}"


def check_markers(path: Path) -> tuple[str, str]:
    """What stands before and after the markers. Raises ``NoMarkers``, and ``OSError`` when the file cannot be read."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise NoMarkers(f"{path} has no {_BEGIN} … {_END} to write between")
    return before, after


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the markers. Raises as ``check_markers``."""
    before, after = check_markers(path)
    path.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}", encoding="utf-8")
