"""Kubernetes quantities: expected values are those of apimachinery's documentation and ``quantity_test.go``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.quantity import MILLI, UNIT, QuantityError, amount, canonical, parse
from muster.cluster.resources import Resources


@pytest.mark.parametrize(
    ("text", "whole_units"),
    [
        ("0", 0), ("0n", 0), ("0Ki", 0), ("0e3", 0), ("-0", 0),
        ("1Ki", 1024), ("8Ki", 8 * 1024), ("7Mi", 7 * 1024**2), ("6Gi", 6 * 1024**3),
        ("5Ti", 5 * 1024**4), ("4Pi", 4 * 1024**5), ("3Ei", 3 * 1024**6), ("0.5Mi", 512 * 1024),
        ("5", 5), ("4k", 4_000), ("50k", 50_000), ("3M", 3_000_000), ("9G", 9 * 10**9), ("8T", 8 * 10**12),
        ("50P", 50 * 10**15), ("7E", 7 * 10**18),
        ("1E3", 1_000), ("1e3", 1_000), ("1E6", 10**6), ("1e9", 10**9), ("1e+3", 1_000), ("1E-0", 1),
        ("100.035k", 100_035),
        (".5k", 500), ("1.k", 1_000), ("+12", 12), ("-5", -5), ("-1Ki", -1024),
        ("9223372036854775807", 2**63 - 1), ("7.999999999999999999Ei", 9_223_372_036_854_775_807),
    ],
)  # fmt: skip
def test_reads_every_suffix(text: str, whole_units: int) -> None:
    assert amount(text) == whole_units


@pytest.mark.parametrize(
    ("text", "milli", "units"),
    [
        ("1m", 1, 1), ("1500m", 1500, 2), ("0.1m", 1, 1), ("100u", 1, 1), ("1n", 1, 1), ("0.0001", 1, 1),
        ("999u", 1, 1),
        ("1.0005", 1001, 2), ("1e-3", 1, 1), ("12.5", 12500, 13), ("-1.5", -1500, -2), ("-1u", -1, -1), ("2", 2000, 2),
    ],
)  # fmt: skip
def test_rounds_away_from_zero(text: str, milli: int, units: int) -> None:
    assert (amount(text, MILLI), amount(text, UNIT)) == (milli, units)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0", "0"), ("1", "1"), ("1.5", "1500m"), ("1.5Gi", "1536Mi"), ("1024", "1024"), ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("10Ki", "10Ki"), ("1024Mi", "1Gi"), ("0.5Ki", "512"), ("0.001Ki", "1024m"), ("1000", "1k"), ("100000", "100k"),
        ("1234567", "1234567"), ("1e3", "1e3"), ("1E3", "1e3"), ("1e4", "10e3"), ("1.5e3", "1500"), ("1e-3", "1e-3"),
        ("100m", "100m"), ("1000m", "1"), ("1000000n", "1m"), ("0.001n", "1n"), ("-1.5", "-1500m"), ("-1Ki", "-1Ki"),
        ("1E", "1E"), ("10.035Ki", "10275840m"), ("2432Mi", "2432Mi"), ("2550136832", "2550136832"),
    ],
)  # fmt: skip
def test_writes_the_canonical_form(text: str, form: str) -> None:
    assert str(parse(text)) == form


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", "++1", "- 1",
        " 1", "1 ", "1\n", ".", "-", "+", "e3", "1e", "1K", "1ki", "1KI", "1kB", "1GiB", "1,5", "1_000", "0x10",
        "٣", "nan", "inf",
    ],
)  # fmt: skip
def test_refuses_what_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError, match="is not a usable quantity: expected a number") as refused:
        amount(text)
    assert refused.value.text == text


@pytest.mark.parametrize("text", ["9223372036854775808", "8Ei", "10E", "1e19", "1e999999999", "-9Ei", "9" * 100])
def test_refuses_what_no_machine_has(text: str) -> None:
    with pytest.raises(QuantityError, match="larger than 9223372036854775807"):
        amount(text)


def test_refuses_absurdly_long_texts_and_shows_their_beginning() -> None:
    with pytest.raises(QuantityError, match=r"^'1{76}\.\.\. is not a usable quantity: longer than 128 characters$"):
        amount("1" * 100_000)


@given(
    st.integers(-(10**15), 10**15),
    st.integers(0, 999_999_999),
    st.sampled_from(["n", "u", "m", "", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E-3"]),
)
def test_canonical_forms_keep_the_amount(whole: int, billionths: int, suffix: str) -> None:
    value = parse(f"{whole}.{billionths:09}{suffix}")
    assert parse(str(value)).nanos == value.nanos


@given(st.integers(-(2**62), 2**62))
def test_writing_and_reading_an_amount_gives_it_back(value: int) -> None:
    assert amount(canonical(value, MILLI), MILLI) == value
    assert amount(canonical(value)) == value


def test_resources_are_read_in_their_own_units() -> None:
    given = {"cpu": "1500m", "memory": "1.5Gi", "pods": 110, "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"}
    resources = Resources.parse(given)
    assert [resources.get(name) for name in given] == [1500, 1610612736, 110, 2, 4194304]
    assert resources.get("ephemeral-storage") == 0
    assert resources.quantities() == {**given, "memory": "1536Mi", "pods": "110"}


def test_resources_round_up_as_kubernetes_does() -> None:
    resources = Resources.parse({"cpu": "0.0001", "memory": "100m", "example.com/slots": "1500m"})
    assert resources == Resources.of(cpu=1, memory=1, **{"example.com/slots": 2})


def test_resources_are_equal_by_value() -> None:
    assert Resources.parse({"memory": "1Gi", "cpu": "1", "nvidia.com/gpu": "0"}) == Resources.of(cpu=1000, memory=2**30)
    assert hash(Resources.of(cpu=1, memory=2)) == hash(Resources.of(memory=2, cpu=1))
    assert Resources.of(cpu=1) - Resources.of(cpu=1) == Resources()


def test_resources_add_subtract_and_multiply_exactly() -> None:
    pod = Resources.of(cpu=250, memory=2**53 + 1)
    assert pod.times(3) == Resources.of(cpu=750, memory=3 * (2**53 + 1))
    assert (pod + Resources.of(pods=1)) - pod.times(2) == Resources.of(cpu=-250, memory=-(2**53) - 1, pods=1)
    assert Resources.of(cpu=2, memory=1).largest(Resources.of(cpu=1, memory=5)) == Resources.of(cpu=2, memory=5)


@pytest.mark.parametrize("quantity", ["lots", None, True, [], "1e400"])
def test_resources_say_which_resource_was_wrong(quantity: object) -> None:
    with pytest.raises(QuantityError, match=r"is not a usable quantity: memory"):
        Resources.parse({"cpu": "1", "memory": quantity})  # type: ignore[dict-item]
