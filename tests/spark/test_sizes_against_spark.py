"""Asks the real Spark 3.5 and 4.3 and compares with what is recorded: the record that the fast tests replay is true.

``python -m tests.spark.recorded`` renews it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from muster.devcluster.distribution import PINNED_VERSIONS, ensure_spark
from muster.spark.properties import ALLOWED_KEYS
from tests.spark.real_spark import RealSpark, started
from tests.spark.recorded import JAVA_PROPERTIES, ask_properties, ask_sizes, read, sizes_file

# A first run downloads Spark (about 450 MB a version).
pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=PINNED_VERSIONS)
def spark(request: pytest.FixtureRequest) -> Iterator[tuple[str, RealSpark]]:
    with started(ensure_spark(request.param)) as real:
        yield request.param, real


def test_spark_still_makes_the_recorded_pods(spark: tuple[str, RealSpark]) -> None:
    version, real = spark
    assert _by_name(ask_sizes(real)) == _by_name(read(sizes_file(version)))


def test_java_still_reads_the_recorded_properties(spark: tuple[str, RealSpark]) -> None:
    _, real = spark
    assert ask_properties(real) == read(JAVA_PROPERTIES)


def test_no_property_that_sizes_pods_is_missing_from_the_allow_list(spark: tuple[str, RealSpark]) -> None:
    _, real = spark
    prefixes = ("spark.executor.", "spark.driver.", "spark.kubernetes.", "spark.memory.", "spark.dynamicAllocation.")
    sizing = {
        key
        for key in real.config_entries(prefixes)
        if key.lower().endswith(("cores", "memory", "overhead", "overheadfactor", "instances", "executors"))
        or key.startswith("spark.memory.offHeap")
    }
    assert sizing - ALLOWED_KEYS == set()
    assert sizing > {"spark.executor.memory", "spark.kubernetes.memoryOverheadFactor"}


def _by_name(answers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {answer["name"]: answer for answer in answers}
