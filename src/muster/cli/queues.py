"""``muster queues``: the tree of queues, one queue, and a check of queues that are yet to be applied."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from muster.cli.arguments import Failure, SubParsers, Usage, add_command, add_output_option
from muster.cli.output import as_json, as_yaml, table
from muster.cli.read_api import DEFAULT_SERVER, read
from muster.kube.timestamps import human_duration

Queue = Mapping[str, Any]

_CHECK = "check"
_COLUMNS = ("NAME", "POLICY", "GUARANTEED", "USED", "MAX", "RUNNING", "WAITING", "SHARE")
_WIDE = (*_COLUMNS, "WEIGHT", "DRIVERS", "APPLICATIONS", "PREEMPTION", "POOLS")
_NONE = "-"


def add_parser(commands: SubParsers) -> None:
    parser = add_command(
        commands,
        "queues",
        _run,
        "Show the queues: the tree with what each holds, or one queue with its limits, its users and who waits in it. "
        "`check` says what is wrong with a queues.yaml or with Queue manifests, without a cluster.",
        "muster queues",
        "muster queues -o wide",
        "muster queues etl",
        "muster queues check queues.yaml",
        "kustomize build queues | muster queues check -",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="NAME | check FILE",
        help="a queue; or `check` and files that belong together (-: standard input). Nothing: the whole tree",
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        default=DEFAULT_SERVER,
        help="management port of the replica that leads (default: %(default)s)",
    )
    add_output_option(parser, "table", "wide", "json", "yaml")


def _run(arguments: argparse.Namespace) -> int:
    what = arguments.what
    if what[:1] == [_CHECK] and len(what) > 1:
        return _check(what[1:])
    if len(what) > 1:
        raise Usage(f"one queue at a time, not {' '.join(what)}; files are checked by `queues check FILE`")
    import asyncio

    path = f"/queues/{quote(what[0], safe='')}" if what else "/queues"
    answer = asyncio.run(read(arguments.server, path, {}))
    if arguments.output in ("json", "yaml"):
        print(as_json(answer) if arguments.output == "json" else as_yaml(answer))
    elif what:
        print("\n".join(details(answer, time.time(), wide=arguments.output == "wide")))
    else:
        print(tree(answer["queues"], wide=arguments.output == "wide"))
        for name, problem in sorted(answer["problems"].items()):
            print(f"queue {name} is not in force as it is written: {problem}", file=sys.stderr)
    return 0


def _check(files: Sequence[str]) -> int:
    """One line for each mistake; 0 when there is none."""
    from muster.control.queue_documents import QueueDocumentError
    from muster.control.queues import check_together

    texts = {name: _content(name) for name in files}
    try:
        count = check_together(texts)
    except QueueDocumentError as error:
        print("\n".join(error.problems))
        return 1
    print(f"{count} queues, no mistakes")
    return 0


def _content(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read: {error}") from None


def tree(queues: Sequence[Queue], *, wide: bool = False) -> str:
    """The queues as a table, whose names are drawn as a tree."""
    header = _WIDE if wide else _COLUMNS
    drawn = _drawn(queues)
    return table(header, [_row(queue, drawn[queue["name"]])[: len(header)] for queue in queues])


def details(answer: Mapping[str, Any], now: float, *, wide: bool = False) -> list[str]:
    """One queue in words: its limits, who holds what, who waits in which order and for what."""
    queue = answer["queue"]
    lines = [" / ".join(answer["path"]), ""]
    if answer.get("problem"):
        lines[1:1] = [f"  not in force as it is written: {answer['problem']}"]
    lines += [f"  {name:<12} {text}" for name, text in _facts(answer, queue)]
    lines += _section("Limits", ("USERS", "GROUPS", "MAX", "APPLICATIONS"), [_limit(one) for one in answer["limits"]])
    users = [
        (one["user"] or "(unknown)", str(one["running"]), str(one["waiting"]), _amounts(one["used"]))
        for one in answer["users"]
    ]
    lines += _section("Users", ("USER", "RUNNING", "WAITING", "USED"), users)
    columns = ("PLACE", "APPLICATION", "USER", "QUEUE", "PRIORITY", "WAITS", "REASON", *(("MESSAGE",) if wide else ()))
    waiting = [_waiting(one, now)[: len(columns)] for one in answer["waiting"]]
    return lines + _section("Waiting, in order", columns, waiting)


def _facts(answer: Mapping[str, Any], queue: Queue) -> Iterable[tuple[str, str]]:
    yield "policy", f"{queue['policy']}, weight {queue['weight']}"
    yield "used", f"{_amounts(queue['used'])} ({_share(queue)} of the cluster)"
    yield "guaranteed", _amounts(queue["guaranteed"])
    yield "max", _amounts(queue["max"])
    most = queue["maxApplications"]
    of = f" of {most}" if most is not None else ""
    yield "applications", f"{queue['running']}{of} running, {queue['waiting']} waiting"
    yield "drivers", f"{_amounts(queue['drivers'])}, at most {queue['driverShare']} % of max"
    yield "preemption", f"{queue['preemption']}, safe for {human_duration(answer['minRuntimeSeconds'])}"
    yield "node pools", _pools(queue["nodePools"])
    names = [f"{kind} {', '.join(who)}" for kind, who in answer["submitters"].items()]
    yield "submitters", "; ".join(names) or "everybody"
    if answer["children"]:
        yield "queues", ", ".join(answer["children"])


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return ["", title, *(f"  {line}" for line in table(header, rows).split("\n"))]


def _row(queue: Queue, drawn: str) -> tuple[str, ...]:
    most = queue["maxApplications"]
    return (
        drawn,
        queue["policy"],
        _amounts(queue["guaranteed"]),
        _amounts(queue["used"]),
        _amounts(queue["max"]),
        str(queue["running"]),
        str(queue["waiting"]),
        _share(queue),
        str(queue["weight"]),
        _amounts(queue["drivers"]),
        "∞" if most is None else str(most),
        queue["preemption"],
        _pools(queue["nodePools"]),
    )


def _drawn(queues: Sequence[Queue]) -> dict[str, str]:
    """Each name behind the lines that lead to it. Parents come before their children."""
    parents = {queue["name"]: queue["parent"] for queue in queues}
    last = {queue["parent"]: queue["name"] for queue in queues}
    drawn: dict[str, str] = {}
    for name, parent in parents.items():
        line = "" if not parent else ("└─ " if last[parent] == name else "├─ ")
        while parent and parents[parent]:
            line = ("   " if last[parents[parent]] == parent else "│  ") + line
            parent = parents[parent]
        drawn[name] = line + name
    return drawn


def _limit(limit: Mapping[str, Any]) -> tuple[str, ...]:
    most = limit["maxApplications"]
    return (
        ",".join(limit["users"]) or _NONE,
        ",".join(limit["groups"]) or _NONE,
        _amounts(limit["max"]),
        "∞" if most is None else str(most),
    )


def _waiting(one: Mapping[str, Any], now: float) -> tuple[str, ...]:
    place = f"{one['position']}" + (f" ({one['pool']})" if one["pool"] else "")
    return (
        place,
        f"{one['application'].partition('/')[0]}/{one['name'] or one['application'].partition('/')[2]}",
        one["user"] or _NONE,
        one["queue"],
        str(one["priority"]),
        human_duration(now - one["created"]),
        one["reason"],
        one["message"],
    )


def _amounts(quantities: Mapping[str, str]) -> str:
    return ",".join(f"{name}={amount}" for name, amount in quantities.items()) or _NONE


def _share(queue: Queue) -> str:
    return f"{queue['share'] * 100:.1f}%"


def _pools(pools: Sequence[str]) -> str:
    return ",".join(pool or "(none)" for pool in pools) or "all"
