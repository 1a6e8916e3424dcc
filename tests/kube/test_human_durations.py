"""Spans as kubectl writes them."""

from __future__ import annotations

import pytest

from muster.kube.timestamps import human_duration


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
        (2 * 365 * 86400 - 1, "729d"),
        (2 * 365 * 86400, "2y"),
    ],
)
def test_durations_read_as_kubectls(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text
