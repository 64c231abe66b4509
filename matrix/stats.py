"""Intervals and tests, each with its source. Pure; SciPy does the distributions. Where there is no bound the answer is None.

Never pools samples of different launches: with a launch-to-launch spread of 5 % that cuts a nominal 95 % bound to 59 %
coverage (simulated; tests/bench/coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
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


class _Welch(NamedTuple):
    difference: float
    error: float
    freedom: float


def _welch(first: Sequence[float], second: Sequence[float]) -> _Welch | None:
    """The difference of two means, its standard error, and Satterthwaite's degrees of freedom (of no meaning where that is 0)."""
    sides = (first, second)
    if min(map(len, sides)) < 2 or not all(map(math.isfinite, (*first, *second))):  # noqa: PLR2004 - no spread
        return None
    parts = [float(np.var(side, ddof=1)) / len(side) for side in sides]
    error = math.sqrt(sum(parts))
    # by shares of the error: the squares of the formula as it is printed underflow where the spread is small
    shares = [math.sqrt(part) / error if error else 1.0 for part in parts]
    freedom = 1 / sum(share**4 / (len(side) - 1) for share, side in zip(shares, sides, strict=True))
    return _Welch(float(np.mean(first)) - float(np.mean(second)), error, freedom)


def welch_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Interval of the difference of two means with unequal variances (Welch 1947; Satterthwaite's degrees of freedom).

    None for fewer than two values on a side or any that is not finite; of no width where neither side has any spread.
    """
    told = _welch(first, second)
    if told is None:
        return None
    half = float(distributions.t.ppf((1 + confidence) / 2, told.freedom)) * told.error if told.error else 0.0
    return Interval(told.difference, told.difference - half, told.difference + half)


def welch_p(first: Sequence[float], second: Sequence[float], margin: float) -> float:
    """p-value that two means differ by less than `margin`: the larger of two one-sided Welch tests (Schuirmann 1987).

    At most 5 % where `welch_interval` at 90 % lies within the margin; 1 where there is no interval.
    """
    told = _welch(first, second)
    if told is None:
        return 1.0
    if told.error == 0:
        return 0.0 if abs(told.difference) < margin else 1.0
    return float(distributions.t.sf((margin - abs(told.difference)) / told.error, told.freedom))


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


def _counted(lost: int, won: int, n: int) -> None:
    if min(lost, won) < 0 or lost + won > n or n < 1:
        raise ValueError(f"{lost} and {won} of {n} pairs cannot be")


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
    _counted(lost, won, n)
    z = float(distributions.norm.ppf((1 + confidence) / 2))
    value, edge = (lost - won) / n, 1 - 1e-12

    def root(sign: float, left: float, right: float) -> float:
        def excess(delta: float) -> float:
            return _tango_score(lost, won, n, delta) - sign * z

        if excess(left) * excess(right) > 0:  # the interval reaches the edge of what is possible
            return right if sign < 0 else left
        return float(optimize.brentq(excess, left, right, xtol=1e-12))

    return Interval(value, root(1.0, -edge, value), root(-1.0, value, edge))


def drop_p(lost: int, won: int, n: int, limit: float) -> float:
    """One-sided p-value that `(lost - won) / n` is below `limit` (Tango 1998, equation 24: his test of equivalence).

    A normal approximation: where every discordant pair is a loss, and few are expected, it errs in up to 6.7 % of cases.

    Raises:
        ValueError: the counts are impossible.
    """
    _counted(lost, won, n)
    return float(distributions.norm.cdf(_tango_score(lost, won, n, limit)))


def tango_p(lost: int, won: int, n: int, margin: float) -> float:
    """p-value that two paired proportions differ by less than `margin`: the larger of two one-sided score tests.

    At most 5 % where `tango_interval` at 90 % lies within the margin (Schuirmann 1987).

    Raises:
        ValueError: the counts are impossible.
    """
    return max(drop_p(lost, won, n, margin), drop_p(won, lost, n, margin))


def mcnemar_exact(lost: int, won: int) -> float:
    """Two-sided exact p-value that wins and losses are equally likely (McNemar 1947, binomial form); 1 with neither."""
    return float(distributions.binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0


def proportion_interval(count: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval of a proportion (Biometrika 26, 1934)."""
    found = distributions.binomtest(count, n).proportion_ci(confidence, method="exact")
    return Interval(count / n, float(found.low), float(found.high))


def flip_p(count: int, n: int, limit: float) -> float:
    """Exact p-value that a proportion is below `limit`: P(X <= count), X ~ Binomial(n, limit); 1 without an example.

    At most 5 % where the upper end of `proportion_interval` at 90 % is at most the limit.
    """
    return float(distributions.binom.cdf(count, n, min(limit, 1.0)))


def poisson_quantile(mean: float, share: float) -> int:
    """The smallest count that a Poisson variable of this mean does not exceed with probability `share`."""
    return int(distributions.poisson.ppf(share, mean)) if mean > 0 else 0


def bounded_mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Normal interval of a mean over many examples (a mean KL divergence); None where it is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or not np.isfinite(array).all():  # noqa: PLR2004 - one value has no spread
        return None
    middle = float(array.mean())
    half = float(distributions.norm.ppf((1 + confidence) / 2) * array.std(ddof=1) / math.sqrt(array.size))
    return Interval(middle, middle - half, middle + half)


def clustered_interval(
    values: npt.NDArray[np.float64], clusters: npt.NDArray[np.int64], confidence: float = 0.95
) -> Interval | None:
    """t-interval of a mean over values of which those of one cluster are not independent; None for one cluster, or not finite.

    The mean is a ratio of sums over clusters; its variance is that of the residuals (Cochran, Sampling Techniques, 3rd edition
    1977, equation 6.13, without its correction for a finite population).
    """
    names, index = np.unique(clusters, return_inverse=True)
    k = len(names)
    if k < 2 or not np.isfinite(values).all():  # noqa: PLR2004 - one cluster has no spread
        return None
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    middle = float(values.mean())
    error = math.sqrt(k / (k - 1) * float(((sums - middle * counts) ** 2).sum())) / len(values)
    half = float(distributions.t.ppf((1 + confidence) / 2, k - 1)) * error
    return Interval(middle, middle - half, middle + half)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in their order (Holm, Scandinavian Journal of Statistics 6, 1979).

    The k-th smallest of m is multiplied by m - k + 1, is no smaller than the one before it, and at most 1.
    """
    adjusted, largest = [1.0] * len(ps), 0.0
    for passed, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - passed) * ps[index]))
        adjusted[index] = largest
    return adjusted
