"""``muster bench``: what Muster's answers cost, against the budgets of docs/architecture.md. One file per suite."""

from __future__ import annotations

from typing import cast

from muster.cli.arguments import Formatter, SubParsers, example
from muster.cli.bench import control, core, extender
from muster.cli.bench.kubernetes import command as kubernetes_suite

_SUITES = (core, control, extender, kubernetes_suite)


def add_parser(commands: SubParsers) -> None:
    summary = "Measure what Muster's answers cost, beside their budgets."
    parser = commands.add_parser(
        "bench",
        help="measure what Muster's answers cost, beside their budgets",
        description=summary,
        formatter_class=Formatter,
        epilog=example("muster bench core"),
    )
    suites = cast(SubParsers, parser.add_subparsers(title="suites", metavar="SUITE", required=True))
    for suite in _SUITES:
        suite.add_parser(suites)
