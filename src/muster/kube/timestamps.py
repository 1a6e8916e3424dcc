"""Kubernetes timestamps (apimachinery ``metav1.Time`` and ``metav1.MicroTime``: RFC 3339 in UTC) as Unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time; finer than microseconds is cut. Raises ``ValueError`` that shows the text."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an RFC 3339 time such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; RFC 3339 wants one, e.g. the Z in 2026-01-31T12:00:00Z")
    return moment.timestamp()


def format_time(seconds: float) -> str:
    """``metav1.Time``: whole seconds, rounded down as Go's formatting does."""
    return datetime.fromtimestamp(seconds // 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(seconds: float) -> str:
    """``metav1.MicroTime``: always six digits (``metav1.RFC3339Micro``)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
