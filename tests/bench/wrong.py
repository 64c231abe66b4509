"""How often what is not equivalent is called so, and how often a gate fires on what keeps its limit. Run by coverage.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from matrix import stats
from matrix.compare import (
    Comparison,
    Outputs,
    Seeded,
    adjusted,
    export_delta,
    ratio_to_reference,
    same_checkpoint,
    trained,
)
from matrix.gates import _asked
from matrix.policy import Gate
from tests.bench.simulated import LAUNCHES, MARGINS, MOST, SPARSE, WHOLE, Rng, Row, erring, pairs, share
from tests.making import EAGER, INT8, ORT, TORCH, case_of, evidence, logits, policy

MEMBERS = 9
"""Comparisons of a set."""
RIGHT = np.zeros(10_000, dtype=np.int64)
POLICY = policy()
_tango_p = cache(stats.tango_p)


def _tango(rng: Rng, n: int, drop: float, discordant: float) -> bool:
    return _tango_p(*pairs(rng, n, drop, discordant), n, drop) <= MOST


def _flip(rng: Rng, n: int) -> bool:
    return stats.flip_p(int(rng.binomial(n, MARGINS.flip_rate)), n, MARGINS.flip_rate) <= MOST


def _seeds(rng: Rng, n: int, spread: float) -> tuple[list[float], list[float]]:
    """Accuracies of n seeds on either side, whose means are exactly the margin apart."""
    return rng.normal(0.9, spread, n).tolist(), rng.normal(0.9 + MARGINS.trained_accuracy, spread, n).tolist()


def _welch(rng: Rng, n: int, spread: float) -> bool:
    return stats.welch_p(*_seeds(rng, n, spread), MARGINS.trained_accuracy) <= MOST


def equivalence(trials: int) -> Iterator[Row]:
    """Tests of equivalence where the truth is at the margin: how often they say 'equivalent'."""
    for n, drop, discordant in ((1_500, 0.002, 0.002), *SPARSE):
        said = f"Tango, {n} pairs, {100 * discordant:g} % discordant, at a margin of {100 * drop:g} points"
        yield erring(f"{said}: equivalent", trials, 11, partial(_tango, n=n, drop=drop, discordant=discordant))
    seen = share(trials, 12, partial(_tango, n=1_400, drop=0.002, discordant=0.002))
    yield Row("Tango, 1400 pairs, every discordant one a loss, at 0.2 points: equivalent", MOST, seen, trials, "shown")
    for n in (1_500, 10_000):
        yield erring(f"flip rate of {n} examples, at its limit: below it", trials, 13, partial(_flip, n=n))
    for n, spread in ((5, 0.002), (5, 0.005), (20, 0.005)):
        said = f"Welch, {n} seeds a side, spread {100 * spread:g} points, at the margin"
        yield erring(f"{said}: equivalent", trials, 14, partial(_welch, n=n, spread=spread))


def _set(rng: Rng) -> dict[int, Comparison]:
    ps = [stats.welch_p(*_seeds(rng, 5, 0.002), MARGINS.trained_accuracy) for _ in range(MEMBERS)]
    return {i: Comparison("confirmed" if p <= MOST else "inconclusive", (), p) for i, p in enumerate(ps)}


def _any(found: dict[int, Comparison]) -> bool:
    return any(one.answer == "confirmed" for one in found.values())


def several(trials: int) -> Iterator[Row]:
    """Nine comparisons at once, none of which is equivalent: how often any is confirmed."""
    few, said = trials // 4, f"{MEMBERS} Welch tests at the margin"
    seen = share(few, 15, lambda rng: _any(_set(rng)))
    yield Row(f"{said}, each for itself: any confirmed", MOST, seen, few, "shown")
    yield erring(f"{said}, adjusted by Holm: any confirmed", few, 15, lambda rng: _any(adjusted(_set(rng))))


def _outputs(answers: npt.NDArray[np.int64]) -> Outputs:
    """Logits with these answers, and labels that are all of class 0."""
    return Outputs(np.eye(3)[answers], np.zeros(len(answers), dtype=np.int64))


def _disagreeing(rng: Rng, n: int, drop: float, discordant: float, flips: float = 0.0) -> tuple[Outputs, Outputs]:
    """Two devices on one checkpoint: one loses `drop`, and `flips` more answers move between two wrong classes."""
    shares = ((discordant + drop) / 2, (discordant - drop) / 2, flips, 1 - discordant - flips)
    kinds = rng.choice(4, n, p=shares)
    ours, theirs = np.array([1, 0, 1, 0])[kinds], np.array([0, 1, 2, 0])[kinds]
    return _outputs(ours), _outputs(theirs)


def _checkpoint(rng: Rng, n: int, drop: float, discordant: float, flips: float = 0.0) -> Comparison:
    return same_checkpoint(*_disagreeing(rng, n, drop, discordant, flips), MARGINS)


def _exports_alike(rng: Rng) -> Comparison:
    ours, theirs = _disagreeing(rng, len(RIGHT), MARGINS.accuracy, 0.003)
    return export_delta((ours, _outputs(RIGHT)), (theirs, _outputs(RIGHT)), MARGINS)


def _exports_small(rng: Rng) -> Comparison:
    pair = (_disagreeing(rng, len(RIGHT), MARGINS.export_delta, 0.008)[0], _outputs(RIGHT))
    return export_delta(pair, pair, MARGINS)


def _ratio(rng: Rng) -> Comparison:
    """Log-ratios of two hosts that are a factor of the margin apart; both variants half as fast as the reference."""
    ours = rng.normal(math.log(MARGINS.ratio / 2), 0.03, LAUNCHES)
    return ratio_to_reference(ours.tolist(), rng.normal(math.log(1 / 2), 0.03, LAUNCHES).tolist(), MARGINS)


def _students(rng: Rng) -> Comparison:
    ours, theirs = ([Seeded(i, a, (1.0,) * 10) for i, a in enumerate(side)] for side in _seeds(rng, 5, 0.002))
    return trained(ours, theirs, MARGINS)


RULES: dict[str, Callable[[Rng], Comparison]] = {
    "the same checkpoint, accuracy at its margin": partial(_checkpoint, n=10_000, drop=0.002, discordant=0.003),
    "the same checkpoint, 1500 examples": partial(_checkpoint, n=1_500, drop=0.002, discordant=0.002),
    "the same checkpoint, flips at their limit": partial(
        _checkpoint, n=10_000, drop=0.0, discordant=0.001, flips=0.004
    ),
    "an export's delta, difference at its margin": _exports_alike,
    "an export's delta, as large as it may be": _exports_small,
    "a ratio, at its margin": _ratio,
    "trained students, accuracy at its margin": _students,
}


def rules(trials: int) -> Iterator[Row]:
    """Whole rules with the truth at their margins: how often they confirm."""
    for seed, (what, rule) in enumerate(RULES.items(), start=16):

        def confirms(rng: Rng, rule: Callable[[Rng], Comparison] = rule) -> bool:
            return rule(rng).answer == "confirmed"

        yield erring(f"rule for {what}: confirmed", trials // WHOLE, seed, confirms)


def _gate(metric: str, limit: dict[str, float]) -> Gate:
    warm = {"mode": ("warm",), "length": (16,)}
    where: dict[str, Any] = {"suite": "inference_latency", "variants": ("ort_int8",), "where": warm}
    if metric == "accuracy_delta":
        where = {"suite": "export_accuracy", "variants": ("onnx_int8",)}
    return Gate(id=metric, why="equal", targets=("cpu-openvino",), metric=metric, **where, **limit)


def _fires(gate: Gate, **held: Any) -> bool:  # noqa: ANN401 - what a bundle holds
    """Whether a gate fails on a bundle that holds so much.

    Asked without the check of the policy: it refuses a limit of zero, which nothing could prove, and here that is the point.
    """
    asked = POLICY.model_copy(update={"gate": (gate,)})
    _, (result,) = _asked(asked, case_of([evidence(**held)]))
    return result.answer == "fail"


def _timed(rng: Rng, gate: Gate) -> bool:
    """Two equal variants in five launches that differ by 5 %, with 3 % within a launch."""
    launch = rng.normal(math.log(0.010), 0.05, (LAUNCHES, 1))
    samples = {cell: np.exp(launch + rng.normal(0, 0.03, (LAUNCHES, 100))).tolist() for cell in (EAGER, ORT)}
    return _fires(gate, samples=samples)


def _exported(rng: Rng, gate: Gate) -> bool:
    """An export and its reference that are equally often right on 3,000 examples, 1 % of them apart."""
    answers = np.array([[1, 0, 0], [0, 1, 0]])[:, rng.choice(3, 3_000, p=(0.005, 0.005, 0.99))]
    outputs = {cell: logits(side.tolist()) for cell, side in zip((INT8, TORCH), answers, strict=True)}
    return _fires(gate, outputs=outputs, labels=np.zeros(3_000, dtype=np.int64))


GATES: dict[str, Callable[[Rng], bool]] = {
    "a ratio of at most 1": partial(_timed, gate=_gate("ratio", {"at_most": 1.0})),
    "a p95 of at most what it is": partial(
        _timed, gate=_gate("p95_s", {"at_most": 0.010 * math.exp(0.03 * 1.6448536)})
    ),
    "an accuracy delta of at least 0": partial(_exported, gate=_gate("accuracy_delta", {"at_least": 0.0})),
    "an accuracy delta of at least -0.6 points": partial(_exported, gate=_gate("accuracy_delta", {"at_least": -0.006})),
}


def gates(trials: int) -> Iterator[Row]:
    """Gates on equal variants, whole: from a bundle's samples to the verdict."""
    for seed, (what, fires) in enumerate(GATES.items(), start=30):
        yield erring(f"gate on equal variants, {what}: fails", trials // WHOLE, seed, fires)
