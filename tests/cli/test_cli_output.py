"""kubectl's habits on the way out."""

from __future__ import annotations

from muster.cli.output import table


def test_a_tables_columns_are_three_spaces_apart_and_lines_end_with_text() -> None:
    assert table(("NAME", "AGE"), [("a-long-name", "5s"), ("b", "")]) == "NAME          AGE\na-long-name   5s\nb"
