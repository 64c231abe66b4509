"""SI inside, units outside."""

from __future__ import annotations

import math

import pytest

from matrix.units import show, show_interval


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "s", "12.3 ms"),
        (0.000508, "s", "508 µs"),
        (4.0, "s", "4.00 s"),
        (14_558_607, "bytes", "14.6 MB"),
        (0.893, "share", "89.30 %"),
        (-0.0045, "points", "-0.45 points"),
        (1.0723, "ratio", "1.072×"),  # noqa: RUF001 - the sign that is printed
        (2.02e11, "flop_per_s", "202 GFLOP/s"),
        (0.0, "s", "0 ns"),
        (1234.0, "", "1234"),
        (5.6e-14, "", "5.6e-14"),
    ],
)
def test_a_number_is_written_with_three_digits_and_its_unit(value: float, unit: str, text: str) -> None:
    """Each unit scales as people read it."""
    assert show(value, unit) == text


def test_no_number_is_a_dash_and_never_a_zero() -> None:
    """None is a dash; NaN and infinity say what they are."""
    assert [show(None, "s"), show(math.nan, "s"), show(math.inf, "s")] == ["—", "not a number", "unbounded"]


def test_an_interval_says_a_shared_unit_once() -> None:
    """Ends with different units keep their own."""
    assert show_interval(0.0081, 0.0085, "s") == "[8.10, 8.50] ms"
    assert show_interval(0.0009, 0.0011, "s") == "[900 µs, 1.10 ms]"
    assert show_interval(None, 1.0, "s") == "—"


def test_an_unknown_unit_is_refused() -> None:
    """A typo in a unit is an error, also where there is no number to print."""
    with pytest.raises(KeyError):
        show(None, "parsecs")
