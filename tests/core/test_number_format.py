"""`format_number`: within 0.1 %, integers exact; the one place where tables format numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_optim.core.number_format import format_number, format_value
from tests.support.printed_numbers import is_near, parse


@given(st.floats(-1e300, 1e300, allow_subnormal=False))
def test_a_float_parses_back_to_within_a_thousandth(value):
    text = format_number(value)
    assert is_near(parse(text), value)
    assert len(text.lstrip("-")) <= len("999,999,999"), "short enough for a column"


@given(st.integers())
def test_an_integer_is_exact(value):
    assert parse(format_number(value)) == value
    assert format_value(value) == str(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.2768e-05, "3.277e-05"), (0.001, "0.001"), (0.00015, "0.00015"), (0.1 * 0.3, "0.03"), (0.0, "0.0"), (0, "0"),
        (1.0, "1"), (12345.0, "12,345"), (13152.9, "1.315e+04"), (1e20, "1e+20"), (23824, "23,824"), (None, ""),
        (math.inf, "inf"), (math.nan, "nan"),
    ],
    ids=str,
)  # fmt: skip
def test_numbers_as_tables_print_them(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0.1 * 0.3, 0.999], "[0.03, 0.999]"), ({"k": 5000, "alpha": 1 / 3}, "{k: 5000, alpha: 0.3333}"),
        (1.0, "1.0"), (1e6, "1000000.0"), (1e20, "1e+20"), (True, "true"), (None, "null"), ("decoupled", "decoupled"),
    ],
    ids=str,
)  # fmt: skip
def test_values_as_yaml(value, text):
    assert format_value(value) == text
