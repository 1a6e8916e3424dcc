"""``muster demo``: its arguments, and what it prints at its end."""

from __future__ import annotations

import argparse

from muster.cli.arguments import SubParsers, add_command, add_output_option, count, factor

DEFAULT_NODES = 200
DEFAULT_SEED = 7
_WIDTH = 104
"""Columns of the closing table where no terminal says how many there are."""


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "demo",
        _run,
        "Show Muster at work: an embedded cluster, recorded workloads, two real Spark applications.",
        "muster demo",
        "muster demo --no-spark --speed 2",
        "muster demo --output json > demo.json",
    )
    parser.add_argument(
        "--nodes", type=count, default=DEFAULT_NODES, metavar="N", help="virtual nodes (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=DEFAULT_SEED,
        metavar="N",
        help="places what was recorded without a time (default: %(default)s)",
    )
    parser.add_argument("--speed", type=factor, default=1.0, metavar="X", help="play the virtual part X times faster")
    parser.add_argument("--applications", type=count, metavar="N", help="play the first N recorded applications only")
    parser.add_argument("--no-spark", action="store_true", help="leave out the two real Spark applications")
    add_output_option(parser, "table", "json")


def _run(arguments: argparse.Namespace) -> int:
    import msgspec
    from rich.console import Console

    from muster.cli.demo.report import closing_table, sentence, succeeded, totals
    from muster.cli.demo.run import Options, play
    from muster.cli.demo.screen import open_screen
    from muster.cli.embedded import interruptible, quieten_logs

    options = Options(
        nodes=arguments.nodes,
        seed=arguments.seed,
        speed=arguments.speed,
        applications=arguments.applications,
        spark=not arguments.no_spark,
    )
    quieten_logs()
    with open_screen() as screen:
        report = interruptible(play(options, screen))
    if arguments.output == "json":
        print(msgspec.json.encode(report).decode())
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDTH
        for part in (closing_table(report), totals(report), "", sentence(report)):
            console.print(part)
    return 0 if succeeded(report) else 1
