"""Intervals and tests against hand-worked and published numbers, or an independent implementation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as distributions
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

from matrix import stats
from tests.bench.coverage import PARTS
from tests.bench.simulated import Row

COUNTS = st.integers(1, 5_000).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)).filter(lambda c: c[0] + c[1] <= n)
)
"""Pairs lost, pairs won, and all pairs."""
VALUES = st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=8)
PS = st.lists(st.floats(0, 1), max_size=12)
NEAR = 1e-6
"""How near to 5 % a p-value and an interval may disagree: root finding and rounding stop there."""


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


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_clopper_pearson_is_newcombes_table(count: int, n: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 5."""
    found = stats.proportion_interval(count, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_mcnemar_worked_by_hand() -> None:
    """8 lost and 2 won: 2 (1 + 10 + 45) / 2^10."""
    assert stats.mcnemar_exact(8, 2) == pytest.approx(0.109375)


def test_tangos_own_example() -> None:
    """Contact lenses (Tango 1998, section 6.1, table V): 44 pairs, one lost, none won; margin 0.1: p = 0.044, limit -0.096.

    His one-sided test is the larger of our two, and his lower limit ours of a win.
    """
    assert stats.tango_p(1, 0, 44, 0.1) == pytest.approx(0.044, abs=5e-4)
    assert stats.tango_interval(0, 1, 44, 0.90).low == pytest.approx(-0.096, abs=5e-4)


def test_equivalence_without_discordance_worked_by_hand() -> None:
    """The score at the margin d is sqrt(n d / (1 - d)): z = 1.675 of 1,400 pairs and 0.2 points. At 5 % from 1,351 on."""
    assert stats.tango_p(0, 0, 1_400, 0.002) == pytest.approx(0.5 * math.erfc(1.675 / math.sqrt(2)), abs=2e-4)
    assert stats.tango_p(0, 0, 1_351, 0.002) < 0.05 < stats.tango_p(0, 0, 1_350, 0.002)


@given(COUNTS, st.floats(0.001, 0.5))
def test_tangos_test_and_his_interval_say_the_same(counts: tuple[int, int, int], margin: float) -> None:
    """It is below 5 % where the 90 % interval lies within the margin, and nowhere else."""
    p, found = stats.tango_p(*counts, margin), stats.tango_interval(*counts, 0.90)
    if abs(p - 0.05) > NEAR:
        assert (p < 0.05) == (-margin < found.low and found.high < margin)


@given(COUNTS, st.floats(0.001, 0.5), st.floats(1.0, 2.0))
def test_equivalence_is_symmetric_and_easier_within_a_wider_margin(
    counts: tuple[int, int, int], margin: float, wider: float
) -> None:
    """Which model is called the first decides nothing; p falls as the margin grows, and is always a probability."""
    lost, won, n = counts
    p = stats.tango_p(lost, won, n, margin)
    assert p == pytest.approx(stats.tango_p(won, lost, n, margin), abs=1e-9)
    assert 0 <= stats.tango_p(lost, won, n, min(0.999, margin * wider)) <= p + 1e-9 <= 1 + 1e-9


def test_equivalence_of_impossible_counts_is_refused() -> None:
    """As the interval refuses them."""
    with pytest.raises(ValueError, match="6 and 5 of 10 pairs cannot be"):
        stats.tango_p(6, 5, 10, 0.1)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.5])
def test_welchs_equivalence_test_is_statsmodels(margin: float) -> None:
    """Unequal sizes and variances; alike or not."""
    first, second = [1.0, 1.2, 0.9, 1.1], [0.8, 1.1, 0.9]
    expected = ttost_ind(np.array(first), np.array(second), -margin, margin, usevar="unequal")[0]
    assert stats.welch_p(first, second, margin) == pytest.approx(expected)


def test_welchs_equivalence_of_what_has_no_spread_is_certain() -> None:
    """Five equal values on either side: within or not; from one value nothing can be told."""
    assert stats.welch_p([0.5] * 5, [0.4] * 5, 0.2) == 0.0
    assert stats.welch_p([0.5] * 5, [0.4] * 5, 0.05) == 1.0
    assert stats.welch_p([0.5], [0.5, 0.5], 0.2) == 1.0
    assert stats.welch_p([0.5, math.nan], [0.5, 0.5], 0.2) == 1.0


@given(VALUES, VALUES, st.floats(0.01, 5))
def test_welchs_test_and_his_interval_say_the_same(first: list[float], second: list[float], margin: float) -> None:
    """It is below 5 % where the 90 % interval lies within the margin, and nowhere else."""
    p, found = stats.welch_p(first, second, margin), stats.welch_interval(first, second, 0.90)
    assert found is not None
    if abs(p - 0.05) > NEAR:
        assert (p < 0.05) == (-margin < found.low and found.high < margin)


def test_a_flip_rate_without_a_flip_worked_by_hand() -> None:
    """0.995^n: 598 examples are the fewest that prove 0.5 % at 5 %; no example proves nothing."""
    assert stats.flip_p(0, 600, 0.005) == pytest.approx(0.995**600)
    assert stats.flip_p(0, 598, 0.005) <= 0.05 < stats.flip_p(0, 597, 0.005)
    assert stats.flip_p(0, 0, 0.005) == 1.0


@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.001, 0.9))
def test_a_flip_rates_test_and_its_interval_say_the_same(counts: tuple[int, int], limit: float) -> None:
    """It is below 5 % where Clopper and Pearson's upper end is within the limit."""
    p = stats.flip_p(*counts, limit)
    if abs(p - 0.05) > NEAR:
        assert (p < 0.05) == (stats.proportion_interval(*counts, 0.90).high <= limit)


def test_holm_worked_by_hand() -> None:
    """4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 that may be no smaller than the one before it."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


@pytest.mark.parametrize("ps", [[0.04], [0.01, 0.01, 0.5], [1.0, 0.0, 0.02, 0.0], [0.03, 0.011, 0.012, 0.6, 0.013]])
def test_holm_is_statsmodels(ps: list[float]) -> None:
    """Ties, zeros and ones included."""
    assert stats.holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))


@given(PS)
def test_holm_keeps_the_order_and_makes_nothing_surer(ps: list[float]) -> None:
    """Adjusted values are between their own and 1, and ordered as they were."""
    adjusted = stats.holm(ps)
    assert all(p <= found <= 1 for p, found in zip(ps, adjusted, strict=True))
    assert [adjusted[i] for i in sorted(range(len(ps)), key=ps.__getitem__)] == sorted(adjusted)


@pytest.mark.parametrize(("q", "least"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_a_quantiles_bound_begins_where_the_published_ranks_do(q: float, least: int) -> None:
    """One sample fewer has none; at 99 % see test_ranks."""
    samples = [float(i) for i in range(1, least + 1)]
    assert stats.quantile_bounds(samples, q, 0.95)[1] == least
    assert stats.quantile_bounds(samples[1:], q, 0.95)[1] is None


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_bounds_cover_and_proofs_err_about_as_often_as_they_say(part: Callable[[int], Iterator[Row]]) -> None:
    """Five standard errors wide here: a formula that is wrong shows; tests/bench/coverage.py asks for tenths of a percent."""
    for row in part(400):
        wide = 5 * math.sqrt(0.05 * 0.95 / row.trials)
        assert row.asked != "covers" or row.seen >= 0.95 - wide, str(row)
        assert row.asked != "errs" or row.seen <= 0.05 + wide, str(row)


def test_pooling_launches_or_measuring_one_after_the_other_is_seen_to_fail() -> None:
    """A nominal 95 % covers 59 % where launches are pooled (the README says so), and nothing under drift without pairs."""
    seen = {row.what: row.seen for part in PARTS[1:3] for row in part(4_000)}
    assert seen["median launch, 5 % between launches: all samples pooled"] == pytest.approx(0.59, abs=0.05)
    assert seen["ratio of equal variants under 30 % drift: one after the other"] < 0.1
