"""The embedded store: SQLite, one file, bounded by count and age. Used from one thread.

Write-ahead logging, ``synchronous = NORMAL``: a killed process loses no committed row and never damages the file, a
power failure may lose the last ones (https://sqlite.org/wal.html). The file must be on a local disk: WAL needs shared
memory.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from muster.history.estimates import Run, Shape
from muster.history.queries import MOST_ROWS, By, Page, Query, Sort, Summary
from muster.history.records import FinishedApplication, Outcome, Requests, StrandedSample, Use
from muster.scheduling.story import StoryEntry

T = TypeVar("T")

PRUNED_AT_ONCE = 500
"""Rows deleted after each write at most: a lowered bound is reached step by step, and no write takes long."""
SAMPLES_KEPT = 500_000
"""Samples of stranded capacity, about 60 bytes each."""
_DAY = 86_400.0
_BUSY_S = 5.0

_V1 = """
CREATE TABLE applications (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL, name TEXT NOT NULL, application_id TEXT NOT NULL,
    queue TEXT NOT NULL, user TEXT NOT NULL, pool TEXT NOT NULL, outcome TEXT NOT NULL,
    created REAL NOT NULL, ended REAL NOT NULL,
    minimum INTEGER NOT NULL, maximum INTEGER, executors INTEGER NOT NULL,
    driver_cpu INTEGER, driver_memory INTEGER, executor_cpu INTEGER NOT NULL, executor_memory INTEGER NOT NULL,
    found REAL, reserved REAL, driver_bound REAL, minimum_reached REAL, estimated_seconds REAL, observed_since REAL,
    cross_zone_pairs INTEGER NOT NULL, pairs INTEGER NOT NULL,
    core_seconds REAL NOT NULL, memory_byte_seconds REAL NOT NULL,
    unbound_slot_seconds REAL NOT NULL, unbound_core_seconds REAL NOT NULL,
    idle_pod_seconds REAL NOT NULL, idle_core_seconds REAL NOT NULL,
    pair_seconds REAL NOT NULL, cross_zone_pair_seconds REAL NOT NULL, lost_core_seconds REAL NOT NULL,
    timeline BLOB NOT NULL,
    UNIQUE (namespace, application_id, created)
);
CREATE INDEX applications_ended ON applications (ended);
CREATE TABLE stranded (
    at REAL NOT NULL, pool TEXT NOT NULL, nodes INTEGER NOT NULL, cpu INTEGER NOT NULL, memory INTEGER NOT NULL,
    free_cpu INTEGER NOT NULL, free_memory INTEGER NOT NULL,
    stranded_cpu INTEGER NOT NULL, stranded_memory INTEGER NOT NULL
);
CREATE INDEX stranded_at ON stranded (at);
CREATE TABLE origin (id TEXT NOT NULL);
INSERT INTO origin VALUES (lower(hex(randomblob(16))));
CREATE TABLE copied (origin TEXT PRIMARY KEY, last INTEGER NOT NULL);
"""

SCHEMA: tuple[str, ...] = (_V1,)
"""Step n takes a file of version n (``PRAGMA user_version``) to version n + 1. A released step is never changed."""

_PLAIN = (
    "namespace", "name", "application_id", "queue", "user", "pool", "outcome", "created", "ended", "minimum", "maximum",
    "executors", "found", "reserved", "driver_bound", "minimum_reached", "estimated_seconds", "observed_since",
    "cross_zone_pairs", "pairs",
)  # fmt: skip
_REQUESTS = ("driver_cpu", "driver_memory", "executor_cpu", "executor_memory")
_USE = Use.__struct_fields__
_COLUMNS = (*_PLAIN, *_REQUESTS, *_USE)
_SELECTED = ", ".join(_COLUMNS)
_INSERT = f"INSERT OR IGNORE INTO applications ({_SELECTED}, timeline) VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
_SAMPLE = StrandedSample.__struct_fields__
_INSERT_SAMPLE = f"INSERT INTO stranded ({', '.join(_SAMPLE)}) VALUES ({', '.join('?' * len(_SAMPLE))})"

_WAITED = "(coalesce(reserved, ended) - created)"
_RAN = "(ended - reserved)"
_ORDER = {
    Sort.ENDED: "ended DESC",
    Sort.CREATED: "created DESC",
    Sort.WAIT: f"{_WAITED} DESC",
    Sort.RUN: f"{_RAN} DESC",
    Sort.COST: "core_seconds DESC",
    Sort.WASTE: "unbound_core_seconds + idle_core_seconds + lost_core_seconds DESC",
    Sort.EXECUTORS: "executors DESC",
    Sort.NAME: "name, ended DESC",
}
_SUMS = f"""
    count(*), sum(outcome = '{Outcome.FAILED}'), sum(core_seconds), sum(memory_byte_seconds), sum(unbound_core_seconds),
    sum(idle_core_seconds), sum(lost_core_seconds), sum(pair_seconds), sum(cross_zone_pair_seconds), sum({_WAITED}),
    count(estimated_seconds + reserved), coalesce(sum({_RAN} <= estimated_seconds), 0)
"""


class StoreError(Exception):
    """The file cannot be used now: the disk is full, it may not be written, a newer Muster wrote it."""


class DamagedStore(StoreError):
    """The file is no database, or a damaged one."""


class RowRefused(StoreError):
    """What was to be written can never be; the file is well."""


class Store:
    """An open file. Every method may raise ``StoreError``; after ``DamagedStore``: close, ``set_aside``, open anew."""

    def __init__(self, path: Path, *, keep_days: float, keep_applications: int) -> None:
        """Opens the file, makes it when it is not there, and brings an older one up to date."""
        self.path = path
        self._keep_seconds = keep_days * _DAY
        self._keep_applications = keep_applications
        self._latest = 0.0
        self._count = self._samples = 0
        self.origin = ""
        """Which file this is, among those of all replicas."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} cannot be opened: {error}") from None
        try:
            self._guarded(self._prepare)
        except StoreError:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def add(self, applications: Sequence[FinishedApplication], samples: Sequence[StrandedSample] = ()) -> None:
        """All of them or none; an application that is there already is left as it is. Then prunes a little."""
        self._guarded(lambda: self._add(applications, samples))

    def applications(self, query: Query, *, timelines: bool = False) -> list[FinishedApplication]:
        """The rows asked for; their timelines are empty unless wanted."""
        where, values = _where(query)
        columns = f"{_SELECTED}, timeline" if timelines else f"{_SELECTED}, NULL"
        limit = max(0, min(query.limit, MOST_ROWS))
        text = f"SELECT {columns} FROM applications {where} ORDER BY {_ORDER[query.sort]}, id DESC LIMIT {limit}"
        return self._guarded(lambda: [_application(row) for row in self._db.execute(text, values)])

    def summary(self, by: By, query: Query) -> list[Summary]:
        """Sums over everything that the query selects (its limit and sort set aside), the most core-seconds first."""
        where, values = _where(query)
        text = f"SELECT {by.value}, {_SUMS} FROM applications {where} GROUP BY 1 ORDER BY sum(core_seconds) DESC, 1"

        def read() -> list[Summary]:
            rows = [Summary(*row) for row in self._db.execute(text, values)]
            return self._with_stranded(rows, query.since or 0.0) if by is By.POOL else rows

        return self._guarded(read)

    def runs(self, most: int) -> list[tuple[str, str, Run]]:
        """Namespace, name and run of the newest ``most`` applications that succeeded, oldest first."""
        text = f"""
            SELECT namespace, name, executor_cpu, executor_memory, minimum, {_RAN} FROM applications
            WHERE outcome = '{Outcome.SUCCEEDED}' AND reserved < coalesce(observed_since, ended + 1)
            ORDER BY ended DESC LIMIT ?
        """
        rows: list[Any] = self._guarded(lambda: self._db.execute(text, (most,)).fetchall())
        return [(place, name, Run(Shape(*shape), ran)) for place, name, *shape, ran in reversed(rows)]

    def page(self, after: int, limit: int) -> Page:
        """Applications in the order in which they were written, after number ``after``."""
        text = f"SELECT {_SELECTED}, timeline, id FROM applications WHERE id > ? ORDER BY id LIMIT ?"
        rows = self._guarded(lambda: self._db.execute(text, (after, limit)).fetchall())
        last = rows[-1][-1] if rows else after
        return Page(self.origin, last, tuple(self._guarded(lambda: [_application(row) for row in rows])))

    def copied(self, origin: str) -> int:
        """Up to which number of another file everything has been copied."""
        text = "SELECT coalesce(max(last), 0) FROM copied WHERE origin = ?"
        return int(self._guarded(lambda: self._db.execute(text, (origin,)).fetchone())[0])

    def copy(self, page: Page) -> list[FinishedApplication]:
        """Keep what another file has; returns what was new here."""
        return self._guarded(lambda: self._add(page.applications, (), page))

    def __len__(self) -> int:
        """Applications that are there."""
        return self._count

    def _prepare(self) -> None:
        db = self._db
        [version] = db.execute("PRAGMA user_version").fetchone()
        if version > len(SCHEMA):
            raise StoreError(
                f"{self.path} was written by a newer Muster (schema {version}, this one knows {len(SCHEMA)}); it stays "
                "untouched: move it away to begin anew"
            )
        if version == 0:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        for number in range(version, len(SCHEMA)):
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA[number]}; PRAGMA user_version = {number + 1}; COMMIT")
        [self.origin] = db.execute("SELECT id FROM origin").fetchone()
        [self._count] = db.execute("SELECT count(*) FROM applications").fetchone()
        [self._samples] = db.execute("SELECT count(*) FROM stranded").fetchone()
        [latest] = db.execute("SELECT max(ended) FROM applications").fetchone()
        self._latest = latest or 0.0

    def _add(
        self,
        applications: Sequence[FinishedApplication],
        samples: Sequence[StrandedSample],
        copied: Page | None = None,
    ) -> list[FinishedApplication]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            new = [one for one in applications if db.execute(_INSERT, _row(one)).rowcount > 0]
            added = len(new)
            if copied is not None:
                db.execute("INSERT OR REPLACE INTO copied VALUES (?, ?)", (copied.origin, copied.last))
            sampled = _changed(
                db.executemany(_INSERT_SAMPLE, [tuple(getattr(one, name) for name in _SAMPLE) for one in samples])
            )
            times = [*(one.ended for one in applications), *(one.at for one in samples)]
            latest = max([self._latest, *times])
            pruned = self._prune("applications", "ended", self._count + added - self._keep_applications, latest)
            unsampled = self._prune("stranded", "at", self._samples + sampled - SAMPLES_KEPT, latest)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._count += added - pruned
        self._samples += sampled - unsampled
        self._latest = latest
        if pruned or unsampled:
            # a script, because execute() takes one step of it, which frees one page
            db.executescript(f"PRAGMA incremental_vacuum({PRUNED_AT_ONCE})")
        return new

    def _prune(self, table: str, time: str, excess: int, now: float) -> int:
        """Delete rows that are too old or too many, the oldest first; returns how many went."""
        oldest = f"SELECT rowid FROM {table}"
        aged = self._db.execute(
            f"DELETE FROM {table} WHERE rowid IN ({oldest} WHERE {time} < ? ORDER BY {time} LIMIT ?)",
            (now - self._keep_seconds, PRUNED_AT_ONCE),
        ).rowcount
        too_many = min(excess - aged, PRUNED_AT_ONCE)
        if too_many > 0:
            self._db.execute(f"DELETE FROM {table} WHERE rowid IN ({oldest} ORDER BY {time} LIMIT ?)", (too_many,))
        return aged + max(0, too_many)

    def _with_stranded(self, rows: list[Summary], since: float) -> list[Summary]:
        means = {
            pool: (cpu, memory)
            for pool, cpu, memory in self._db.execute(
                """SELECT pool, avg(stranded_cpu * 1.0 / nullif(cpu, 0)), avg(stranded_memory * 1.0 / nullif(memory, 0))
                FROM stranded WHERE at >= ? GROUP BY pool ORDER BY pool""",
                (since,),
            )
        }
        found = {row.key for row in rows}
        idle = [Summary(pool, *([0] * 12)) for pool in means if pool not in found]
        return [
            msgspec.structs.replace(row, stranded_cpu=means[row.key][0], stranded_memory=means[row.key][1])
            if row.key in means
            else row
            for row in (*rows, *idle)
        ]

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, OverflowError) as error:
            raise RowRefused(f"{self.path}: {error}") from None
        except sqlite3.Error as error:
            # the low byte is the error, the rest its kind (https://sqlite.org/rescode.html)
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            kind = DamagedStore if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else StoreError
            raise kind(f"{self.path}: {error}") from None
        except (zlib.error, msgspec.MsgspecError) as error:
            raise DamagedStore(f"{self.path}: a row cannot be read: {error}") from None


def set_aside(path: Path) -> Path:
    """Move a damaged file out of the way, over an earlier one; returns where it is now. Raises ``StoreError``."""
    kept = path.with_name(path.name + ".damaged")
    try:
        path.replace(kept)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} is damaged and cannot be moved away: {error}") from None
    return kept


def _changed(cursor: sqlite3.Cursor) -> int:
    return max(0, cursor.rowcount)


def _where(query: Query) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for column in ("namespace", "queue", "user"):
        if wanted := getattr(query, column):
            conditions.append(f"{column} = ?")
            values.append(wanted)
    if query.name:
        conditions.append("name GLOB ?")
        values.append(query.name)
    if query.application:
        conditions.append("(application_id = ? OR name = ?)")
        values += [query.application] * 2
    if query.since is not None:
        conditions.append("ended >= ?")
        values.append(query.since)
    return ("WHERE " + " AND ".join(conditions) if conditions else ""), values


def _row(one: FinishedApplication) -> tuple[Any, ...]:
    driver = one.driver
    return (
        *(getattr(one, name) for name in _PLAIN),
        None if driver is None else driver.cpu,
        None if driver is None else driver.memory,
        one.executor.cpu,
        one.executor.memory,
        *(getattr(one.use, name) for name in _USE),
        zlib.compress(msgspec.json.encode([msgspec.structs.astuple(entry) for entry in one.timeline])),
    )


def _application(row: Sequence[Any]) -> FinishedApplication:
    values = dict(zip(_COLUMNS, row, strict=False))
    driver_cpu, driver_memory, executor_cpu, executor_memory = (values.pop(name) for name in _REQUESTS)
    use = Use(**{name: values.pop(name) for name in _USE})
    timeline = row[len(_COLUMNS)]
    return FinishedApplication(
        **(values | {"outcome": Outcome(values["outcome"])}),
        driver=None if driver_cpu is None else Requests(driver_cpu, driver_memory),
        executor=Requests(executor_cpu, executor_memory),
        use=use,
        timeline=() if timeline is None else tuple(_entries(timeline)),
    )


def _entries(packed: bytes) -> Iterable[StoryEntry]:
    for at, cause, what in msgspec.json.decode(zlib.decompress(packed), type=list[tuple[float, str, str]]):
        yield StoryEntry(at, cause, what)
