"""Spark is found where it is, else installed once, whole or not at all; pip itself is played by a script."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.devcluster import distribution
from muster.devcluster.distribution import SparkUnavailableError, ensure_spark, find_spark, spark_cache

FAKE_PIP = """#!/bin/sh
echo run >> "{runs}"
while [ "$1" != --target ]; do shift; done
grep -q "pyspark==4.3.0" "$4" || exit 9
mkdir -p "$2/pyspark/bin" "$2/pyspark/jars"
echo "Collecting pyspark==4.3.0"
touch "$2/pyspark/bin/spark-submit"
{rest}
touch "$2/pyspark/jars/spark-kubernetes_2.13-4.3.0.jar"
"""


def a_spark(home: Path, version: str = "4.3.0") -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "jars").mkdir()
    (home / "bin" / "spark-submit").touch()
    (home / "jars" / f"spark-kubernetes_2.13-{version}.jar").touch()
    return home


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for version in distribution.PINNED_VERSIONS:
        monkeypatch.delenv(distribution.override_variable(version), raising=False)
    monkeypatch.setenv("MUSTER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spark"


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a script in pip's place; returns the file in which it writes a line for each run."""

    def install(rest: str = "") -> Path:
        runs, script = tmp_path / "runs", tmp_path / "python"
        script.write_text(FAKE_PIP.format(runs=runs, rest=rest))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return runs

    return install


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert spark_cache() == cache
    monkeypatch.delenv("MUSTER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert spark_cache() == Path("/elsewhere/muster/spark")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert spark_cache() == Path.home() / ".cache/muster/spark"


def test_a_spark_of_ones_own_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = a_spark(tmp_path / "mine", "4.3.1")
    monkeypatch.setenv("MUSTER_SPARK_HOME_4_3", str(mine))
    assert ensure_spark("4.3.0") == find_spark("4.3.0") == mine


def test_a_spark_of_another_version_is_refused_by_its_variables_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_SPARK_HOME_4_3", str(a_spark(tmp_path / "old", "3.5.9")))
    with pytest.raises(SparkUnavailableError, match=r"MUSTER_SPARK_HOME_4_3 is '.*old', which holds no Spark 4\.3"):
        ensure_spark("4.3.0")


def test_an_unpinned_version_is_refused() -> None:
    with pytest.raises(SparkUnavailableError, match=r"'2\.4\.8' is not one of the pinned versions: 3\.5\.9, 4\.3\.0"):
        ensure_spark("2.4.8")


def test_nothing_is_installed_by_looking(cache: Path) -> None:
    assert find_spark("4.3.0") is None
    assert not cache.exists()


def test_spark_is_installed_once_and_told_about(cache: Path, pip: Callable[..., Path]) -> None:
    runs, told = pip(), list[str]()
    home = ensure_spark("4.3.0", told.append)
    assert home == cache / "4.3.0" / "pyspark"
    assert ensure_spark("4.3.0") == find_spark("4.3.0") == home
    assert runs.read_text() == "run\n"
    assert told[0].startswith("installing Apache Spark 4.3.0 into ")
    assert told[1:] == ["looking up Apache Spark 4.3.0", "Apache Spark 4.3.0 is ready"]


def test_of_two_that_ask_at_once_one_installs(cache: Path, pip: Callable[..., Path], tmp_path: Path) -> None:
    barrier = tmp_path / "first-is-inside"
    runs = pip(rest=f'while [ ! -e "{barrier}" ]; do sleep 0.01; done')
    homes: list[Path] = []

    def waits(message: str) -> None:
        if message.startswith("waiting for another install"):
            barrier.touch()

    threads = [threading.Thread(target=lambda: homes.append(ensure_spark("4.3.0", waits))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert homes == [cache / "4.3.0" / "pyspark"] * 2
    assert runs.read_text() == "run\n"


def test_a_failed_installation_says_why_and_leaves_nothing(cache: Path, pip: Callable[..., Path]) -> None:
    pip(rest='echo "ERROR: No matching distribution found for pyspark==4.3.0"; exit 1')
    with pytest.raises(SparkUnavailableError, match=r"No matching distribution.*set MUSTER_SPARK_HOME_4_3 to a Spark"):
        ensure_spark("4.3.0")
    assert find_spark("4.3.0") is None
    assert [entry.name for entry in cache.iterdir()] == [".4.3.0.lock"]


def test_what_a_killed_installation_left_is_cleared_away(cache: Path, pip: Callable[..., Path]) -> None:
    a_spark(cache / ".installing-4.3.0-abandoned" / "site" / "pyspark")
    (cache / "4.3.0" / "pyspark" / "bin").mkdir(parents=True)
    pip()
    ensure_spark("4.3.0")
    assert sorted(entry.name for entry in cache.iterdir()) == [".4.3.0.lock", "4.3.0"]


def test_every_pinned_version_comes_with_hashes() -> None:
    for version in distribution.PINNED_VERSIONS:
        pins = distribution._pins(version)
        assert f"pyspark=={version} \\" in pins
        assert "--hash=sha256:" in pins.split("pyspark==")[1]
