"""What a simulation found, and what is asked of it.

`covers`: a nominal 95 % bound must cover in 94 % of trials or more; at 15,000 trials one that covers 95 % is 5.6 standard
errors away. `errs`: where an exact test is wrong in 5 %, it may be wrong in no more, with a slack of 3.3 standard errors: by
chance alone one of thirty such rows fails for one seed in seventy, and the seeds are fixed. `shown`: what is not done, or a
known weakness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tests.making import policy

LEAST, MOST, SLACK = 0.94, 0.05, 3.3
MARGINS = policy().margins
LAUNCHES = 5
WHOLE = 10
"""Whole rules and gates take so many times fewer trials: each is a hundred times the work."""
SPARSE = ((3_000, 0.002, 0.004), (3_000, 0.002, 0.01), (10_000, 0.002, 0.003), (10_000, 0.006, 0.02))
"""Examples, true drop, and share of discordant pairs."""
Rng = np.random.Generator


@dataclass(frozen=True)
class Row:
    """What was simulated, how often it should and did happen, and what is asked of it."""

    what: str
    nominal: float
    seen: float
    trials: int
    asked: Literal["covers", "errs", "shown"]

    @property
    def limit(self) -> float | None:
        """The least coverage or the most errors; None where nothing is asked."""
        slack = SLACK * math.sqrt(MOST * (1 - MOST) / self.trials)
        return {"covers": LEAST, "errs": MOST + slack, "shown": None}[self.asked]

    @property
    def holds(self) -> bool:
        """Whether it is as often as was asked."""
        if self.limit is None:
            return True
        return self.seen >= self.limit if self.asked == "covers" else self.seen <= self.limit

    def __str__(self) -> str:
        asked = {"covers": "≥", "errs": "≤", "shown": ""}[self.asked]
        limit = "shown only" if self.limit is None else f"{asked} {100 * self.limit:5.2f} %"
        verdict = "" if self.limit is None else "holds" if self.holds else "FAILS"
        return f"{self.what:<92} {100 * self.nominal:5.1f} %  {100 * self.seen:6.2f} %  {limit:<10}  {verdict}".rstrip()


def share(trials: int, seed: int, happens: Callable[[Rng], bool]) -> float:
    """How often something happens in trials from one seed."""
    rng = np.random.default_rng(seed)
    return sum(happens(rng) for _ in range(trials)) / trials


def covering(what: str, trials: int, seed: int, happens: Callable[[Rng], bool], nominal: float = 0.95) -> Row:
    """A row that a bound must cover."""
    return Row(what, nominal, share(trials, seed, happens), trials, "covers")


def erring(what: str, trials: int, seed: int, happens: Callable[[Rng], bool]) -> Row:
    """A row of what should happen in at most 5 % of trials."""
    return Row(what, MOST, share(trials, seed, happens), trials, "errs")


def pairs(rng: Rng, n: int, drop: float, discordant: float) -> tuple[int, int]:
    """Pairs lost and won, of n, with a true drop and a share of discordant pairs."""
    lost, won, _ = rng.multinomial(n, ((discordant + drop) / 2, (discordant - drop) / 2, 1 - discordant))
    return int(lost), int(won)
