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
from muster.kube.timestamps import human_duration

DEFAULT_SERVER = "http://127.0.0.1:8484"
_TIMEOUT_S = 5.0
_MOST_AHEAD = 5

Explanation = Mapping[str, Any]

_GROUPS = (
    ("not_ready", "not ready", ""),
    ("cordoned", "cordoned", ""),
    ("selector", "do not match its node selector", "selector_labels"),
    ("affinity", "do not match its node affinity", "affinity_requirements"),
    ("taint", "have a taint that it does not tolerate", "taints"),
    ("too_small", "are too small, even when empty", "too_small_in"),
    ("too_full", "are too full now", "too_full_in"),
    ("fit", "have room now", ""),
)


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "why",
        _run,
        "Say why an application waits: its place in the queue, who is ahead, and what keeps it off the nodes.",
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
    add_output_option(parser, "text", "json", "yaml")
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
    explanation, trouble = await ask(arguments.server, f"{namespace}/{identifier}")
    if explanation is None and not gangs:
        raise Failure(f"no application {name} in namespace {namespace}: it has no gang, and {trouble}")
    if explanation is None:
        print(f"From the gang's status only, because {trouble}.", file=sys.stderr)
    if arguments.output != "text":
        shown = gangs[-1] if explanation is None else explanation
        print(as_json(shown) if arguments.output == "json" else as_yaml(shown))
    elif explanation is None:
        print("\n".join(from_status(gangs[-1])))
    else:
        print(with_names("\n".join(in_words(explanation, name)), everybody))
    return 0


async def ask(server: str, application: str) -> tuple[Explanation | None, str]:
    """The explanation as the read API gives it; or ``None``, and why there is none."""
    import aiohttp

    url = server.rstrip("/") + "/why"
    try:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, params={"application": application}) as answer,
        ):
            body = await answer.json()
            return (body, "") if answer.status == 200 else (None, f"{server} says: {body.get('error', answer.status)}")
    except aiohttp.InvalidURL:
        raise Failure(f"--server {server!r} is no URL; expected for example {DEFAULT_SERVER}") from None
    except TimeoutError:
        return None, f"{server} did not answer within {_TIMEOUT_S:.0f} s"
    except (aiohttp.ClientError, ValueError):
        return None, f"{server} cannot be reached (--server names another address)"


def in_words(explanation: Explanation, name: str) -> list[str]:
    """The explanation as lines of text."""
    status = explanation["status"]
    lines = [f"{name}: {status['phase']}" + (f", {status['reason']}" if status.get("reason") else "")]
    lines += [f"  {explanation['sentence']}"]
    if explanation["position"] is not None:
        pool = f"node pool {explanation['pool']}" if explanation["pool"] else "all nodes"
        lines += ["", f"Place {explanation['position']} in the queue of {pool}." + _nobody_ahead(explanation)]
        lines += _ahead(explanation["ahead"])
        if explanation["minimum"]:
            lines += [
                "",
                f"Of its {explanation['minimum']} executors, {explanation['executors_fit_now']} would fit now.",
            ]
    for who, nodes in (("driver", explanation["driver_nodes"]), ("executor", explanation["executor_nodes"])):
        if nodes is not None and explanation["position"] is not None:
            lines += ["", f"Nodes for its {who}: {nodes['fit']} of {nodes['nodes']}", *_nodes(nodes)]
    return lines


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


def _nobody_ahead(explanation: Explanation) -> str:
    return "" if explanation["ahead"] else " Nobody is ahead."


def _ahead(ahead: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"  behind {one['key']}, {human_duration(one['age'])} old, "
        + ("which must start first" if one["blocks"] else "which may be passed")
        + (f" ({one['reason']})" if one["reason"] else "")
        for one in ahead[:_MOST_AHEAD]
    ]
    if len(ahead) > _MOST_AHEAD:
        lines.append(f"  and {len(ahead) - _MOST_AHEAD} more")
    return lines


def _nodes(nodes: Mapping[str, Any]) -> list[str]:
    """One line per group that has nodes, with what is most responsible."""
    lines = []
    for group, words, details in _GROUPS:
        count = nodes[group]
        if count:
            responsible = ", ".join(f"{name} on {number}" for name, number in nodes.get(details) or ())
            lines.append(f"  {count:>6} {words}" + (f": {responsible}" if responsible else ""))
    return lines
