"""Why samples of different launches are never pooled: how often an upper bound really covers, by simulation.

    python -m tests.bench.coverage

The median launch's median is bounded from above. Launches differ by a log-normal factor, samples within one by another.
Pooled: the 95 % order-statistic bound of all samples together. Worst launch: the largest of five launches' bounds.
"""

from __future__ import annotations

import numpy as np

from matrix.ranks import upper_rank
from matrix.stats import median_launch_confidence

LAUNCHES, SAMPLES, TRIALS, WITHIN = 5, 100, 4_000, 0.03


def coverage(between: float) -> tuple[float, float]:
    """How often the pooled and the worst-launch bound lie above the true median, with this launch-to-launch spread."""
    rng = np.random.default_rng(1)
    launches = rng.normal(0, between, (TRIALS, LAUNCHES, 1)) + rng.normal(0, WITHIN, (TRIALS, LAUNCHES, SAMPLES))
    pooled_rank, rank = upper_rank(LAUNCHES * SAMPLES, 0.5, 0.95), upper_rank(SAMPLES, 0.5, 0.95)
    assert pooled_rank
    assert rank
    pooled = np.sort(launches.reshape(TRIALS, -1), axis=1)[:, pooled_rank - 1]
    worst = np.sort(launches, axis=2)[:, :, rank - 1].max(axis=1)
    return float((pooled >= 0).mean()), float((worst >= 0).mean())


if __name__ == "__main__":
    print(f"{LAUNCHES} launches of {SAMPLES} samples, {100 * WITHIN:.0f} % spread within a launch, {TRIALS} trials")
    print(f"nominal: pooled 95 %, worst launch {100 * median_launch_confidence(LAUNCHES):.1f} %")
    for spread in (0.0, 0.01, 0.03, 0.05, 0.10):
        pooled, worst = coverage(spread)
        print(
            f"{100 * spread:4.0f} % between launches: pooled covers {100 * pooled:5.1f} %, worst launch {100 * worst:5.1f} %"
        )
