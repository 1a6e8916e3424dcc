"""``muster why APP``: the answer of the replica that decides, in words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from muster.cli.arguments import (
    Failure,
    SubParsers,
    add_cluster_options,
    add_command,
    add_namespace_option,
    add_output_option,
    cluster_access,
)
from muster.cli.output import as_json, as_yaml

DEFAULT_SERVER = "http://127.0.0.1:8484"
_TIMEOUT_S = 5.0

Answer = Mapping[str, Any]
"""The JSON of an ``Explanation``."""


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "why",
        _run,
        "Say why an application waits, for what, who goes first, and which smallest change would start it now.",
        "muster why nightly-report",
        "muster why -n team-a spark-7d0b2f6c1a5e4b1f8c9d3e2a1b0c4d5e -o json",
        "muster why team-a/nightly-report --server http://127.0.0.1:18484",
    )
    parser.add_argument("application", metavar="APP", help="[NAMESPACE/] name, id, or driver pod's name")
    parser.add_argument(
        "--server",
        metavar="URL",
        default=DEFAULT_SERVER,
        help="management port of the replica that leads (default: %(default)s)",
    )
    add_namespace_option(parser)
    add_output_option(parser, "text", "wide", "json", "yaml")
    add_cluster_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    return asyncio.run(_explain(arguments))


async def _explain(arguments: argparse.Namespace) -> int:
    from muster.cli.gangs import is_called, list_gangs
    from muster.kube.client import Client

    access = cluster_access(arguments)
    given, _, name = arguments.application.rpartition("/")
    namespace = given or arguments.namespace or access.namespace
    async with Client(access) as client:
        everybody = await list_gangs(client, namespace)
    gangs = [gang for gang in everybody if is_called(gang, name)]
    identifier = gangs[-1]["metadata"]["name"] if gangs else name
    answer, trouble = await ask(arguments.server, f"{namespace}/{identifier}")
    if answer is None and not gangs:
        raise Failure(f"no application {name} in namespace {namespace}: it has no gang, and {trouble}")
    if answer is None:
        print(f"From the gang's status only, because {trouble}.", file=sys.stderr)
    if arguments.output in ("json", "yaml"):
        shown = gangs[-1] if answer is None else answer
        print(as_json(shown) if arguments.output == "json" else as_yaml(shown))
    elif answer is None:
        print("\n".join(from_status(gangs[-1])))
    else:
        print(with_names(answer_in_words(answer, name, wide=arguments.output == "wide"), everybody))
    return 0


async def ask(server: str, application: str) -> tuple[Answer | None, str]:
    """The explanation as the read API gives it; or ``None``, and why there is none."""
    from urllib.parse import quote

    import aiohttp

    url = f"{server.rstrip('/')}/applications/{quote(application)}/why"
    try:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            body = await answer.json()
            return (body, "") if answer.status == 200 else (None, f"{server} says: {body.get('error', answer.status)}")
    except aiohttp.InvalidURL:
        raise Failure(f"--server {server!r} is no URL; expected for example {DEFAULT_SERVER}") from None
    except TimeoutError:
        return None, f"{server} did not answer within {_TIMEOUT_S:.0f} s"
    except (aiohttp.ClientError, ValueError):
        return None, f"{server} cannot be reached (--server names another address)"


def answer_in_words(answer: Answer, name: str, *, wide: bool) -> str:
    """In the words of the read API. Raises ``Failure`` when another version wrote it."""
    import msgspec

    from muster.control.why_in_words import in_words
    from muster.scheduling.explaining import Explanation

    try:
        explanation = msgspec.convert(answer, Explanation)
    except msgspec.ValidationError as error:
        raise Failure(f"the answer is of another version of Muster ({error}); -o json shows it as it came") from None
    return "\n".join(in_words(explanation, name, wide=wide))


def with_names(text: str, gangs: Sequence[Mapping[str, Any]]) -> str:
    """``text`` with the names of applications in place of their ids."""
    for gang in gangs:
        name = gang.get("spec", {}).get("applicationName")
        if name:
            text = text.replace(gang["metadata"]["name"], name)
    return text


def from_status(gang: Mapping[str, Any]) -> list[str]:
    """What the Gang object itself tells."""
    spec, status = gang.get("spec", {}), gang.get("status", {})
    reason = f", {status['reason']}" if status.get("reason") else ""
    lines = [f"{spec.get('applicationName') or gang['metadata']['name']}: {status.get('phase', 'Pending')}{reason}"]
    if status.get("message"):
        lines.append(f"  {status['message']}")
    for condition in status.get("conditions", ()):
        text = f"  {condition['type']}={condition['status']}: {condition.get('message') or condition.get('reason', '')}"
        lines.append(text.rstrip(": "))
    return lines
