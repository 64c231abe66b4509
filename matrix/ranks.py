"""Order-statistic bounds of a quantile: distribution-free, and without SciPy, because sampling inside an image needs them.

For n independent samples and B ~ Binomial(n, q), the r-th smallest sample is an upper bound of the q-quantile with
confidence P(B <= r - 1), and a lower bound with confidence P(B >= r) (David & Nagaraja, Order Statistics, 7.1). Where n is
too small for any rank, there is no bound: `None`, never the largest sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache


@cache
def _cumulative(n: int, q: float) -> tuple[float, ...]:
    """P(B <= k) for k = 0..n, B ~ Binomial(n, q)."""
    log_p, log_r = math.log(q), math.log1p(-q)
    total, found = 0.0, []
    for k in range(n + 1):
        log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        total += math.exp(log_choose + k * log_p + (n - k) * log_r)
        found.append(total)
    return tuple(found)


def upper_rank(n: int, q: float, confidence: float) -> int | None:
    """The smallest rank (from 1) whose sample bounds the q-quantile from above; None where n is too small."""
    return next((k + 1 for k, mass in enumerate(_cumulative(n, q)[:n]) if mass >= confidence), None)


def lower_rank(n: int, q: float, confidence: float) -> int | None:
    """The largest rank (from 1) whose sample bounds the q-quantile from below; None where n is too small."""
    below = _cumulative(n, q)
    fitting = [k + 1 for k in range(n) if 1 - below[k] >= confidence]
    return fitting[-1] if fitting else None


def least_samples(q: float, confidence: float) -> int:
    """The fewest samples with which the q-quantile has an upper bound: `q^n <= 1 - confidence`."""
    return math.ceil(round(math.log(1 - confidence) / math.log(q), 9))


def quantile(samples: Sequence[float], q: float) -> float:
    """The smallest sample with at least a share q of all samples at or below it (the inverse of the empirical CDF)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(round(q * len(ordered), 9)) - 1)]


def median_half_width(samples: Sequence[float], confidence: float = 0.95) -> float | None:
    """Half the width of the median's two-sided interval, relative to the median; None where n is too small."""
    n, side = len(samples), (1 + confidence) / 2
    low, high = lower_rank(n, 0.5, side), upper_rank(n, 0.5, side)
    if low is None or high is None:
        return None
    ordered = sorted(samples)
    middle = quantile(ordered, 0.5)
    return (ordered[high - 1] - ordered[low - 1]) / 2 / middle if middle > 0 else None
