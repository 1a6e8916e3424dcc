"""What the demo says at its end: a table and one sentence for people, or one JSON object."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from muster.cli.demo.measure import Measurement, Outcome, Progress

LONG_WAIT_S = 3.0
"""Longer than a burst of submissions takes to be worked off: who waits longer waits for room."""


class ApplicationReport(msgspec.Struct, frozen=True):
    name: str
    real: bool
    """Run by the real Apache Spark."""
    min: int
    submit_to_driver_s: float | None
    """Seconds from submission until the driver was bound to a node; ``None`` when it never was."""
    submit_to_minimum_s: float | None
    outcome: str


class Report(msgspec.Struct, frozen=True):
    applications: tuple[ApplicationReport, ...]
    pods: int
    partial_gangs: int
    overcommitted_nodes: int
    writes_per_pod: float
    """Pod creates, bindings and patches, and custom resource writes, divided by pods created."""
    seconds: float


def build_report(measured: Measurement, writes: int, pods: int, seconds: float) -> Report:
    """``writes`` and ``pods`` as the API server counted them."""
    applications = sorted(
        measured.applications.values(), key=lambda one: (one.submitted is None, one.submitted or 0, one.expected.name)
    )
    return Report(
        applications=tuple(map(_application, applications)),
        pods=pods,
        partial_gangs=len(measured.partial),
        overcommitted_nodes=len(measured.overcommitted),
        writes_per_pod=round(writes / pods, 3) if pods else 0.0,
        seconds=round(seconds, 1),
    )


def closing_table(report: Report) -> Table:
    table = Table(title="Applications, in order of submission", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("application", overflow="fold")
    table.add_column("spark")
    for column in ("min", "submit → driver", "submit → minimum"):
        table.add_column(column, justify="right")
    table.add_column("outcome")
    for one in report.applications:
        table.add_row(
            one.name,
            "real" if one.real else "virtual",
            str(one.min),
            _seconds(one.submit_to_driver_s),
            _seconds(one.submit_to_minimum_s),
            one.outcome,
            style="bold cyan" if one.real else None,
        )
    return table


def totals(report: Report) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row("partial gangs seen", str(report.partial_gangs))
    table.add_row("overcommitted nodes", str(report.overcommitted_nodes))
    table.add_row("API writes per pod", f"{report.writes_per_pod:.2f}")
    table.add_row("pods", str(report.pods))
    return table


def sentence(report: Report) -> str:
    """The whole run in one sentence."""
    done = sum(one.outcome == Outcome.SUCCEEDED for one in report.applications)
    real = [one for one in report.applications if one.real]
    gaps = sorted(_gaps(report.applications))
    whole = (
        f"every gang started whole (driver → minimum: median {statistics.median(gaps):.2f} s, longest {gaps[-1]:.1f} s)"
        if report.partial_gangs == 0 and gaps
        else f"{report.partial_gangs} gangs started in part"
    )
    waited = sum((one.submit_to_driver_s or 0) > LONG_WAIT_S for one in report.applications)
    spark = f", {sum(one.outcome == Outcome.SUCCEEDED for one in real)} of {len(real)} by real Spark," if real else ""
    return (
        f"{done} of {len(report.applications)} applications{spark} ran to their end in {report.seconds:.0f} s; "
        f"{waited} waited longer than {LONG_WAIT_S:.0f} s for room; {whole}; "
        f"{report.writes_per_pod:.2f} API writes per pod; {report.overcommitted_nodes} overcommitted nodes."
    )


def succeeded(report: Report) -> bool:
    """What the demo promises: all whole, nothing overcommitted, everything that fits the cluster ran to its end."""
    return (
        report.partial_gangs == 0
        and report.overcommitted_nodes == 0
        and all(one.outcome in (Outcome.SUCCEEDED, Outcome.TOO_LARGE) for one in report.applications)
    )


def _application(progress: Progress) -> ApplicationReport:
    return ApplicationReport(
        name=progress.expected.name,
        real=progress.expected.real,
        min=progress.expected.minimum,
        submit_to_driver_s=_since(progress.submitted, progress.driver_bound),
        submit_to_minimum_s=_since(progress.submitted, progress.minimum_reached),
        outcome=progress.outcome.value,
    )


def _since(begun: float | None, at: float | None) -> float | None:
    return None if begun is None or at is None else round(at - begun, 3)


def _gaps(applications: Sequence[ApplicationReport]) -> list[float]:
    """Seconds between driver and minimum of the virtual gangs: a real executor waits for its driver's JVM."""
    return [
        one.submit_to_minimum_s - one.submit_to_driver_s
        for one in applications
        if not one.real and one.min and one.submit_to_minimum_s is not None and one.submit_to_driver_s is not None
    ]


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
