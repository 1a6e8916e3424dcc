"""What happened to an application, and which event caused it."""

from __future__ import annotations

import msgspec


class StoryEntry(msgspec.Struct, frozen=True):
    at: float
    """Seconds."""
    cause: str
    """The event or question that was being handled, e.g. ``PodGone team-a/etl-driver``."""
    what: str
    """What the scheduler did about it, in words for people."""
