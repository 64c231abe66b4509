"""How often each bound covers, each proof of equivalence is wrong and each gate fires on equals, by simulation.

    python -m tests.bench.coverage [TRIALS]

Every row uses the function that judgement uses; simulated.py says what is asked of it. Exits with 1 where a row does not hold.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import stats as distributions

from matrix import stats
from matrix.ranks import upper_rank
from tests.bench.simulated import LAUNCHES, SPARSE, WHOLE, Rng, Row, covering, pairs, share
from tests.bench.wrong import equivalence, gates, rules, several

TRIALS, SAMPLES, WITHIN, BETWEEN = 15_000, 100, 0.03, 0.05
Floats = npt.NDArray[np.float64]


def quantiles(trials: int) -> Iterator[Row]:
    """The upper order-statistic bound of one launch's quantile."""
    draws: dict[str, Callable[[Rng, int], Floats]] = {
        "normal": lambda rng, n: rng.normal(size=n),
        "log-normal": lambda rng, n: rng.lognormal(size=n),
    }
    for (name, draw), (q, n) in product(draws.items(), ((0.5, SAMPLES), (0.95, SAMPLES), (0.95, 59))):
        z = float(distributions.norm.ppf(q))
        truth = math.exp(z) if name == "log-normal" else z
        bounded = partial(_bounded, draw=draw, n=n, q=q, truth=truth)
        yield covering(f"p{100 * q:.0f} of {n} {name} samples, upper bound by ranks", trials, 1, bounded)


def _bounded(rng: Rng, draw: Callable[[Rng, int], Floats], n: int, q: float, truth: float) -> bool:
    bound = stats.quantile_bounds(draw(rng, n).tolist(), q, 0.95)[1]
    return bound is not None and bound >= truth


def pooled(trials: int, between: float) -> tuple[float, float]:
    """How often the pooled and the worst-launch bound lie above the median launch's median."""
    rng = np.random.default_rng(2)
    launches = rng.normal(0, between, (trials, LAUNCHES, 1)) + rng.normal(0, WITHIN, (trials, LAUNCHES, SAMPLES))
    pooled_rank, rank = upper_rank(LAUNCHES * SAMPLES, 0.5, 0.95), upper_rank(SAMPLES, 0.5, 0.95)
    assert pooled_rank
    assert rank
    together = np.sort(launches.reshape(trials, -1), axis=1)[:, pooled_rank - 1]
    worst = np.sort(launches, axis=2)[:, :, rank - 1].max(axis=1)
    return float((together >= 0).mean()), float((worst >= 0).mean())


def over_launches(trials: int) -> Iterator[Row]:
    """The median launch and the mean launch, bounded from launches that differ."""
    for between in (0.0, 0.03, BETWEEN, 0.10):
        together, worst = pooled(trials, between)
        said = f"median launch, {100 * between:.0f} % between launches"
        yield Row(f"{said}: all samples pooled", 0.95, together, trials, "shown")
        yield Row(f"{said}: largest of {LAUNCHES} launches' bounds", 0.96875, worst, trials, "covers")
    yield covering(
        f"median launch: largest of {LAUNCHES} launches' values",
        trials,
        3,
        lambda rng: bool(rng.lognormal(0, BETWEEN, LAUNCHES).max() >= 1),
        stats.median_launch_confidence(LAUNCHES),
    )

    def t_bound(rng: Rng) -> bool:
        found = stats.geometric_interval(rng.lognormal(0, BETWEEN, LAUNCHES).tolist(), 0.90)
        return found is not None and found.high >= 1

    yield covering(f"geometric mean launch: t-bound on the logarithms of {LAUNCHES}", trials, 4, t_bound)


def _drifted(rng: Rng, *, sequential: bool) -> tuple[Floats, Floats]:
    """Log-medians of two equal variants in five launches of a host that slows down by 30 % from first to last.

    Paired: both run in each launch. Sequential: all launches of one variant, then all of the other.
    """
    noise = rng.normal(0, 0.02, 2 * LAUNCHES)
    drift = np.linspace(0, math.log(1.3), 2 * LAUNCHES)
    if sequential:
        return drift[:LAUNCHES] + noise[:LAUNCHES], drift[LAUNCHES:] + noise[LAUNCHES:]
    # a launch runs its cells in random order
    order = rng.permuted(np.arange(2 * LAUNCHES).reshape(LAUNCHES, 2), axis=1)
    return drift[order[:, 0]] + noise[:LAUNCHES], drift[order[:, 1]] + noise[LAUNCHES:]


def ratios(trials: int) -> Iterator[Row]:
    """The interval of a ratio of two equal variants while the host drifts."""

    def paired(rng: Rng) -> bool:
        ours, theirs = _drifted(rng, sequential=False)
        found = stats.mean_interval((ours - theirs).tolist())
        return found is not None and found.low <= 0 <= found.high

    def sequential(rng: Rng) -> bool:
        ours, theirs = _drifted(rng, sequential=True)
        found = stats.welch_interval(ours.tolist(), theirs.tolist())
        return found is not None and found.low <= 0 <= found.high

    yield covering("ratio of equal variants under 30 % drift: paired within launches", trials, 5, paired)
    seen = share(trials, 6, sequential)
    yield Row("ratio of equal variants under 30 % drift: one after the other", 0.95, seen, trials, "shown")


def _holds_zero(rng: Rng, first: int, second: int, spread: float) -> bool:
    """Whether the interval of a difference of two equal means holds 0."""
    found = stats.welch_interval(rng.normal(0, 1, first).tolist(), rng.normal(0, spread, second).tolist())
    return found is not None and found.low <= 0 <= found.high


def welch(trials: int) -> Iterator[Row]:
    """The interval of a difference of two means with unequal variances."""
    for first, second, spread in ((5, 5, 1.0), (5, 5, 4.0), (5, 8, 4.0)):
        said = f"Welch's interval, {first} against {second} values, spread 1 against {spread:g}"
        yield covering(said, trials, 7, partial(_holds_zero, first=first, second=second, spread=spread))


_tango = cache(stats.tango_interval)
_proportion = cache(stats.proportion_interval)


def examples(trials: int) -> Iterator[Row]:
    """Bounds over examples: Tango's of a paired difference, Clopper and Pearson's of a proportion."""
    for n, drop, discordant in SPARSE:
        rng = np.random.default_rng(8)
        found = [_tango(*pairs(rng, n, drop, discordant), n, 0.90) for _ in range(trials)]
        said = f"Tango, {n} pairs, {100 * discordant:g} % discordant, true drop {100 * drop:g} points"
        yield Row(f"{said}: upper bound", 0.95, float(np.mean([one.high >= drop for one in found])), trials, "covers")
        yield Row(f"{said}: lower bound", 0.95, float(np.mean([one.low <= drop for one in found])), trials, "covers")
    seen = share(trials, 9, lambda rng: _tango(*pairs(rng, 3_000, 0.006, 0.006), 3_000, 0.90).low <= 0.006)
    yield Row("Tango, 3000 pairs, every one of 0.6 % discordant a loss: lower bound", 0.95, seen, trials, "shown")
    for n, rate in ((1_500, 0.005), (10_000, 0.005), (10_000, 0.9)):
        above = partial(_above, n=n, rate=rate)
        yield covering(f"Clopper-Pearson, {100 * rate:g} % of {n}: upper bound", trials, 10, above)


def _above(rng: Rng, n: int, rate: float) -> bool:
    return _proportion(int(rng.binomial(n, rate)), n, 0.90).high >= rate


PARTS = (quantiles, over_launches, ratios, welch, examples, equivalence, several, rules, gates)


def rows(trials: int) -> Iterator[Row]:
    """Everything."""
    for part in PARTS:
        yield from part(trials)


def main(trials: int) -> int:
    """Print the table as it grows; 1 where a row does not hold."""
    print(f"{'':<92} nominal    seen    asked")
    failed = 0
    for row in rows(trials):
        print(row, flush=True)
        failed += not row.holds
    said = f"{failed} FAIL" if failed else "all hold"
    print(f"{trials} trials a row, {trials // WHOLE} of whole rules and gates: {said}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else TRIALS))
