"""Order-statistic bounds against published minima and SciPy."""

from __future__ import annotations

import pytest
from scipy import stats as distributions

from matrix.ranks import least_samples, lower_rank, median_half_width, quantile, upper_rank


@pytest.mark.parametrize(
    ("q", "confidence", "least"),
    [
        (0.5, 0.95, 5),
        (0.9, 0.95, 29),
        (0.95, 0.95, 59),
        (0.99, 0.95, 299),
        (0.5, 0.99, 7),
        (0.9, 0.99, 44),
        (0.95, 0.99, 90),
        (0.99, 0.99, 459),
    ],
)
def test_the_fewest_samples_of_a_bound_are_the_published_ones(q: float, confidence: float, least: int) -> None:
    """One sample fewer has no bound at all: None, never the largest sample."""
    assert least_samples(q, confidence) == least
    assert upper_rank(least, q, confidence) == least
    assert upper_rank(least - 1, q, confidence) is None


@pytest.mark.parametrize("n", [5, 59, 100, 300, 1000])
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_ranks_are_scipys_binomial_quantiles(n: int, q: float) -> None:
    """The rank is ppf(confidence) + 1; the lower one is its mirror image."""
    rank = int(distributions.binom.ppf(0.95, n, q)) + 1
    assert upper_rank(n, q, 0.95) == (rank if rank <= n else None)
    mirrored = upper_rank(n, round(1 - q, 9), 0.95)
    assert lower_rank(n, q, 0.95) == (n + 1 - mirrored if mirrored else None)


def test_a_quantile_is_a_sample() -> None:
    """The inverse of the empirical distribution: no interpolation."""
    assert [quantile([3.0, 1.0, 2.0, 4.0], q) for q in (0.25, 0.5, 0.95)] == [1.0, 2.0, 4.0]


def test_the_medians_width_needs_six_samples() -> None:
    """Five samples have no two-sided 95 % interval of the median: 1 - 2 * 0.5^5 = 93.75 %."""
    assert median_half_width([1.0, 1.1, 0.9, 1.0, 1.0]) is None
    assert median_half_width([1.0, 1.2, 0.8, 1.0, 1.0, 1.0]) == pytest.approx(0.2)
