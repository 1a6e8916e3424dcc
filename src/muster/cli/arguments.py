"""What the commands share on the way in: kubectl's options, help with examples, errors for people."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from muster.kube.config import ClusterAccess

OUTPUTS = ("table", "wide", "json", "yaml", "name")


class Failure(Exception):
    """The command could not do what was asked; the message says what was wrong and what was expected."""


class Usage(Failure):
    """The arguments do not make sense together."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples; one column of options wide enough for kubectl's names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)
        self._action_max_length = 14  # argparse forgets that the names of commands are indented


class SubParsers(Protocol):
    """What a command needs of argparse to register itself."""

    def add_parser(self, name: str, **options: object) -> argparse.ArgumentParser: ...


def add_command(
    commands: SubParsers, name: str, run: Callable[[argparse.Namespace], int], summary: str, *examples: str
) -> argparse.ArgumentParser:
    """A command whose ``--help`` begins with ``summary`` and ends with ``examples``."""
    parser = commands.add_parser(
        name,
        help=_in_short(summary),
        description=summary,
        formatter_class=Formatter,
        epilog=example(*examples),
    )
    parser.set_defaults(run=run)
    return parser


def _in_short(summary: str) -> str:
    """The summary up to its first colon or full stop, for the list of commands."""
    short = re.split(r"[:.]", summary, maxsplit=1)[0]
    return short[0].lower() + short[1:]


def example(*lines: str) -> str:
    return "\n".join([f"{'examples' if len(lines) > 1 else 'example'}:", *(f"  {line}" for line in lines)])


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """``--kubeconfig`` and ``--context``."""
    options = parser.add_argument_group("cluster")
    options.add_argument("--kubeconfig", metavar="FILE", help="kubeconfig instead of $KUBECONFIG or ~/.kube/config")
    options.add_argument("--context", metavar="NAME", help="context of the kubeconfig instead of the current one")


def add_namespace_option(parser: argparse.ArgumentParser, *, all_namespaces: bool = False) -> None:
    parser.add_argument("-n", "--namespace", metavar="NAME", help="namespace instead of the context's")
    if all_namespaces:
        parser.add_argument("-A", "--all-namespaces", action="store_true", help="every namespace")


def add_output_option(parser: argparse.ArgumentParser, *choices: str) -> None:
    parser.add_argument(
        "-o", "--output", choices=choices or OUTPUTS, default=(choices or OUTPUTS)[0], help="(default: %(default)s)"
    )


def cluster_access(arguments: argparse.Namespace) -> ClusterAccess:
    """The cluster meant by ``--kubeconfig`` and ``--context``. Raises ``AccessError``."""
    from muster.kube.config import load_access

    return load_access(arguments.kubeconfig, arguments.context)


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    return _at_least(int(text), 1)


def factor(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _at_least(value: int, least: int) -> int:
    if value < least:
        raise argparse.ArgumentTypeError(f"expected at least {least}, got {value}")
    return value
