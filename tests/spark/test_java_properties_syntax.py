"""``spark.properties`` is read exactly as ``java.util.Properties`` and Spark's driver read it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muster.spark import java_properties
from muster.spark.errors import PropertiesError
from muster.spark.properties import read_properties
from tests.spark.property_texts import KEY
from tests.spark.recorded import JAVA_PROPERTIES, read

RECORDED = read(JAVA_PROPERTIES)

characters = st.characters(exclude_categories=("Cs",))


@pytest.mark.parametrize("answer", RECORDED, ids=[str(number) for number in range(len(RECORDED))])
def test_texts_are_read_as_java_reads_them(answer: dict[str, Any]) -> None:
    if answer["java"] is None:
        with pytest.raises(PropertiesError, match=r"line [0-9]+"):
            java_properties.parse(answer["text"])
    else:
        assert java_properties.parse(answer["text"]) == answer["java"]


@pytest.mark.parametrize("answer", RECORDED, ids=[str(number) for number in range(len(RECORDED))])
def test_values_are_trimmed_as_sparks_driver_trims_them(answer: dict[str, Any]) -> None:
    if answer["spark"] is not None:
        expected = {key: value for key, value in answer["spark"].items() if key == KEY}
        assert dict(read_properties(answer["text"])) == expected
        assert dict(read_properties(answer["text"].encode())) == expected


def test_the_record_holds_enough_of_each_kind() -> None:
    assert sum(answer["java"] is None for answer in RECORDED) > 20
    assert sum(KEY in (answer["spark"] or ()) for answer in RECORDED) > 50


@given(st.dictionaries(st.text(characters), st.text(characters)))
@example({"": "", " a": "\\", "#b": " c ", "d=e": "f\n"})
def test_what_java_would_store_is_read_back(pairs: dict[str, str]) -> None:
    assert java_properties.parse(_stored(pairs)) == pairs


@given(st.text(characters))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        java_properties.parse(text)
    except PropertiesError as error:
        assert error.line is not None
        assert 1 <= error.line <= text.count("\n") + text.count("\r") + 1


def test_a_bad_escape_names_its_logical_line_and_no_value() -> None:
    with pytest.raises(PropertiesError) as caught:
        read_properties("a=1\n# note\nspark.secret=hunter2 \\\n   \\u12x4\n")
    assert caught.value.line == 3
    assert "hunter2" not in caught.value.message


def _stored(pairs: dict[str, str]) -> str:
    """``Properties.store``'s ``saveConvert``: escapes, and the first blank of a value, every blank of a key."""
    lines = []
    for key, value in pairs.items():
        escaped = "".join("\\ " if c == " " else _saved(c) for c in key)
        first = "\\ " if value.startswith(" ") else ""
        rest = "".join(map(_saved, value[1:] if first else value))
        lines.append(f"{escaped}={first}{rest}\n")
    return "".join(lines)


def _saved(character: str) -> str:
    named = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\f": "\\f"}
    if character in named:
        return named[character]
    return "\\" + character if character in "\\=:#!" else character
