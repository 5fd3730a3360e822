"""Quantities: exact values, Kubernetes' canonical form, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.api.quantity import canonical, parse_quantity, to_bytes, to_millis


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        ("-1.5", "-1.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+2k", "2000"),
        ("500m", "0.5"),
        ("3u", "0.000003"),
        ("7n", "0.000000007"),
        ("2Gi", "2147483648"),
        ("1.5Ki", "1536"),
        ("1E", "1000000000000000000"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("12e-1", "1.2"),
        (2, "2"),
        (0.1, "0.1"),
    ],
)
def test_parses_exactly(text: str | float, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "Gi", "1gi", "1K", "1.2.3", "1e", "--1", "1e9999", "0x1", "ten", "1\n"]
)
def test_refuses_what_kubernetes_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        parse_quantity(text)


def test_a_boolean_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        parse_quantity(True)


def test_whole_units_and_thousandths_round_up() -> None:
    assert to_bytes("1.1") == 2
    assert to_bytes("1500m") == 2
    assert to_millis("0.0001") == 1
    assert to_millis("1.5") == 1500


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1536Mi", "1536Mi"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("100", "100"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("0", "0"),
        ("0Mi", "0"),
        ("0.0", "0"),
        ("0.5Ki", "512"),
        ("0.1Ki", "102400m"),
        ("-1024Ki", "-1Mi"),
        ("1e3", "1e3"),
        ("1000e3", "1e6"),
        ("12e1", "120"),
        ("1E", "1E"),
        ("0.0000000001", "1n"),
        (2, "2"),
        (0.5, "500m"),
    ],
)
def test_the_canonical_form_is_kubernetes_own(text: str | float, form: str) -> None:
    assert canonical(text) == form


suffixes = st.sampled_from(
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "e3", "e-3", "E6"]
)
quantities = st.builds(
    lambda whole, fraction, suffix: f"{whole}{fraction}{suffix}",
    st.integers(-9999, 9999),
    st.sampled_from(["", ".5", ".25", ".001"]),
    suffixes,
)


@given(quantities)
def test_the_canonical_form_is_stable_and_keeps_the_value_to_the_nano(text: str) -> None:
    form = canonical(text)
    assert canonical(form) == form
    assert abs(parse_quantity(form) - parse_quantity(text)) < Decimal("1e-9")


@given(st.text(max_size=8))
def test_no_text_does_worse_than_a_value_error(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError:
        return
    assert canonical(canonical(text)) == canonical(text)
