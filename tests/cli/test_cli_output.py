"""kubectl's habits on the way out."""

from __future__ import annotations

import pytest

from muster.cli.output import duration, table


# from k8s.io/apimachinery/pkg/util/duration, duration_test.go, TestHumanDurationBoundaries
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (2 * 60, "2m"),
        (2 * 60 + 1, "2m1s"),
        (10 * 60 - 1, "9m59s"),
        (10 * 60, "10m"),
        (10 * 60 + 1, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 - 1, "7h59m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400 - 1, "7d23h"),
        (8 * 86400, "8d"),
    ],
)
def test_durations_read_as_kubectls(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_tables_columns_are_three_spaces_apart_and_lines_end_with_text() -> None:
    assert table(("NAME", "AGE"), [("a-long-name", "5s"), ("b", "")]) == "NAME          AGE\na-long-name   5s\nb"
