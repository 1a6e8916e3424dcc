"""``muster bench extender``: kube-scheduler's calls over HTTPS, with clusters of several sizes."""

from __future__ import annotations

import argparse

from muster.cli.arguments import SubParsers, add_command, add_output_option, count

NODES = (100, 1000, 5000)
CALLS = 100


def add_parser(suites: SubParsers) -> None:
    parser = add_command(
        suites,
        "extender",
        _run,
        "Measure the extender's answers to kube-scheduler over HTTPS: wall and CPU time per call.",
        "muster bench extender",
        "muster bench extender --nodes 5000 --calls 200 --output json",
    )
    add_output_option(parser, "table", "json")
    parser.add_argument(
        "--nodes", type=count, nargs="+", default=NODES, metavar="N", help="cluster sizes (100 1000 5000)"
    )
    parser.add_argument("--calls", type=count, default=CALLS, metavar="N", help="of each kind (%(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    """0 when everything measured is within its budget, else 1."""
    import asyncio

    import msgspec
    from rich.console import Console
    from rich.table import Table

    from muster.cli.bench.extender_measures import HTTP_BUDGET_MS, measure

    found = asyncio.run(measure(arguments.nodes, arguments.calls))
    if arguments.output == "json":
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        table = Table(title=f"Extender over HTTPS; budget of HTTP and JSON: {HTTP_BUDGET_MS} ms CPU")
        for heading in ("nodes", "call", "p50 ms", "p99 ms", "CPU ms", "budget", "HTTP", "in kB", "out kB"):
            table.add_column(heading, justify="left" if heading == "call" else "right", no_wrap=heading == "call")
        for each in found:
            budget = "" if each.budget_ms is None else f"{each.budget_ms:g}"
            figures = (each.p50_ms, each.p99_ms, each.cpu_ms, budget, each.http_cpu_ms, each.request_kb, each.answer_kb)
            table.add_row(f"{each.nodes:,}", each.kind, *map(str, figures), style="" if each.within_budget else "red")
        Console().print(table)
    return 0 if all(each.within_budget for each in found) else 1
