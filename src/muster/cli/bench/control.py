"""``muster bench control``: restart and admission of the real service on a large cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from muster.cli.arguments import SubParsers, Usage, add_command, add_output_option, count, factor

NODES, PODS, APPLICATIONS, RATE, SECONDS, RELISTS = 5000, 100_000, 3000, 300.0, 20.0, 3


def add_parser(suites: SubParsers) -> None:
    parser = add_command(
        suites,
        "control",
        _run,
        "Measure the service: restart, and admission reviews under load, on a large cluster's stand-in.",
        "muster bench control",
        "muster bench control --output json",
        "muster bench control --nodes 500 --pods 10000 --applications 300",
    )
    add_output_option(parser, "table", "json")
    parser.add_argument("--nodes", type=count, default=NODES, metavar="N", help="of the cluster (%(default)s)")
    parser.add_argument("--pods", type=count, default=PODS, metavar="N", help="of the cluster (%(default)s)")
    parser.add_argument("--applications", type=count, default=APPLICATIONS, metavar="N", help="(%(default)s)")
    parser.add_argument("--rate", type=factor, default=RATE, metavar="N", help="reviews a second (%(default)g)")
    parser.add_argument("--seconds", type=factor, default=SECONDS, metavar="N", help="in peace (%(default)g)")
    parser.add_argument("--relists", type=count, default=RELISTS, metavar="N", help="under load (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random cluster (%(default)s)")
    parser.add_argument("--realtime", action="store_true", help="at real-time priority, on a machine with neighbours")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep what the service logs")


def _run(arguments: argparse.Namespace) -> int:
    """0 when everything measured is within its budget, else 1."""
    import asyncio

    from muster.cli.bench.control_measures import Plan, Sizes, as_json, as_table, figures, measure
    from muster.cli.bench.large_cluster import least_pods

    least = least_pods(arguments.nodes, arguments.applications)
    if arguments.pods < least:
        raise Usage(f"--pods must be at least {least} for these nodes and applications, not {arguments.pods}")
    sizes = Sizes(arguments.nodes, arguments.pods, arguments.applications, arguments.seed)
    plan = Plan(arguments.rate, arguments.seconds, arguments.relists, arguments.realtime)
    report = asyncio.run(measure(sizes, plan, arguments.log))
    if arguments.output == "json":
        print(as_json(report))
    else:
        as_table(report)
    return 0 if all(figure.within_budget for figure in figures(report)) else 1
