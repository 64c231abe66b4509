"""Intervals and tests against hand-worked and published numbers, or an independent implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as distributions
from statsmodels.stats.contingency_tables import mcnemar

from matrix import stats


def test_a_t_interval_worked_by_hand() -> None:
    """Mean 2, s = 1, n = 3: half-width 4.3027 / sqrt(3)."""
    found = stats.mean_interval([1.0, 2.0, 3.0])
    assert found == pytest.approx((2.0, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)


def test_a_geometric_interval_is_the_t_interval_of_logarithms() -> None:
    """Doubling every value doubles the interval."""
    once, twice = stats.geometric_interval([1.0, 2.0, 4.0]), stats.geometric_interval([2.0, 4.0, 8.0])
    assert once is not None
    assert twice is not None
    assert once.value == pytest.approx(2.0)
    assert twice == pytest.approx(tuple(2 * end for end in once))


@pytest.mark.parametrize("values", [[1.0], [], [1.0, math.nan], [1.0, math.inf]])
def test_no_interval_from_one_value_or_from_nonsense(values: list[float]) -> None:
    """A bound that is NaN would pass a careless gate: there is none instead."""
    assert stats.mean_interval(values) is None
    assert stats.geometric_interval(values) is None
    assert stats.quantile_bounds([*values, math.nan], 0.5, 0.95) == (None, None)


def test_welchs_interval_is_scipys() -> None:
    """Unequal sizes and variances; and no width without any spread."""
    first, second = [1.0, 1.2, 0.9, 1.1], [0.5, 0.9, 0.7]
    expected = distributions.ttest_ind(first, second, equal_var=False).confidence_interval(0.90)
    found = stats.welch_interval(first, second, 0.90)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert stats.welch_interval([0.5] * 5, [0.4] * 5) == pytest.approx((0.1, 0.1, 0.1))
    assert stats.welch_interval([0.5], [0.4, 0.5]) is None


def test_five_launches_bound_the_median_launch_at_96_9_percent() -> None:
    """1 - 0.5^5."""
    assert stats.median_launch_confidence(5) == 0.96875


def _profile_score(lost: int, won: int, n: int, delta: float) -> float:
    """Tango's statistic with the restricted likelihood maximised numerically instead of in closed form."""

    def negative(p: float) -> float:
        ours, theirs, rest = p + delta, p, 1 - 2 * p - delta
        terms = ((lost, ours), (won, theirs), (n - lost - won, rest))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in terms if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    p = float(optimize.minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x)
    return (lost - won - n * delta) / math.sqrt(n * (2 * p + delta - delta**2))


@pytest.mark.parametrize(
    ("lost", "won", "n"), [(12, 2, 50), (30, 21, 3000), (5, 1, 10_000), (60, 40, 1000), (1, 4, 200)]
)
def test_tangos_interval_inverts_the_score_of_a_numerically_restricted_likelihood(lost: int, won: int, n: int) -> None:
    """At both ends the score is the normal quantile, +-1.959964, with no formula shared."""
    found = stats.tango_interval(lost, won, n)
    assert found.value == (lost - won) / n
    assert _profile_score(lost, won, n, found.low) == pytest.approx(1.959964, abs=1e-4)
    assert _profile_score(lost, won, n, found.high) == pytest.approx(-1.959964, abs=1e-4)


def test_tangos_interval_without_discordance_worked_by_hand() -> None:
    """With no discordant pair the score is -sqrt(n d / (1 - d)), so each end is z^2 / (n + z^2)."""
    edge = 1.959964**2 / (3000 + 1.959964**2)
    assert stats.tango_interval(0, 0, 3000) == pytest.approx((0.0, -edge, edge), abs=1e-7)


def test_tangos_interval_is_antisymmetric() -> None:
    """Swapping the two models mirrors the interval."""
    there, back = stats.tango_interval(9, 4, 500), stats.tango_interval(4, 9, 500)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize(("lost", "won", "n"), [(-1, 0, 10), (6, 5, 10), (0, 0, 0)])
def test_impossible_counts_are_refused(lost: int, won: int, n: int) -> None:
    """More discordant pairs than pairs is a bug of the caller."""
    with pytest.raises(ValueError, match="cannot be"):
        stats.tango_interval(lost, won, n)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (8, 2), (30, 30), (5, 17)])
def test_mcnemar_is_statsmodels_exact_test(lost: int, won: int) -> None:
    """Two implementations, one p-value."""
    expected = mcnemar(np.array([[50, lost], [won, 50]]), exact=True).pvalue if lost + won else 1.0
    assert stats.mcnemar_exact(lost, won) == pytest.approx(expected)


def test_clopper_pearson_without_an_event_is_the_rule_of_three() -> None:
    """0 of n: the upper end is 1 - 0.025^(1/n)."""
    found = stats.proportion_interval(0, 10_000)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 10_000))
