"""``muster serve``: the live service, in native mode or in place of the archived k8s-spark-scheduler."""

from __future__ import annotations

import argparse
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from muster.cli.arguments import SubParsers, add_command


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "serve",
        _run,
        "Run the service: admission webhook, scheduler and reconcilers. Ends on SIGTERM.",
        "muster serve --config muster.yaml",
        "muster serve --extender var/conf/install.yml",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--config", metavar="FILE", type=Path, help="muster.yaml; without it, every key's default")
    modes.add_argument(
        "--extender",
        metavar="FILE",
        type=Path,
        help="answer kube-scheduler in place of palantir/k8s-spark-scheduler, with its install.yml",
    )


def run_extender(path: Path) -> int:
    """Serve in place of the archived scheduler until SIGTERM."""
    from muster.control.extender.configuration import load
    from muster.control.extender.service import serve
    from muster.control.process import keep_large_blocks

    keep_large_blocks()
    return _until_stopped(serve(load(path)))


def run_conversion_webhook(path: Path) -> int:
    """Serve conversions of the archived scheduler's resources until SIGTERM."""
    from muster.control.extender.configuration import load
    from muster.control.extender.conversion_webhook import serve

    return _until_stopped(serve(load(path)))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.extender is not None:
        return run_extender(arguments.extender)
    from muster.control.config import load
    from muster.control.serve import serve

    return _until_stopped(serve(load(arguments.config)))


def _until_stopped(service: Coroutine[Any, Any, None]) -> int:
    import asyncio

    from muster.control.process import event_loop, keep_collections_short

    keep_collections_short()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(service)
    return 0
