"""``spark-scheduler``: the archived scheduler's command line, for those who replace its container image.

Exit codes as ``muster``'s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from muster.cli.main import one_line
from muster.cli.serve import run_extender

INSTALL = Path("var/conf/install.yml")
"""Where it read its configuration, below the working directory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="spark-scheduler",
        description="Muster in place of palantir/k8s-spark-scheduler: the extender of a kube-scheduler.",
    )
    parser.add_argument("--version", action="version", version=f"spark-muster {version('spark-muster')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    server = commands.add_parser("server", help=f"run the extender as {INSTALL} says; ends on SIGTERM")
    server.add_argument("--config", metavar="FILE", type=Path, default=INSTALL, help=f"instead of {INSTALL}")
    parsed = parser.parse_args(arguments)
    try:
        return run_extender(parsed.config)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print(f"{parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
