"""Kubernetes timestamps (apimachinery ``metav1.Time`` and ``metav1.MicroTime``: RFC 3339 in UTC) as Unix seconds;
spans as kubectl writes them."""

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


def human_duration(seconds: float) -> str:
    """A span as in kubectl's AGE column: ``42s``, ``3m20s``, ``2h5m``, ``3d4h`` (apimachinery ``HumanDuration``)."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"
