"""How long an application says it will run: annotation ``muster.dev/expected-run-time``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from muster.spark import names
from muster.spark.errors import InvalidSizeError

LONGEST_SECONDS = 366 * 86_400.0
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_PLAIN = re.compile(_NUMBER, re.ASCII)
_LONGEST_TEXT = 64


def expected_run_seconds(annotations: Mapping[str, str]) -> float | None:
    """Seconds, from a duration in Go's grammar (``time.ParseDuration``: ``1h30m``) or a plain number of seconds.

    ``None`` when there is no such annotation.

    Raises:
        InvalidSizeError: not such a duration, 0, or more than a year.
    """
    text = annotations.get(names.EXPECTED_RUN_TIME_ANNOTATION)
    if text is None:
        return None
    seconds = _seconds(text.strip())
    if seconds is None or not 0 < seconds <= LONGEST_SECONDS:
        raise InvalidSizeError(
            names.EXPECTED_RUN_TIME_ANNOTATION,
            f"annotation {names.EXPECTED_RUN_TIME_ANNOTATION} is {text[:_LONGEST_TEXT]!r}; expected a duration up to a "
            "year, for example 90m, 1h30m or 5400 (seconds)",
        )
    return seconds


def _seconds(text: str) -> float | None:
    if len(text) > _LONGEST_TEXT:
        return None
    if _PLAIN.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
