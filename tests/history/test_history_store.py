"""The store keeps what it is given, within its bounds, whatever is done to its process and its file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.history import store as store_module
from muster.history.estimates import Run, Shape
from muster.history.queries import By, Query, Sort, Summary
from muster.history.records import Outcome, Requests, StrandedSample, Use
from muster.history.store import SCHEMA, DamagedStore, RowRefused, Store, StoreError, set_aside
from tests.history.finished import NIGHTLY, NOON, finished

REPOSITORY = Path(__file__).parents[2]


def opened(path: Path, *, keep_days: float = 90, keep_applications: int = 1000) -> Store:
    return Store(path, keep_days=keep_days, keep_applications=keep_applications)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "history.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    one = opened(path)
    yield one
    one.close()


def integrity(path: Path) -> str:
    """SQLite's own verdict on the file."""
    db = sqlite3.connect(path)
    try:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        db.close()


def names(store: Store, query: Query) -> list[str]:
    return [one.name for one in store.applications(query)]


def test_what_was_added_is_read_back_also_after_a_restart(path: Path) -> None:
    ended = finished(number=2, driver=None, maximum=7, reserved=None, outcome=Outcome.ENDED, timeline=())
    first = opened(path)
    first.add([NIGHTLY, ended])
    first.close()
    again = opened(path)
    try:
        assert again.applications(Query(), timelines=True) == [ended, NIGHTLY]
        assert again.applications(Query())[1].timeline == (), "timelines only where they are asked for"
        assert len(again) == 2
    finally:
        again.close()


def test_the_same_application_is_kept_once(store: Store) -> None:
    store.add([NIGHTLY])
    store.add([NIGHTLY, finished(number=1)])
    assert len(store) == len(store.applications(Query())) == 2


def test_an_application_id_that_is_used_again_is_another_application(store: Store) -> None:
    store.add([NIGHTLY, finished(created=NOON + 5, ended=NOON + 9)])
    assert len(store.applications(Query())) == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), ["c", "b", "etl-1"]),
        (Query(namespace="team-b"), ["b"]),
        (Query(queue="adhoc"), ["c"]),
        (Query(user="bob"), ["c", "b"]),
        (Query(name="etl-*"), ["etl-1"]),
        (Query(name="etl"), []),
        (Query(application="b"), ["b"]),
        (Query(application="spark-3"), ["c"]),
        (Query(since=NOON + 2), ["c", "b"]),
        (Query(limit=1), ["c"]),
        (Query(sort=Sort.NAME), ["b", "c", "etl-1"]),
        (Query(sort=Sort.WAIT), ["etl-1", "c", "b"]),
        (Query(sort=Sort.RUN), ["b", "c", "etl-1"]),
        (Query(sort=Sort.COST), ["b", "etl-1", "c"]),
        (Query(sort=Sort.WASTE), ["c", "b", "etl-1"]),
        (Query(sort=Sort.EXECUTORS), ["etl-1", "b", "c"]),
    ],
)
def test_questions_choose_and_sort(store: Store, query: Query, expected: list[str]) -> None:
    store.add(
        [
            finished(number=1, name="etl-1", executors=9, reserved=NOON, use=Use(core_seconds=5)),
            finished(
                number=2, name="b", namespace="team-b", user="bob", executors=8, reserved=NOON - 690,
                use=Use(core_seconds=9, idle_core_seconds=1),
            ),
            finished(
                number=3, name="c", queue="adhoc", user="bob", executors=7, reserved=NOON - 300,
                use=Use(core_seconds=1, unbound_core_seconds=1, lost_core_seconds=1),
            ),
        ]
    )  # fmt: skip
    assert names(store, query) == expected


def test_what_a_question_holds_is_no_sql(store: Store) -> None:
    store.add([NIGHTLY])
    assert store.applications(Query(queue="' OR 1=1 --", name="'; DROP TABLE applications; --")) == []
    assert len(store.applications(Query())) == 1


def test_sums_are_those_of_the_chosen_applications(store: Store) -> None:
    store.add(
        [
            finished(number=1, estimated_seconds=601.5),
            finished(number=2, outcome=Outcome.FAILED, estimated_seconds=599.5),
            finished(number=3, queue="adhoc", estimated_seconds=None),
            finished(number=4, queue="adhoc", reserved=None),
            finished(number=5, namespace="team-b"),
        ]
    )
    adhoc, batch = store.summary(By.QUEUE, Query(namespace="team-a", limit=1))
    # each ran 600 s + its number, and waited 100 s - its number; the fourth waited for all of its 700 s
    assert batch == Summary(
        key="batch", applications=2, failed=1, core_seconds=72_000, memory_byte_seconds=2.0**31 * 7200,
        unbound_core_seconds=720, idle_core_seconds=360, lost_core_seconds=180, pair_seconds=2000,
        cross_zone_pair_seconds=1000, wait_seconds=99 + 98, estimated=2, estimate_kept=1,
    )  # fmt: skip
    assert (adhoc.key, adhoc.applications, adhoc.wait_seconds, adhoc.estimated) == ("adhoc", 2, 97 + 700, 0)


def test_pools_tell_their_stranded_capacity(store: Store) -> None:
    def sample(at: float, pool: str, stranded_cpu: int) -> StrandedSample:
        return StrandedSample(at, pool, 4, 40_000, 1000, 20_000, 500, stranded_cpu, 250)

    store.add([NIGHTLY], [sample(NOON, "spark", 4000), sample(NOON + 60, "spark", 8000), sample(NOON, "idle", 0)])
    spark, idle = store.summary(By.POOL, Query())
    assert (spark.key, spark.applications, spark.stranded_memory) == ("spark", 1, 0.25)
    assert spark.stranded_cpu == pytest.approx(0.15)
    assert (idle.key, idle.applications, idle.stranded_cpu) == ("idle", 0, 0.0)
    assert store.summary(By.POOL, Query(since=NOON + 1))[0].stranded_cpu == 0.2


def test_the_oldest_go_when_there_are_too_many_or_they_are_too_old(path: Path) -> None:
    store = opened(path, keep_applications=10, keep_days=1)
    try:
        store.add([finished(number=number) for number in range(25)])
        assert [one.application_id for one in store.applications(Query())] == [f"spark-{n}" for n in range(24, 14, -1)]
        store.add([finished(number=86_400 + 20)], [StrandedSample(NOON, "p", 1, 1, 1, 1, 1, 1, 1)])
        kept = [one.application_id for one in store.applications(Query())]
        assert kept == ["spark-86420", "spark-24", "spark-23", "spark-22", "spark-21", "spark-20"]
        assert len(store) == 6
        store.add([finished(number=3 * 86_400)])
        assert store.summary(By.POOL, Query())[0].stranded_cpu is None, "samples age too"
    finally:
        store.close()


def test_a_bound_that_was_lowered_is_reached_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PRUNED_AT_ONCE", 20)
    large = opened(path)
    large.add([finished(number=number) for number in range(100)])
    large.close()
    small = opened(path, keep_applications=10)
    try:
        counts = []
        for number in range(100, 107):
            small.add([finished(number=number)])
            counts.append(len(small))
        assert counts == [81, 62, 43, 24, 10, 10, 10]
    finally:
        small.close()


def test_a_file_does_not_grow_for_ever(path: Path) -> None:
    store = opened(path, keep_applications=50)
    try:
        sizes = []
        for round_ in range(12):
            store.add([finished(number=100 * round_ + number) for number in range(100)])
            sizes.append(path.stat().st_size)
        assert max(sizes[6:]) <= max(sizes[:6])
    finally:
        store.close()


def test_a_file_with_less_to_keep_gives_room_back(path: Path) -> None:
    large = opened(path)
    large.add([finished(number=number) for number in range(1000)])
    large.close()
    before = path.stat().st_size
    small = opened(path, keep_applications=10)
    for number in range(1000, 1004):
        small.add([finished(number=number)])
    small.close()
    assert path.stat().st_size < before / 4


def test_runs_that_succeeded_are_told_oldest_first(store: Store) -> None:
    store.add(
        [
            finished(number=3, name="c", minimum=5),
            finished(number=1, name="a"),
            finished(number=2, outcome=Outcome.FAILED),
            finished(number=4, reserved=None),
            finished(number=5, observed_since=NOON - 600.0),
            finished(number=6, name="led by another before", observed_since=NOON - 300.0),
        ]
    )
    shape = Shape(4000, 2**34, 20)
    assert store.runs(10) == [
        ("team-a", "a", Run(shape, 601.0)),
        ("team-a", "c", Run(Shape(4000, 2**34, 5), 603.0)),
        ("team-a", "led by another before", Run(shape, 606.0)),
    ]
    assert [name for _, name, _ in store.runs(1)] == ["led by another before"]


WRITER = """
import sys
from pathlib import Path
from muster.history.store import Store
from tests.history.finished import finished
store = Store(Path(sys.argv[1]), keep_days=90, keep_applications=400)
for batch in range(100_000):
    store.add([finished(number=10 * batch + number) for number in range(10)])
    print(batch, flush=True)
"""


@pytest.mark.parametrize("batches", [3, 57])
def test_a_writer_killed_in_the_middle_leaves_whole_batches_and_a_sound_file(path: Path, batches: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True
    )
    assert writer.stdout is not None
    with writer, writer.stdout:
        told = -1
        while told < batches:
            told = int(writer.stdout.readline())
        writer.kill()  # SIGKILL: no finally, no atexit
    assert integrity(path) == "ok"
    store = opened(path, keep_applications=400)
    try:
        numbers = sorted(int(one.application_id.removeprefix("spark-")) for one in store.applications(Query(limit=500)))
        assert numbers[-1] >= 10 * told + 9, "what was told as written is there"
        assert numbers == list(range(numbers[-1] - len(numbers) + 1, numbers[-1] + 1))
        assert numbers[-1] % 10 == 9, "a batch is written whole or not at all"
        store.add([finished(number=numbers[-1] + 1)])
    finally:
        store.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from muster.history.queries import Query
from muster.history.store import DamagedStore, Store, StoreError
from tests.history.finished import finished
path = Path(sys.argv[1])
store = Store(path, keep_days=90, keep_applications=100_000)
store.add([finished(number=1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
number, full = 1, False
while not full:
    assert number < 100_000
    try:
        store.add([finished(number=number + 1)])
        number += 1
    except StoreError as error:
        assert not isinstance(error, DamagedStore), error
        full = True
assert len(store.applications(Query(limit=500))) == min(number, 500), "reading goes on"
store.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store = Store(path, keep_days=90, keep_applications=100_000)
store.add([finished(number=number + 1)])
assert len(store) == number + 1
store.close()
"""


def test_a_full_disk_loses_nothing_that_was_written(path: Path) -> None:
    """A limit on file sizes stands in for the end of the disk: the same writes fail."""
    subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], cwd=REPOSITORY, check=True)
    assert integrity(path) == "ok"


def test_a_file_that_is_no_database_is_told_and_can_be_moved_away(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"once upon a time" * 1000)
    with pytest.raises(DamagedStore, match=r"history\.db: file is not a database"):
        opened(path)
    assert set_aside(path) == path.with_name("history.db.damaged")
    opened(path).close()
    assert path.with_name("history.db.damaged").read_bytes().startswith(b"once upon a time")


def test_damage_in_the_middle_is_noticed_when_it_is_read_at_the_latest(path: Path) -> None:
    store = opened(path)
    store.add([finished(number=number) for number in range(500)])
    store.close()
    content = path.read_bytes()
    half = len(content) // 2 // 4096 * 4096
    path.write_bytes(content[:half] + b"\xff" * (len(content) - half))
    with pytest.raises(DamagedStore):
        again = opened(path)
        try:
            again.applications(Query(limit=500), timelines=True)
        finally:
            again.close()


def test_a_file_of_a_newer_muster_stays_untouched(path: Path) -> None:
    store = opened(path)
    store.add([NIGHTLY])
    store.close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(SCHEMA) + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="written by a newer Muster") as caught:
        opened(path)
    assert not isinstance(caught.value, DamagedStore), "nobody moves it away"
    assert path.read_bytes() == before


def test_an_older_file_is_brought_up_to_date_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(path)
    store.add([NIGHTLY])
    store.close()
    step = "ALTER TABLE applications ADD COLUMN cluster TEXT NOT NULL DEFAULT 'here'"
    monkeypatch.setattr(store_module, "SCHEMA", (*SCHEMA, step))
    newer = opened(path)
    try:
        newer.add([finished(number=7)])
        assert len(newer.applications(Query())) == 2
    finally:
        newer.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (len(SCHEMA) + 1,)
    assert db.execute("SELECT DISTINCT cluster FROM applications").fetchall() == [("here",)]
    db.close()


def test_a_step_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()
    with monkeypatch.context() as broken:
        broken.setattr(store_module, "SCHEMA", (*SCHEMA, "CREATE TABLE half (x); CREATE TABLE half (x)"))
        with pytest.raises(StoreError):
            opened(path)
    opened(path).close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    db.close()


def test_a_row_that_cannot_be_kept_is_refused_with_its_batch_only(store: Store) -> None:
    store.add([NIGHTLY])
    with pytest.raises(RowRefused):
        store.add([finished(number=1), finished(number=2, executor=Requests(2**63, 1))])
    assert [one.application_id for one in store.applications(Query())] == ["spark-1"]
    store.add([finished(number=3)])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(StoreError, match=r"history\.db cannot be opened"):
        opened(tmp_path / "a" / "history.db")
