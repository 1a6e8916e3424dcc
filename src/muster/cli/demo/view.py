"""The demo on a terminal: nodes as a heat map, the queue and why it waits, gangs filling up. Pure rendering."""

from __future__ import annotations

from collections import Counter

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from muster.cli.demo.measure import Measurement, Outcome, Progress

_GIB = 2**30
_SHADES = (
    (0.001, "·", "bright_black"),
    (0.34, "░", "green"),
    (0.67, "▒", "green"),
    (0.9, "▓", "yellow"),
    (1.0001, "█", "red"),
)
_ROWS = 8


class Picture(msgspec.Struct, frozen=True):
    """One moment of the demo, besides the measurements."""

    at: float
    """On the onlooker's clock."""
    elapsed: float
    zones: dict[str, str]
    """Node → zone."""
    writes_per_pod: float
    headline: str
    """What is going on, e.g. the state of real Spark."""


def draw(measured: Measurement, picture: Picture) -> RenderableType:
    lower = Table.grid(expand=True, padding=(0, 1))
    lower.add_column(ratio=1)
    lower.add_column(ratio=1)
    lower.add_row(_waiting(measured, picture.at), _running(measured))
    return Group(_nodes(measured, picture.zones), lower, _footer(measured, picture))


def line(measured: Measurement, picture: Picture) -> str:
    """The same in one line, where there is no terminal."""
    outcomes = Counter(_state(one) for one in measured.applications.values())
    cores = _share(measured, "cpu")
    first = first_in_line(measured)
    return (
        f"{picture.elapsed:5.1f} s  {outcomes['waiting']} waiting, {outcomes['running']} running, "
        f"{outcomes['ended']} ended; cores {cores:.0%}; {measured.pods_seen} pods" + (f"; {first}" if first else "")
    )


def first_in_line(measured: Measurement) -> str:
    """The gang that has waited longest and can say why, with its reason; "" when none waits."""
    first = next((one for one in waiting(measured) if one.message), None)
    return f"first waits: {first.expected.name}: {first.message}" if first else ""


def waiting(measured: Measurement) -> list[Progress]:
    """Submitted, driver not bound yet, first submitted first."""
    held = [
        one
        for one in measured.applications.values()
        if one.submitted is not None and one.driver_bound is None and one.outcome is Outcome.WAITING
    ]
    return sorted(held, key=lambda one: one.submitted or 0)


def shade(fraction: float) -> tuple[str, str]:
    """Character and colour of a node whose fuller resource is used by ``fraction``; over 1 stands out."""
    for limit, character, colour in _SHADES:
        if fraction < limit:
            return character, colour
    return "!", "bold white on red"


def _nodes(measured: Measurement, zones: dict[str, str]) -> Panel:
    lines = []
    for zone in sorted(set(zones.values())):
        text = Text(f"{zone or 'no zone':>12} ")
        for node in sorted(name for name, its in zones.items() if its == zone and name in measured.allocatable):
            text.append(*shade(_fullness(measured, node)))
        lines.append(text)
    cores, memory = _share(measured, "cpu"), _share(measured, "memory")
    total = sum(amounts.get("cpu", 0) for amounts in measured.allocatable.values()) // 1000
    gib = sum(amounts.get("memory", 0) for amounts in measured.allocatable.values()) // _GIB
    title = f"{len(measured.allocatable)} nodes · cores {cores:.0%} of {total:,} · memory {memory:.0%} of {gib:,} GiB"
    return Panel(Group(*lines), title=title, title_align="left", border_style="blue")


def _waiting(measured: Measurement, at: float) -> Panel:
    queue = waiting(measured)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, ratio=1)
    table.add_column(justify="right", width=5)
    table.add_column(justify="right", width=6)
    table.add_column(no_wrap=True, width=len("WaitingForCapacity"))
    for one in queue[:_ROWS]:
        table.add_row(
            one.expected.name,
            f"1+{one.expected.minimum}",
            f"{at - (one.submitted or at):.1f} s",
            Text(one.reason, style="yellow", overflow="ellipsis"),
        )
    _fill(table, _ROWS - min(_ROWS, len(queue)))
    return Panel(table, title=f"queue: {len(queue)} gangs wait", title_align="left", border_style="yellow")


def _running(measured: Measurement) -> Panel:
    gangs = [one for one in measured.applications.values() if one.outcome is Outcome.RUNNING]
    gangs.sort(key=lambda one: (not one.expected.real, -(one.driver_bound or 0)))
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, ratio=2)
    table.add_column(ratio=1)
    table.add_column(justify="right", width=9)
    for one in gangs[:_ROWS]:
        name = Text(one.expected.name, style="bold cyan" if one.expected.real else "")
        table.add_row(name, bar(one.running, one.expected.minimum), f"{one.running} of {one.expected.minimum}")
    _fill(table, _ROWS - min(_ROWS, len(gangs)))
    return Panel(table, title=f"gangs: {len(gangs)} running", title_align="left", border_style="green")


def bar(running: int, minimum: int, width: int = 12) -> Text:
    """Executors against the minimum; what is above it is marked."""
    filled = width if not minimum else min(width, running * width // minimum)
    text = Text("━" * filled, style="green")
    text.append("━" * (width - filled), style="bright_black")
    if running > minimum:
        text.append("+", style="bold green")
    return text


def _footer(measured: Measurement, picture: Picture) -> Text:
    ended = sum(one.ended is not None for one in measured.applications.values())
    bad = len(measured.partial) + len(measured.overcommitted)
    text = Text(
        f" {picture.elapsed:5.1f} s · {ended} of {len(measured.applications)} applications ended · "
        f"{measured.pods_seen} pods · {picture.writes_per_pod:.2f} API writes per pod · "
    )
    text.append(
        f"{len(measured.partial)} partial gangs · {len(measured.overcommitted)} overcommitted nodes",
        style="bold red" if bad else "green",
    )
    text.append(f"\n {first_in_line(measured)}", style="yellow")
    text.append(f"\n {picture.headline}", style="cyan")
    return text


def _fill(table: Table, rows: int) -> None:
    """Panels of a constant height do not flicker."""
    for _ in range(rows):
        table.add_row("")


def _state(one: Progress) -> str:
    if one.ended is not None or one.outcome is Outcome.TOO_LARGE:
        return "ended"
    if one.driver_bound is not None:
        return "running"
    return "waiting" if one.submitted is not None else "to come"


def _fullness(measured: Measurement, node: str) -> float:
    used, allocatable = measured.used.get(node, Counter()), measured.allocatable[node]
    return max(used[name] / allocatable[name] for name in ("cpu", "memory") if allocatable.get(name))


def _share(measured: Measurement, resource: str) -> float:
    total = sum(amounts.get(resource, 0) for amounts in measured.allocatable.values())
    return sum(measured.used[node][resource] for node in measured.allocatable) / total if total else 0.0
