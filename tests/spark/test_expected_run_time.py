"""The annotation that says how long an application will run."""

from __future__ import annotations

import pytest

from muster.spark.errors import InvalidSizeError
from muster.spark.run_time import expected_run_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # examples and cases of Go's time.ParseDuration (time_test.go, parseDurationTests)
        ("5s", 5),
        ("30s", 30),
        ("1478s", 1478),
        ("5.0s", 5),
        ("5.6s", 5.6),
        ("5.s", 5),
        (".5s", 0.5),
        ("100.00100s", 100.001),
        ("13ms", 0.013),
        ("12µs", 12e-6),
        ("12μs", 12e-6),
        ("14m", 840),
        ("15h", 54_000),
        ("3h30m", 12_600),
        ("10.5s4m", 250.5),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        # a plain number is seconds
        ("5400", 5400),
        (" 90.5 ", 90.5),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert expected_run_seconds({"muster.dev/expected-run-time": text}) == pytest.approx(seconds, rel=1e-12)


def test_without_the_annotation_nobody_knows() -> None:
    assert expected_run_seconds({"other": "5m"}) is None


@pytest.mark.parametrize("text", ["", "-5m", ".", ".s", "1h-30m", "5 m", "5d", "soon", "1e3", "0", "0s", "9000h", "٣m"])
def test_what_is_no_duration_is_said(text: str) -> None:
    with pytest.raises(InvalidSizeError, match=r"muster\.dev/expected-run-time is .* for example 90m"):
        expected_run_seconds({"muster.dev/expected-run-time": text})


def test_an_absurdly_long_text_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidSizeError) as caught:
        expected_run_seconds({"muster.dev/expected-run-time": "1h" * 100_000})
    assert len(caught.value.message) < 300
