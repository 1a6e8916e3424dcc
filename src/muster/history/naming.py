"""Which runs are of the same job: application names without the dates, numbers and ids that differ each time. Pure.

Spark's pods carry the name as a label: lower case, dashes for everything else, at most 63 characters
(``KubernetesConf.getAppNameLabel``).
"""

from __future__ import annotations

import re

MARK = "#"
"""Stands for what was taken out."""

_SEPARATOR = r"[-_.:/ ]"
_UUID = re.compile(r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)
_DATE = re.compile(
    r"(?<![0-9])(?:19|20)\d\d(?P<s>[-_./]?)(?:0[1-9]|1[0-2])(?P=s)(?:0[1-9]|[12]\d|3[01])"
    r"(?:(?:[-_.: ]?t[-_.: ]?|[-_.: ])?\d\d(?:[-_.:]?\d\d){0,2}(?:[-_.:]?\d{3,6})?z?)?(?![0-9])",
    re.IGNORECASE,
)
"""A day with or without a time behind it: 2026-11-25, 20261125, 2026-11-25T06-30-00."""
_NUMBER = re.compile(rf"{_SEPARATOR}\d+$")
_ID = re.compile(
    rf"{_SEPARATOR}(?:(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{{7,}}"  # a hash
    r"|(?=[a-z]*\d+[a-z]+\d)[0-9a-z]{8,}"  # letters and digits at random, as workflow engines append them
    r"|[bcdfghjklmnpqrstvwxz2456789]{5})$"  # what Kubernetes generates (apimachinery rand.String: no vowels)
)
_MARKS = re.compile(rf"{_SEPARATOR}*{MARK}(?:{_SEPARATOR}*{MARK})*")


def job_name(name: str) -> str:
    """``name`` with ``#`` for each day, UUID, and trailing number or id: ``etl-2026-11-25`` and ``etl-2026-11-26`` are
    one job. A name that is nothing else is kept as it is."""
    text = _UUID.sub(MARK, name)
    text = _DATE.sub(MARK, text)
    while True:
        bare = text.rstrip("-_.:/ " + MARK)
        shorter = _ID.sub("", _NUMBER.sub("", bare))
        if shorter == bare or not shorter:
            break
        text = shorter + MARK
    text = _MARKS.sub(MARK, text)
    return text if text.strip(MARK) else name
