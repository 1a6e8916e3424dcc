"""``spark-scheduler`` and ``spark-scheduler-conversion-webhook``: the archived scheduler's command lines, for those who
replace its container images. Exit codes as ``muster``'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from muster.cli.main import one_line
from muster.cli.serve import run_conversion_webhook, run_extender

INSTALL = Path("var/conf/install.yml")
"""Where they read their configuration, below the working directory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``spark-scheduler``; returns the exit code."""
    description = "Muster in place of palantir/k8s-spark-scheduler: the extender of a kube-scheduler."
    return _main("spark-scheduler", description, "the extender", run_extender, arguments)


def conversion_webhook(arguments: Sequence[str] | None = None) -> int:
    """Run ``spark-scheduler-conversion-webhook``; returns the exit code."""
    description = "Muster in place of palantir/k8s-spark-scheduler: conversions of its custom resources."
    return _main("spark-scheduler-conversion-webhook", description, "the webhook", run_conversion_webhook, arguments)


def _main(
    program: str, description: str, what: str, run: Callable[[Path], int], arguments: Sequence[str] | None
) -> int:
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"spark-muster {version('spark-muster')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    server = commands.add_parser("server", help=f"run {what} as {INSTALL} says; ends on SIGTERM")
    server.add_argument("--config", metavar="FILE", type=Path, default=INSTALL, help=f"instead of {INSTALL}")
    parsed = parser.parse_args(arguments)
    try:
        return run(parsed.config)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print(f"{parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
