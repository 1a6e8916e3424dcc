"""Finished applications to put into a history."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.history.records import FinishedApplication, Outcome, Requests, Use
from muster.scheduling.story import StoryEntry

NOON = 1_795_608_000.0
"""2026-11-25T12:00:00Z."""

NIGHTLY = FinishedApplication(
    namespace="team-a",
    name="nightly-2026-11-25",
    application_id="spark-1",
    queue="batch",
    user="alice",
    pool="spark",
    outcome=Outcome.SUCCEEDED,
    created=NOON - 700.0,
    ended=NOON,
    minimum=20,
    maximum=None,
    executors=31,
    driver=Requests(1000, 2**30),
    executor=Requests(4000, 2**34),
    found=NOON - 699.0,
    reserved=NOON - 600.0,
    driver_bound=NOON - 599.0,
    minimum_reached=NOON - 590.0,
    estimated_seconds=650.0,
    observed_since=None,
    cross_zone_pairs=100,
    pairs=210,
    use=Use(36_000.0, 2.0**30 * 7200, 50.0, 360.0, 20.0, 180.0, 1000.0, 500.0, 90.0),
    timeline=(
        StoryEntry(NOON - 600.0, "NodeSeen node-7", "reserved 20 slot(s) on 4 node(s)"),
        StoryEntry(NOON, "PodSeen team-a/nightly-driver", "its driver finished"),
    ),
)


def finished(**changes: Any) -> FinishedApplication:
    """``NIGHTLY`` with other values; ``number`` makes it another application that ended so many seconds later."""
    number = changes.pop("number", 0)
    moved = msgspec.structs.replace(
        NIGHTLY, application_id=f"spark-{number}", created=NIGHTLY.created + number, ended=NIGHTLY.ended + number
    )
    return msgspec.structs.replace(moved, **changes)
