from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import quantity


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("0", "0"),
        ("1000", "1k"),
        ("2000m", "2"),
        ("1.5Gi", "1536Mi"),
        ("1e1", "10"),
        ("1024", "1024"),
        ("1e3", "1e3"),
        ("12E5", "1200e3"),
        ("1500M", "1500M"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1.1Gi", "1181116006400m"),
        ("0.5Ki", "512"),
        ("1023Ki", "1023Ki"),
        ("1024Ki", "1Mi"),
        ("0.0000000001", "1n"),
        ("100u", "100u"),
        ("1Ei", "1Ei"),
        ("16Ei", "9223372036854775807"),
        ("1e-3", "1e-3"),
        (1.5, "1500m"),
        (3, "3"),
    ],
)
def test_canonical_form(written, canonical):
    assert quantity.canonical(written) == canonical


@pytest.mark.parametrize(
    "text", ["", "1_000", "NaN", "1 Gi", "1i", "0.1mi", "aoeu", "1.1.M", "٣", "1e", "1+1.0M", "-3.01e-"]
)
def test_refuses_what_the_original_refuses(text):
    with pytest.raises(ValueError, match="quantit"):
        quantity.parse(text)


def test_rounding_is_away_from_zero():
    assert quantity.value("100m") == 1
    assert quantity.value("-100m") == -1
    assert quantity.milli("100u") == 1
    assert str(quantity.parse("100u").round_up(-3)) == "1m"


def test_sum_keeps_the_form_of_the_left_one():
    assert str(quantity.parse("1Gi") + quantity.parse("1Gi")) == "2Gi"
    assert str(quantity.parse("0") + quantity.parse("1Gi")) == "1Gi"


_SUFFIXES = {"": 1, "m": Fraction(1, 1000), "u": Fraction(1, 10**6), "k": 1000, "M": 10**6, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "e2": 100, "E-1": Fraction(1, 10)}  # fmt: skip


@given(
    st.integers(0, 10**7),
    st.integers(0, 999),
    st.sampled_from(sorted(_SUFFIXES)),
    st.sampled_from(["", "-", "+"]),
)
def test_agrees_with_fractions(whole, thousandths, suffix, sign):
    text = f"{sign}{whole}.{thousandths:03}{suffix}"
    exact = (Fraction(whole) + Fraction(thousandths, 1000)) * _SUFFIXES[suffix] * (-1 if sign == "-" else 1)
    found = quantity.parse(text)
    error = Fraction(found.nano, quantity.NANO) - exact
    assert abs(error) < Fraction(1, quantity.NANO)
    assert error == 0 or (error > 0) == (exact > 0)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["", "n", "m", "k", "Ki", "Gi", "e3"]))
def test_canonical_form_means_the_same_and_is_stable(number, suffix):
    once = quantity.canonical(f"{number}{suffix}")
    assert quantity.canonical(once) == once
    assert quantity.compare(once, f"{number}{suffix}") == 0
