"""docs/migrating-from-palantir.md lists every known bug of the archived scheduler, and tests that exist."""

from __future__ import annotations

import re

import pytest

from muster.control.extender.configuration import INEFFECTIVE
from tests.extender.spark_objects import DATA

ROOT = DATA.parents[2]
DOCUMENT = (ROOT / "docs" / "migrating-from-palantir.md").read_text()
BUGS = [line.split(" | ") for line in DOCUMENT.splitlines() if re.match(r"\| \d+ \| ", line)]


def test_no_bug_is_left_out() -> None:
    assert {int(row[0].strip("| ")) for row in BUGS} == set(range(1, 40))


@pytest.mark.parametrize("row", BUGS, ids=lambda row: row[0].strip("| "))
def test_what_is_said_to_be_shown_is_shown_by_a_test(row: list[str]) -> None:
    verdict, shown = row[2], row[3]
    named = re.findall(r"`([^`:]+)(?:::(\w+))?`", shown)
    assert bool(named) or verdict.startswith("not yet built"), "a verdict needs a test"
    path = ""
    for file, function in named:
        path = path if file == "…" else file
        assert (ROOT / path).exists(), path
        if function:
            assert f"def {function}(" in (ROOT / path).read_text(), f"{path} has no {function}"


@pytest.mark.parametrize("key", sorted(INEFFECTIVE))
def test_each_key_without_effect_is_told_with_its_reason(key: str) -> None:
    assert f"| `{key}` | {INEFFECTIVE[key]} |" in DOCUMENT
