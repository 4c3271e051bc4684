"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnjax.cli._failures import Failure
from snnjax.cli._output import read_size, spell_size

pytestmark = pytest.mark.fast

UNITS = {
    "": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
units = st.sampled_from(list(UNITS))


@given(st.integers(1, 10**6), units, st.sampled_from(["", " ", "  "]), st.booleans())
def test_a_number_and_a_unit_is_their_product(number, unit, space, lower):
    text = f" {number}{space}{unit} "
    assert read_size(text.lower() if lower else text) == number * UNITS[unit]


@given(st.integers(0, 999), st.integers(0, 9), st.sampled_from(["kB", "MB", "GiB"]))
def test_a_fraction_is_cut_to_whole_bytes(whole, tenth, unit):
    exact = (10 * whole + tenth) * UNITS[unit] // 10
    if exact >= 1:
        assert read_size(f"{whole}.{tenth} {unit}") == exact


@given(st.integers(1, 9), st.integers(0, 15))
def test_powers_of_ten(digit, power):
    assert read_size(f"{digit}e{power}") == digit * 10**power
    assert read_size(f"{digit}E+{power}") == digit * 10**power


@given(st.integers(1, 10**15))
def test_a_spelt_size_is_read_back_to_the_digits_shown(size):
    again = read_size(spell_size(size))
    assert abs(again - size) <= max(0.05001 * 10 ** (3 * ((len(str(size)) - 1) // 3)), 0)
    assert (size >= 1000) or again == size


@given(st.integers(1, 10**15), st.integers(1, 10**15))
def test_spelling_keeps_the_order(a, b):
    small, large = sorted((a, b))
    assert read_size(spell_size(small)) <= read_size(spell_size(large))


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "0", "-1", "0.2", "8 Gigs", "1.2.3", "8GiB 2", "nan", "inf", "1e", "1e999", "..",
     "1e99999999999", "8e9GiB8", "9e18 kB", "8,000", "１２"],
)  # fmt: skip
def test_a_malformed_size_is_quoted_beside_an_example(text):
    with pytest.raises(Failure) as refused:
        read_size(text)
    said = str(refused.value)
    assert repr(text) in said and "8GiB" in said


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_refused(text):
    try:
        assert read_size(text) >= 1
    except Failure as failure:
        assert repr(text) in str(failure)
