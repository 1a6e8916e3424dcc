"""``muster bench core``: CPU time of the scheduler's answers on a large, busy cluster."""

from __future__ import annotations

import argparse

from muster.cli.arguments import SubParsers, Usage, add_command, add_output_option

NODES, ROUNDS, CALLS = 5000, 5, 200
LEAST_NODES = 500
"""Smaller clusters cannot be kept as full as they should be while applications come and go."""


def add_parser(suites: SubParsers) -> None:
    parser = add_command(
        suites,
        "core",
        _run,
        "Measure the scheduler: CPU time per answer on a large, busy cluster, beside its budget.",
        "muster bench core",
        "muster bench core --output json",
        "muster bench core --only gang_fits --nodes 15000",
    )
    add_output_option(parser, "table", "json")
    parser.add_argument("--nodes", type=int, default=NODES, metavar="N", help="size of the cluster (%(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="rounds (%(default)s)")
    parser.add_argument("--calls", type=int, default=CALLS, metavar="N", help="answers per round (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random cluster (%(default)s)")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure only this; may be repeated")


def _run(arguments: argparse.Namespace) -> int:
    """0 when everything measured is within its budget, else 1."""
    from muster.cli.bench.core_measures import SCENARIOS, as_json, as_table, measure

    for option, least in (("nodes", LEAST_NODES), ("rounds", 1), ("calls", 1)):
        if getattr(arguments, option) < least:
            raise Usage(f"--{option} must be at least {least}, not {getattr(arguments, option)}")
    names = arguments.only or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise Usage(f"--only {unknown[0]}: no such measurement; there are {', '.join(SCENARIOS)}")
    results = measure(names, arguments.nodes, arguments.rounds, arguments.calls, arguments.seed)
    if arguments.output == "json":
        print(as_json(results))
    else:
        as_table(results)
    return 0 if all(result.within_budget for result in results) else 1
