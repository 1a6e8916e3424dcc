"""What the demo plays: one virtual application per recorded row, compressed in time and scaled in width.

Every row of both files is played once. What is recorded stays as recorded, apart from these rules
(``docs/demo.md`` says them in words):

- **Width.** Executor counts above 8 grow eight times slower: 900 become 119, 64 become 15. Pod sizes are untouched.
- **Local mode.** Applications that ran without executors get one, of the recorded size: on a cluster Spark wants it.
- **Gang.** Static allocation: all executors. Dynamic allocation: the recorded initial or minimum executors; rows of
  ``wikimedia_recurring_spark`` record only the cap, there that many are asked for at the start.
- **Run time.** Recorded seconds, at least 30, at most 120. Where none are recorded, the run time of an application with
  executors from ``spark_eventlog``, drawn by the seed.
- **Arrival.** ``wikimedia_recurring_spark`` by schedule, in a week that begins on a Monday, the first of its month, and
  lasts ``WEEK_S`` seconds; jobs without a time of their own, and ``spark_eventlog``, whose logs share no clock,
  spread over that week by the seed.

All times are virtual seconds; the demo plays ``PACE`` of them in a real one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import msgspec

from muster.cli.demo.traces import EVENT_LOGS, WIKIMEDIA, TraceRow, load

PACE = 12.0
"""Virtual seconds in a second."""
WEEK_S = 420.0
"""Virtual seconds that stand for the seven days of arrivals."""
SHORTEST_S, LONGEST_S = 30.0, 120.0
FULL_WIDTH = 8
"""Executor counts up to this one are played as recorded."""
WIDTH_COMPRESSION = 8

_DAY = 86_400
_WEEK = 7 * _DAY


class PodSize(msgspec.Struct, frozen=True):
    cpu_m: int
    """Millicores."""
    memory_mib: int
    """Heap and overhead together."""


class PlannedApplication(msgspec.Struct, frozen=True):
    """One application of the demo; times in virtual seconds."""

    name: str
    """Valid as ``spark.app.name`` and in a pod's name; unique."""
    source: str
    submit_s: float
    duration_s: float
    driver: PodSize
    executor: PodSize
    minimum: int
    """Executors of the gang."""
    maximum: int
    """Executors it ends up asking for; equal to ``minimum`` without dynamic allocation."""
    dynamic: bool
    recorded_maximum: int
    """Executors of the recorded run, before scaling."""


def scaled_width(count: int) -> int:
    """Executors played for ``count`` recorded ones: monotonic, and 1:1 up to ``FULL_WIDTH``."""
    if count <= FULL_WIDTH:
        return count
    return FULL_WIDTH + (count - FULL_WIDTH) // WIDTH_COMPRESSION


def build(seed: int, limit: int | None = None) -> tuple[PlannedApplication, ...]:
    """The demo's applications by time of submission; the same for the same arguments on every machine.

    ``limit`` keeps the first applications to arrive only.
    """
    draw = random.Random(seed)
    event_logs, wikimedia = load(EVENT_LOGS), load(WIKIMEDIA)
    run_times = [row.duration_s for row in event_logs if row.duration_s is not None and row.max_exec > 0]
    names = _unique_names([*event_logs, *wikimedia])
    applications = [
        *(_from_event_log(row, name, draw) for row, name in zip(event_logs, names, strict=False)),
        *(
            _from_wikimedia(row, name, draw, run_times)
            for row, name in zip(wikimedia, names[len(event_logs) :], strict=True)
        ),
    ]
    applications.sort(key=lambda application: (application.submit_s, application.name))
    return tuple(applications[:limit])


def schedule_offset(schedule: str) -> float | None:
    """Seconds from Monday 00:00, the first of the month, to the schedule's first run in that week.

    ``None`` when the schedule names no time of day ("every 7d", "none"). Cron fields other than minute, hour and
    day of the week are not used by the recorded jobs and are refused.
    """
    if schedule in ("@hourly", "@daily", "@monthly"):
        return 0.0
    if schedule in ("", "none") or schedule.startswith("every "):
        return None
    fields = schedule.split()
    if len(fields) != 5 or fields[2:4] != ["*", "*"] or not all(re.fullmatch(r"\d+|\*", field) for field in fields):
        raise ValueError(f"schedule {schedule!r}: expected minute, hour and day of the week, for example '0 3 * * 5'")
    minute, hour = (0 if field == "*" else int(field) for field in fields[:2])
    day = 0 if fields[4] == "*" else (int(fields[4]) - 1) % 7  # cron counts from Sunday, the week from Monday
    return float(day * _DAY + hour * 3600 + minute * 60)


def _from_event_log(row: TraceRow, name: str, draw: random.Random) -> PlannedApplication:
    recorded = max(row.min_exec, row.extra.peak_exec) if row.dyn_alloc else row.max_exec
    widest = max(1, scaled_width(recorded))
    gang = min(widest, scaled_width(max(row.min_exec, int(row.extra.init_exec or 0)))) if row.dyn_alloc else widest
    submit = draw.uniform(0, WEEK_S)
    return _application(row, name, submit, row.duration_s or SHORTEST_S, gang, widest, recorded)


def _from_wikimedia(row: TraceRow, name: str, draw: random.Random, run_times: list[float]) -> PlannedApplication:
    offset = schedule_offset(row.extra.schedule)
    spread = draw.uniform(0, WEEK_S)
    submit = spread if offset is None else offset / _WEEK * WEEK_S
    widest = scaled_width(row.max_exec)
    return _application(row, name, submit, draw.choice(run_times), widest, widest, row.max_exec)


def _application(
    row: TraceRow, name: str, submit_s: float, run_time_s: float, gang: int, widest: int, recorded: int
) -> PlannedApplication:
    return PlannedApplication(
        name=name,
        source=row.source,
        submit_s=submit_s,
        duration_s=min(LONGEST_S, max(SHORTEST_S, run_time_s)),
        driver=PodSize(row.driver_cpu_m, row.driver_mem_mib),
        executor=PodSize(row.executor_cpu_m, row.executor_mem_mib),
        minimum=gang,
        maximum=widest,
        dynamic=row.dyn_alloc,
        recorded_maximum=recorded,
    )


def _unique_names(rows: Iterable[TraceRow]) -> list[str]:
    """DNS labels of at most 35 characters: with Spark's suffixes, services stay within 63."""
    seen: dict[str, int] = {}
    names = []
    for row in rows:
        words = row.extra.name or row.app_id.rsplit("/", 1)[-1]
        label = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
        label = label if label[:1].isalpha() else f"app-{label}"
        label = label if len(label) <= 32 else f"{label[:14].rstrip('-')}-{label[-17:].lstrip('-')}"
        seen[label] = seen.get(label, 0) + 1
        names.append(label if seen[label] == 1 else f"{label}-{seen[label]}")
    return names
