"""Names of the same job's runs become one; names of different jobs stay apart."""

from __future__ import annotations

import pytest

from muster.cli.demo import traces
from muster.history.naming import job_name


@pytest.mark.parametrize(
    "runs",
    [
        ("etl-2026-11-25", "etl-2026-11-26", "etl-2025-01-01"),
        ("etl-20261125", "etl-20250101"),
        ("etl-2026-11", "etl-2026-12"),
        ("hourly-2026112506", "hourly-2026112507"),
        ("job_000123", "job_000124", "job_7"),
        ("ingest-1764066986", "ingest-1764066986123"),
        ("load-6ba7b810-9dad-11d1-80b4-00c04fd430c8", "load-16fd2706-8baf-433b-82eb-8c7fada847da"),
        ("2026-11-25-report", "2026-11-26-report"),
        ("scheduled__2026-11-25T06:30:00+00:00", "scheduled__2026-11-26T06:30:00+00:00"),
        # suffixes as apimachinery's rand.String and workflow engines make them
        ("spark-pi-x7k2p", "spark-pi-bcdfg"),
        ("spark-pi-k3j9x0ab", "spark-pi-0a1b2c3d"),
        ("build-3f2a91c", "build-90ab12f"),
        ("a-20261125t063000z-3", "a-20261126t063001z-4"),
    ],
)
def test_runs_of_one_job_have_one_name(runs: tuple[str, ...]) -> None:
    assert len({job_name(run) for run in runs}) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("tpch-q1", "tpch-q21"),
        ("etl-v1", "etl-v2"),
        ("nightly-report", "nightly-batch", "nightly"),
        ("etl", "etl-2026-11-25"),
        ("daily-top100users", "daily-top10pages"),
        ("2026-11-25", "2026-11-26"),
        ("17", "18"),
    ],
)
def test_different_jobs_stay_apart(names: tuple[str, ...]) -> None:
    assert len({job_name(name) for name in names}) == len(names)


def test_a_name_that_was_cut_stays_the_same_when_it_is_cut_again() -> None:
    for name in ("etl-2026-11-25", "job_000123", "spark-pi-x7k2p", "a-20261125t063000z-3"):
        assert job_name(job_name(name)) == job_name(name)


def test_recurring_jobs_of_a_real_shop_lose_only_their_day() -> None:
    """Names of the Wikimedia Foundation's jobs: a day in the middle, wikis and numbers that mean something."""
    names = {row.app_id for row in traces.load(traces.WIKIMEDIA)}
    assert job_name("mjolnir_train-dewiki-dbn-20180215-query_explorer") == "mjolnir_train-dewiki-dbn#-query_explorer"
    together: dict[str, set[str]] = {}
    for name in names:
        together.setdefault(job_name(name), set()).add(name)
    # what is one job then differs in the number of a MediaWiki namespace at its end, and in nothing else
    mixed = [group for group in together.values() if len(group) > 1]
    assert all(len({name.rpartition("_ns_")[0] for name in group}) == 1 for group in mixed), mixed
