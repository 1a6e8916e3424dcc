"""``GET /history`` of the management port: finished applications, one with its timeline, or sums over them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import isfinite
from typing import Any, TypeVar

import msgspec

from muster.history.archive import Archive
from muster.history.queries import MOST_ROWS, By, Query, Sort
from muster.history.records import FinishedApplication

E = TypeVar("E", bound=StrEnum)

_TEXTS = ("namespace", "queue", "user", "name", "application")
PARAMETERS = (*_TEXTS, "since", "limit", "sort", "summary")


PAGE = 100
"""Applications on a page that another replica copies: few, since they are made while reviews wait."""


class BadQuery(ValueError):
    """A parameter that makes no sense; the message says what was expected."""


class Asked(msgspec.Struct, frozen=True):
    query: Query
    by: By | None
    """A summary, instead of single applications."""


def asked_from(parameters: Mapping[str, str]) -> Asked:
    """What the query string asks for. Raises ``BadQuery``."""
    for name in parameters:
        if name not in PARAMETERS:
            raise BadQuery(f"unknown parameter {name!r}; known are {', '.join(PARAMETERS)}")
    values: dict[str, Any] = {name: parameters[name] for name in _TEXTS if name in parameters}
    if "since" in parameters:
        values["since"] = _seconds(parameters["since"])
    if "limit" in parameters:
        values["limit"] = _limit(parameters["limit"])
    if "sort" in parameters:
        values["sort"] = _one_of(Sort, "sort", parameters["sort"])
    by = _one_of(By, "summary", parameters["summary"]) if "summary" in parameters else None
    return Asked(Query(**values), by)


async def answer(archive: Archive, asked: Asked, *, records: bool) -> bytes:
    """JSON: ``items``, and whether this replica ``records`` now. Raises ``history.store.StoreError``.

    Applications have their ``timeline`` when one is asked for by name or id, and no such key in longer lists.
    """
    items: list[Any]
    if asked.by is not None:
        items = list(await archive.summary(asked.by, asked.query))
    else:
        told = bool(asked.query.application)
        items = [_item(one, told) for one in await archive.applications(asked.query, timelines=told)]
    return msgspec.json.encode({"records": records, "items": items})


def after_from(parameters: Mapping[str, str]) -> int:
    """Which page another replica asks for. Raises ``BadQuery``."""
    text = parameters.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadQuery(f"after={text!r} is no number of an entry")
    return int(text)


def _item(application: FinishedApplication, told: bool) -> dict[str, Any]:
    item: dict[str, Any] = msgspec.to_builtins(application)
    if not told:
        del item["timeline"]
    return item | {"runSeconds": application.run_seconds, "waitSeconds": application.wait_seconds}


def _seconds(text: str) -> float:
    try:
        since = float(text)
    except ValueError:
        since = float("nan")
    if not isfinite(since):
        raise BadQuery(f"since={text!r} is no Unix time in seconds, such as 1795600000")
    return since


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MOST_ROWS:
        raise BadQuery(f"limit={text!r} is no number from 1 to {MOST_ROWS}")
    return int(text)


def _one_of(kind: type[E], name: str, text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise BadQuery(f"{name}={text!r}: allowed are {', '.join(kind)}") from None
