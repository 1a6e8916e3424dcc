"""``muster gangs``: the gangs of a cluster, as ``kubectl get`` would show them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from muster.cli.arguments import (
    Failure,
    SubParsers,
    Usage,
    add_cluster_options,
    add_command,
    add_namespace_option,
    add_output_option,
    cluster_access,
)
from muster.cli.output import as_json, as_list, as_yaml, table
from muster.kube.timestamps import human_duration

if TYPE_CHECKING:
    from muster.kube.client import Client

Gang = dict[str, Any]

_COLUMNS = ("APP", "QUEUE", "PHASE", "MIN", "RUNNING", "MAX", "WAIT", "REASON")
_WIDE = (*_COLUMNS, "NAME", "DRIVER", "MESSAGE")


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "gangs",
        _run,
        "List gangs, or show one: who runs, who waits, and for what.",
        "muster gangs -A",
        "muster gangs -n team-a -w",
        "muster gangs nightly-report -o yaml",
    )
    parser.add_argument("name", nargs="?", metavar="APP", help="application's name or id, or its driver pod's name")
    add_namespace_option(parser, all_namespaces=True)
    add_output_option(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="after the list, print every change")
    add_cluster_options(parser)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    if arguments.watch and arguments.output not in ("table", "wide"):
        raise Usage(f"--watch prints a table; it does not go with -o {arguments.output}")
    return asyncio.run(_show(arguments))


async def _show(arguments: argparse.Namespace) -> int:
    from muster.kube.client import Client

    access = cluster_access(arguments)
    namespace = "" if arguments.all_namespaces else arguments.namespace or access.namespace
    async with Client(access) as client:
        found = await list_gangs(client, namespace)
        if arguments.name:
            found = [gang for gang in found if is_called(gang, arguments.name)]
            if not found:
                where = f"in namespace {namespace}" if namespace else "in any namespace"
                raise Failure(f"no gang of {arguments.name} {where}; `muster gangs -A` lists them all")
        wide, everywhere = arguments.output == "wide", not namespace
        if arguments.output == "name":
            print("\n".join(f"gang.muster.dev/{gang['metadata']['name']}" for gang in found), end="\n" * bool(found))
        elif arguments.output in ("json", "yaml"):
            shown = found[0] if arguments.name and len(found) == 1 else as_list("Gang", "muster.dev/v1alpha1", found)
            print(as_json(shown) if arguments.output == "json" else as_yaml(shown))
        elif found:
            print(render(found, datetime.now(UTC), wide=wide, namespaces=everywhere))
        elif not arguments.watch:
            where = f" in namespace {namespace}" if namespace else ""
            print(f"No gangs found{where}.", file=sys.stderr)
        if arguments.watch:
            await _follow(client, namespace, arguments.name, {_identity(gang): gang for gang in found}, wide=wide)
    return 0


async def list_gangs(client: Client, namespace: str) -> list[Gang]:
    """Every gang of the namespace ("" for all of them), oldest first, as the API serves it."""
    from muster.kube.errors import ApiError
    from muster.kube.resources import GANGS

    try:
        found = await client.list(GANGS.decoding_to(dict), namespace)
    except ApiError as error:
        if error.not_found:
            raise Failure(
                f"the cluster at {client.access.server} does not know Gangs; `muster manifests | kubectl apply -f -` "
                f"installs Muster"
            ) from None
        raise
    return sorted(found, key=lambda gang: (_found(gang), gang["metadata"]["name"]))


def is_called(gang: Gang, name: str) -> bool:
    """Whether ``name`` means this gang: the application's id or name, or the driver pod's name."""
    spec = gang.get("spec", {})
    driver = (spec.get("driver") or {}).get("podName")
    return name in (gang["metadata"]["name"], spec.get("applicationName"), driver)


def render(gangs: Sequence[Gang], now: datetime, *, wide: bool = False, namespaces: bool = False) -> str:
    """A table with kubectl's spacing. WAIT: from the driver's discovery to its reservation, or to now."""
    header = _WIDE if wide else _COLUMNS
    rows = [_row(gang, now)[: len(header)] for gang in gangs]
    if not namespaces:
        return table(header, rows)
    places = [gang["metadata"].get("namespace", "") for gang in gangs]
    return table(("NAMESPACE", *header), [(place, *row) for place, row in zip(places, rows, strict=True)])


def _row(gang: Gang, now: datetime) -> tuple[str, ...]:
    spec, status = gang.get("spec", {}), gang.get("status", {})
    maximum = spec.get("maxExecutors")
    return (
        spec.get("applicationName") or gang["metadata"]["name"],
        spec.get("queue", ""),
        status.get("phase", "Pending"),
        str(spec.get("minExecutors", "")),
        str(status.get("running", 0)),
        "∞" if maximum is None else str(maximum),
        _wait(status, now),
        status.get("reason", ""),
        gang["metadata"]["name"],
        (spec.get("driver") or {}).get("podName", ""),
        status.get("message", ""),
    )


def _wait(status: dict[str, Any], now: datetime) -> str:
    found = status.get("found")
    if not found:
        return ""
    end = status.get("reservedAt") or status.get("ended")
    until = datetime.fromisoformat(end) if end else now
    return human_duration((until - datetime.fromisoformat(found)).total_seconds())


def _found(gang: Gang) -> str:
    return str(gang.get("status", {}).get("found") or gang["metadata"].get("creationTimestamp") or "")


def _identity(gang: Gang) -> str:
    return str(gang["metadata"].get("uid"))


async def _follow(client: Client, namespace: str, name: str | None, shown: dict[str, Gang], *, wide: bool) -> None:
    """Print a line for each change from now on, until interrupted, in columns as wide as anything shown before."""
    from muster.kube import list_watch as lw
    from muster.kube.resources import GANGS

    def sink(event: lw.WatchedEvent[Any]) -> None:
        if not isinstance(event, lw.Added | lw.Modified):
            return
        gang = msgspec.to_builtins(event.object)
        before = shown.get(_identity(gang))
        shown[_identity(gang)] = gang
        news = before is None or before["metadata"]["resourceVersion"] != gang["metadata"]["resourceVersion"]
        if news and (name is None or is_called(gang, name)):
            everything = [*shown.values(), gang]
            lines = render(everything, datetime.now(UTC), wide=wide, namespaces=not namespace)
            print(lines.rpartition("\n")[2], flush=True)

    import msgspec

    await lw.ListWatch(client, GANGS, namespace).run(sink)
