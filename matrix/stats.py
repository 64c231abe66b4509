"""Intervals and tests, each with its source. Pure; SciPy does the distributions. Where there is no bound the answer is None.

Never pools samples of different launches: with a launch-to-launch spread of 5 % that cuts a nominal 95 % bound to 57 %
coverage (simulated; tests/bench/coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy import stats as distributions

from matrix.ranks import lower_rank, upper_rank


class Interval(NamedTuple):
    """An estimate with a two-sided interval."""

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval after a monotonic increasing function."""
        return Interval(function(self.value), function(self.low), function(self.high))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Student's t-interval of a mean; None for fewer than two values or any that is not finite."""
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):  # noqa: PLR2004 - one value has no spread
        return None
    middle = float(np.mean(values))
    half = float(distributions.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(middle, middle - half, middle + half)


def welch_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Interval of the difference of two means with unequal variances (Welch 1947; Satterthwaite's degrees of freedom).

    None for fewer than two values on a side or any that is not finite; of no width where neither side has any spread.
    """
    if min(len(first), len(second)) < 2 or not all(map(math.isfinite, (*first, *second))):  # noqa: PLR2004 - no spread
        return None
    parts = [(float(np.mean(side)), float(np.var(side, ddof=1)) / len(side), len(side)) for side in (first, second)]
    difference, error = parts[0][0] - parts[1][0], parts[0][1] + parts[1][1]
    if error == 0:
        return Interval(difference, difference, difference)
    freedom = error**2 / sum(part**2 / (n - 1) for _, part, n in parts)
    half = float(distributions.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(error)
    return Interval(difference, difference - half, difference + half)


def geometric_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """t-interval of the mean logarithm, back on the scale of the values: the geometric mean over launches.

    None for fewer than two values, or any that is not finite and positive.
    """
    if not all(math.isfinite(value) and value > 0 for value in values):
        return None
    found = mean_interval([math.log(value) for value in values], confidence)
    return found.map(math.exp) if found else None


def quantile_bounds(samples: Sequence[float], q: float, confidence: float) -> tuple[float | None, float | None]:
    """One-sided lower and upper order-statistic bounds of the q-quantile (matrix.ranks); None where n is too small.

    A sample that is not a number makes both bounds None: it would sort anywhere.
    """
    if not all(map(math.isfinite, samples)):
        return None, None
    ordered = sorted(samples)
    low, high = lower_rank(len(ordered), q, confidence), upper_rank(len(ordered), q, confidence)
    return (None if low is None else ordered[low - 1]), (None if high is None else ordered[high - 1])


def median_launch_confidence(launches: int) -> float:
    """Confidence with which the largest of k launches' values bounds the median launch: `1 - 0.5^k` (5 launches: 96.9 %)."""
    return 1 - 0.5**launches


def _tango_score(lost: int, won: int, n: int, delta: float) -> float:
    """Tango's score statistic for a difference `delta` of two paired proportions (Tango 1998, equations 12 to 14)."""
    a = 2 * n
    b = -lost - won + (2 * n - lost + won) * delta
    c = -won * delta * (1 - delta)
    p = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * p + delta * (1 - delta))
    difference = lost - won - n * delta
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def tango_interval(lost: int, won: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a difference of paired proportions `(lost - won) / n` (Tango, Statistics in Medicine 17, 1998).

    Args:
        lost: pairs in which only the first is right.
        won: pairs in which only the second is right.
        n: all pairs.
        confidence: two-sided.

    Raises:
        ValueError: the counts are impossible.
    """
    if min(lost, won) < 0 or lost + won > n or n < 1:
        raise ValueError(f"{lost} and {won} of {n} pairs cannot be")
    z = float(distributions.norm.ppf((1 + confidence) / 2))
    value, edge = (lost - won) / n, 1 - 1e-12

    def root(sign: float, left: float, right: float) -> float:
        def excess(delta: float) -> float:
            return _tango_score(lost, won, n, delta) - sign * z

        if excess(left) * excess(right) > 0:  # the interval reaches the edge of what is possible
            return right if sign < 0 else left
        return float(optimize.brentq(excess, left, right, xtol=1e-12))

    return Interval(value, root(1.0, -edge, value), root(-1.0, value, edge))


def mcnemar_exact(lost: int, won: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely (McNemar 1947, binomial form); 1 with neither."""
    return float(distributions.binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0


def proportion_interval(count: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval of a proportion (Biometrika 26, 1934)."""
    found = distributions.binomtest(count, n).proportion_ci(confidence, method="exact")
    return Interval(count / n, float(found.low), float(found.high))


def bounded_mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Normal interval of a mean over many examples (a mean KL divergence); None where it is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or not np.isfinite(array).all():  # noqa: PLR2004 - one value has no spread
        return None
    middle = float(array.mean())
    half = float(distributions.norm.ppf((1 + confidence) / 2) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(middle, middle - half, middle + half)
