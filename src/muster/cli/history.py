"""``muster history``: finished applications, one with its timeline, or what queues and users cost and waste."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muster.cli.arguments import (
    Failure,
    SubParsers,
    Usage,
    add_cluster_options,
    add_command,
    add_namespace_option,
    add_output_option,
    cluster_access,
    count,
)
from muster.cli.output import as_json, as_yaml, table
from muster.cli.read_api import DEFAULT_SERVER, read
from muster.kube.timestamps import format_time, human_duration

Application = Mapping[str, Any]
"""As the read API gives it."""

_SORTS = ("ended", "created", "wait", "run", "cost", "waste", "executors", "name")
_BY = ("queue", "user", "namespace", "pool")
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNITS = (86_400, 3600, 60, 1)
_GIB = 2**30
_HOUR = 3600
_NOTHING = ""


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "history",
        _run,
        "List finished applications, show one with its timeline, or sum up what they cost and wasted.",
        "muster history -A --since 24h --sort waste",
        "muster history -n team-a nightly-report",
        "muster history -A --summary queue --since 7d",
    )
    parser.add_argument("application", nargs="?", metavar="APP", help="application's name or id: its last run")
    add_namespace_option(parser, all_namespaces=True)
    chosen = parser.add_argument_group("which applications")
    chosen.add_argument("--queue", metavar="NAME", help="only of this queue")
    chosen.add_argument("--user", metavar="NAME", help="only of this user")
    chosen.add_argument("--name", metavar="GLOB", help="only those whose name matches, e.g. 'etl-*'")
    chosen.add_argument("--since", metavar="SPAN", type=span, help="ended no longer ago, e.g. 90m, 24h, 7d")
    chosen.add_argument("--limit", metavar="N", type=count, default=50, help="rows at most (default: %(default)s)")
    chosen.add_argument("--sort", choices=_SORTS, default="ended", help="newest or most first (default: %(default)s)")
    parser.add_argument("--summary", choices=_BY, help="sums instead of single applications")
    add_output_option(parser, "table", "wide", "json", "yaml")
    parser.add_argument(
        "--server",
        metavar="URL",
        default=DEFAULT_SERVER,
        help="management port of the replica that leads (default: %(default)s)",
    )
    add_cluster_options(parser)


def span(text: str) -> int:
    """Seconds from ``7d``, ``1d12h``, ``90m``, for argparse."""
    match = _SPAN.fullmatch(text)
    if match is None or not text:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time; expected for example 90m, 24h or 7d")
    return sum(int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS, strict=True))


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import time

    if arguments.application and arguments.summary:
        raise Usage("--summary sums over many applications; it does not go with APP")
    now = time.time()
    namespace = "" if arguments.all_namespaces else arguments.namespace or cluster_access(arguments).namespace
    answer = asyncio.run(read(arguments.server, "/history", parameters(arguments, namespace, now)))
    if not answer["records"]:
        print("This replica does not lead now: the last minute or two may be missing.", file=sys.stderr)
    items = answer["items"]
    if arguments.application and not items:
        where = f"in namespace {namespace}" if namespace else "in any namespace"
        raise Failure(f"no finished application {arguments.application} {where}; `muster gangs` lists the others")
    if arguments.output in ("json", "yaml"):
        print(as_json(items) if arguments.output == "json" else as_yaml(items))
    elif not items:
        print(f"No finished applications found{f' in namespace {namespace}' if namespace else ''}.", file=sys.stderr)
    elif arguments.application:
        print("\n".join(in_words(items[0])))
    elif arguments.summary:
        print(summary_table(items, arguments.summary))
    else:
        print(applications_table(items, now, wide=arguments.output == "wide", namespaces=not namespace))
    return 0


def parameters(arguments: argparse.Namespace, namespace: str, now: float) -> dict[str, str]:
    """The query string."""
    given = {
        "namespace": namespace,
        "queue": arguments.queue,
        "user": arguments.user,
        "name": arguments.name,
        "application": arguments.application,
        "since": None if arguments.since is None else f"{now - arguments.since:.3f}",
        "summary": arguments.summary,
        "sort": arguments.sort,
        "limit": str(1 if arguments.application else arguments.limit),
    }
    return {name: value for name, value in given.items() if value}


def applications_table(items: Sequence[Application], now: float, *, wide: bool, namespaces: bool) -> str:
    """WASTE: share of the core-hours that was reserved but unbound, or bound but idle."""
    columns: list[tuple[str, Callable[[Application], str]]] = [
        ("NAME", lambda one: str(one["name"])),
        ("OUTCOME", lambda one: str(one["outcome"])),
        ("QUEUE", lambda one: str(one["queue"])),
        ("WAIT", lambda one: human_duration(one["waitSeconds"])),
        ("RUN", lambda one: _NOTHING if one["runSeconds"] is None else human_duration(one["runSeconds"])),
        ("EXECUTORS", lambda one: str(one["executors"])),
        ("CORE-H", lambda one: _hours(one["use"]["coreSeconds"])),
        ("WASTE", lambda one: _share(_wasted(one["use"]), one["use"]["coreSeconds"])),
        ("ENDED", lambda one: human_duration(now - one["ended"]) + " ago"),
    ]
    if namespaces:
        columns.insert(0, ("NAMESPACE", lambda one: str(one["namespace"])))
    if wide:
        columns += [
            ("ID", lambda one: str(one["applicationId"])),
            ("USER", lambda one: str(one["user"])),
            ("POOL", lambda one: str(one["pool"])),
            ("MIN", lambda one: str(one["minimum"])),
            ("MAX", lambda one: "∞" if one["maximum"] is None else str(one["maximum"])),
            ("GIB-H", lambda one: _gib_hours(one["use"]["memoryByteSeconds"])),
            ("CROSS-ZONE", lambda one: _share(one["use"]["crossZonePairSeconds"], one["use"]["pairSeconds"])),
            ("LOST-CORE-H", lambda one: _hours(one["use"]["lostCoreSeconds"])),
            (
                "ESTIMATE",
                lambda one: _NOTHING if not one["estimatedSeconds"] else human_duration(one["estimatedSeconds"]),
            ),
        ]
    return table([name for name, _ in columns], ([show(one) for _, show in columns] for one in items))


def summary_table(items: Sequence[Mapping[str, Any]], by: str) -> str:
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        (by.upper(), lambda one: str(one["key"]) or "<none>"),
        ("APPS", lambda one: str(one["applications"])),
        ("FAILED", lambda one: str(one["failed"])),
        ("MEAN-WAIT", lambda one: human_duration(one["waitSeconds"] / max(1, one["applications"]))),
        ("CORE-H", lambda one: _hours(one["coreSeconds"])),
        ("GIB-H", lambda one: _gib_hours(one["memoryByteSeconds"])),
        ("UNBOUND", lambda one: _share(one["unboundCoreSeconds"], one["coreSeconds"])),
        ("IDLE", lambda one: _share(one["idleCoreSeconds"], one["coreSeconds"])),
        ("CROSS-ZONE", lambda one: _share(one["crossZonePairSeconds"], one["pairSeconds"])),
        ("LOST-CORE-H", lambda one: _hours(one["lostCoreSeconds"])),
        ("ESTIMATES-KEPT", lambda one: _share(one["estimateKept"], one["estimated"])),
    ]
    if by == "pool":
        columns += [
            ("STRANDED-CPU", lambda one: _percent(one["strandedCpu"])),
            ("STRANDED-MEMORY", lambda one: _percent(one["strandedMemory"])),
        ]
    return table([name for name, _ in columns], ([show(one) for _, show in columns] for one in items))


def in_words(one: Application) -> list[str]:
    """One application, and what happened to it."""
    use = one["use"]
    ran = "it never started" if one["runSeconds"] is None else f"ran {human_duration(one['runSeconds'])}"
    maximum = "no maximum" if one["maximum"] is None else f"maximum {one['maximum']}"
    lines = [
        f"{one['name']}: {one['outcome']}, waited {human_duration(one['waitSeconds'])}, {ran}",
        f"  {one['applicationId']} in namespace {one['namespace']}, queue {one['queue']}"
        + (f", user {one['user']}" if one["user"] else "")
        + (f", node pool {one['pool']}" if one["pool"] else ""),
        f"  {one['executors']} executor(s) at most (minimum {one['minimum']}, {maximum}), each {_size(one['executor'])}"
        + (f"; driver {_size(one['driver'])}" if one["driver"] else "; driver outside the cluster"),
        f"  held {_hours(use['coreSeconds'])} core-hours, {_gib_hours(use['memoryByteSeconds'])} GiB-hours: "
        f"{_share(use['unboundCoreSeconds'], use['coreSeconds']) or '0 %'} reserved but unbound, "
        f"{_share(use['idleCoreSeconds'], use['coreSeconds']) or '0 %'} bound but idle",
    ]
    if use["crossZonePairSeconds"]:
        share = _share(use["crossZonePairSeconds"], use["pairSeconds"])
        lines.append(f"  {share} of its pairs of pods were in different zones, {one['crossZonePairs']} at most")
    if use["lostCoreSeconds"]:
        lines.append(f"  {_hours(use['lostCoreSeconds'])} core-hours were lost with evicted pods")
    lines += _estimate(one)
    if one["observedSince"] is not None:
        lines.append(f"  seen from {format_time(one['observedSince'])} on: another replica led before")
    entries = one.get("timeline", ())
    if entries:
        rows = [
            (
                format_time(entry["at"]),
                "+" + human_duration(entry["at"] - one["created"]),
                entry["what"],
                entry["cause"],
            )
            for entry in entries
        ]
        lines += ["", *table(("TIME", "AFTER", "WHAT", "CAUSE"), rows).splitlines()]
    return lines


def _estimate(one: Application) -> list[str]:
    expected, ran = one["estimatedSeconds"], one["runSeconds"]
    if expected is None or not ran:
        return []
    off = f"{abs(ran - expected) / ran:.0%}".replace("%", " %")
    kept = f"kept, {off} too long" if ran <= expected else f"not kept, {off} too short"
    return [f"  expected to run {human_duration(expected)}: {kept}"]


def _wasted(use: Mapping[str, float]) -> float:
    return use["unboundCoreSeconds"] + use["idleCoreSeconds"]


def _size(requests: Mapping[str, int]) -> str:
    return f"{requests['cpu'] / 1000:g} core(s), {requests['memory'] / _GIB:.1f} GiB"


def _hours(core_seconds: float) -> str:
    return _number(core_seconds / _HOUR)


def _gib_hours(byte_seconds: float) -> str:
    return _number(byte_seconds / _GIB / _HOUR)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.3f}" if value else "0"


def _share(part: float, whole: float) -> str:
    return _percent(part / whole) if whole else _NOTHING


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{100 * share:.1f} %"
