"""The recorded applications in ``data``, as frozen values. What the columns mean: ``data/README.md``."""

from __future__ import annotations

import csv
import io
from importlib.resources import files
from typing import Any

import msgspec
import zstandard

EVENT_LOGS = "spark_eventlog.csv.zst"
WIKIMEDIA = "wikimedia_recurring_spark.csv.zst"
FILES = (EVENT_LOGS, WIKIMEDIA)


class TraceError(ValueError):
    """A recorded workload cannot be read; the message names the file, the row and the column."""


class Extra(msgspec.Struct, frozen=True):
    """The part of the JSON column ``extra`` that the demo uses."""

    name: str = ""
    attempt: str = ""
    peak_exec: int = 0
    init_exec: str = ""
    schedule: str = ""
    """Cron expression, ``@hourly``, ``@daily``, ``@monthly``, ``every 7d`` or ``none`` (started by other jobs)."""


class TraceRow(msgspec.Struct, frozen=True):
    """One recorded application, or one attempt of it."""

    source: str
    app_id: str
    wait_s: float | None
    duration_s: float | None
    """``None``: not recorded."""
    status: str
    driver_cpu_m: int
    driver_mem_mib: int
    executor_cpu_m: int
    executor_mem_mib: int
    min_exec: int
    max_exec: int
    dyn_alloc: bool
    inferred: frozenset[str]
    """Columns of this row that were filled by a rule, not measured."""
    extra: Extra


def load(name: str) -> tuple[TraceRow, ...]:
    """The rows of one of ``FILES``, in file order.

    Raises ``TraceError`` for a file that is none of them, is damaged, or has a value that is no number.
    """
    resource = files("muster.cli.demo") / "data" / name
    try:
        with resource.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            return parse(text.read(), name)
    except (OSError, zstandard.ZstdError, UnicodeDecodeError) as error:
        raise TraceError(f"{name}: cannot be read: {error}") from None


def parse(text: str, name: str) -> tuple[TraceRow, ...]:
    """Rows from the CSV ``text``; ``name`` is the file named in errors."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        return tuple(_row(record, f"{name}, line {reader.line_num}") for record in reader)
    except csv.Error as error:
        raise TraceError(f"{name}, line {reader.line_num}: is no CSV: {error}") from None


def _row(record: dict[str, Any], where: str) -> TraceRow:
    missing = [field for field in TraceRow.__struct_fields__ if record.get(field) is None]
    if missing:
        raise TraceError(f"{where}: column {missing[0]} is missing")
    values: dict[str, Any] = {field: record[field] for field in TraceRow.__struct_fields__}
    for column in ("wait_s", "duration_s"):
        values[column] = values[column] or None
    values["inferred"] = frozenset(filter(None, values["inferred"].split(";")))
    try:
        values["extra"] = msgspec.json.decode(values["extra"] or "{}", type=Extra, strict=False)
        return msgspec.convert(values, TraceRow, strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise TraceError(f"{where}: {error}") from None
