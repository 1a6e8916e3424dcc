"""``muster``, also as ``kubectl muster``: reads the arguments, runs one command, turns errors into one line.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from muster.cli import bench, devcluster, gangs, history, manifests, queues, serve, why, withdraw
from muster.cli.arguments import Failure, Formatter, Usage, example
from muster.cli.demo import command as demo

_DEBUG_HELP = "show the traceback of a failure"
_COMMANDS = (gangs, queues, why, history, serve, manifests, withdraw, devcluster, demo, bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser(_program())
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader (head, less) has seen enough; closing stdout again at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Usage as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if parsed.debug:
            raise
        print(f"{parser.prog}: error: {one_line(error)}", file=sys.stderr)
        return 1


def build_parser(program: str = "muster") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        formatter_class=Formatter,
        description="Starts Apache Spark applications on Kubernetes whole, and explains why the others wait.",
        epilog=example("muster demo", "muster gangs -A", "muster why -n team-a nightly-report"),
    )
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    told = commands.add_parser(
        "version", help="print the version", formatter_class=Formatter, epilog=example("muster version")
    )
    told.set_defaults(run=_version)
    _add_debug_option(parser)
    return parser


def _add_debug_option(parser: argparse.ArgumentParser) -> None:
    """On every command, those of a group included."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for command in (command for group in groups for command in group.choices.values()):
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=_DEBUG_HELP)
        _add_debug_option(command)


def _version(_arguments: argparse.Namespace) -> int:
    print(version("spark-muster"))
    return 0


def _program() -> str:
    return "kubectl muster" if Path(sys.argv[0]).name == "kubectl-muster" else "muster"


def one_line(error: Exception) -> str:
    """The message of an error made for people; of any other one also what it is, and how to see more."""
    message = " ".join(str(error).split())
    if isinstance(error, Failure | OSError) or type(error).__module__.startswith("muster."):
        return message
    return f"internal error: {type(error).__name__}: {message} (--debug shows where)"


if __name__ == "__main__":
    sys.exit(main())
