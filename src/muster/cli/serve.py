"""``muster serve``: the live service."""

from __future__ import annotations

import argparse
from pathlib import Path

from muster.cli.arguments import SubParsers, add_command


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "serve",
        _run,
        "Run the service: admission webhook, scheduler and reconcilers. Ends on SIGTERM.",
        "muster serve --config muster.yaml",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="muster.yaml; without it, every key's default")


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from muster.control.config import load
    from muster.control.process import event_loop, keep_collections_short
    from muster.control.serve import serve

    keep_collections_short()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(serve(load(arguments.config)))
    return 0
