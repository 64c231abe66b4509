"""Do two devices train alike? The tensors of their first steps, and the students that they train. Pure.

What is certain (a corrupted row, losses that part early) contradicts whatever its count; what is estimated needs its minimum
first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from matrix import stats
from matrix.confirm import Comparison, outside, points, settled, too_few, unsaid
from matrix.policy import Margins
from matrix.sample import Tensor
from matrix.verdict import Reason

_FIRST_STEPS: Final = 10
"""How many first losses must agree."""

_Place = tuple[str, tuple[int, ...], int]


def _place(tensor: Tensor) -> _Place:
    return tensor.name, tensor.shape, tensor.batch


def _pairs(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each of our tensors with each of theirs of the same name, shape and batch."""
    held: dict[_Place, list[Tensor]] = {}
    for other in theirs:
        held.setdefault(_place(other), []).append(other)
    return [(mine, other) for mine in ours for other in held.get(_place(mine), ())]


def _faulty(tensor: Tensor) -> bool:
    return tensor.rmse is None or tensor.corrupted_rows > 0


def _excess(pair: tuple[Tensor, Tensor], margins: Margins) -> float:
    """Our RMSE as a multiple of its bound, infinite where there is none."""
    mine, other = pair
    if mine.rmse is None or other.rmse is None:
        return math.inf
    factor = margins.tensor_factor_small if other.elements < margins.tensor_small else margins.tensor_factor
    bound = factor * other.rmse + other.tolerance / 10
    return mine.rmse / bound if bound else math.inf if mine.rmse else 0.0


def _repeats(pair: tuple[Tensor, Tensor]) -> bool:
    """Whether the step done again gives the same tensor, within a tenth of the tolerance that the authority has."""
    return pair[0].rerun is not None and pair[0].rerun <= pair[1].tolerance / 10


def _tensor_reasons(
    ours: Sequence[Tensor], pairs: Sequence[tuple[Tensor, Tensor]], margins: Margins
) -> tuple[Reason, ...]:
    worst = max(pairs, key=lambda pair: _excess(pair, margins))
    corrupted, moved = [t for t in ours if _faulty(t)], [mine for mine, other in pairs if not _repeats((mine, other))]
    return (
        Reason(
            rule="tensor RMSE",
            number=f"{worst[0].name} of batch {worst[0].batch}: {_excess(worst, margins):.2f} times its bound, "
            f"the most of {len(pairs)}",
            threshold=f"at most 1; beyond {margins.tensor_contradiction:g} contradicts",
            remedy="find which kernel errs",
        ),
        Reason(
            rule="corrupted rows",
            number=f"{sum(t.corrupted_rows for t in corrupted)} rows in {len(corrupted)} tensors",
            threshold="none, and every element a number where the reference's is",
            remedy="find which kernel errs",
        ),
        Reason(
            rule="rerun",
            number=f"{len(moved)} of {len(pairs)} tensors change when the step is done again",
            threshold="none by more than a tenth of its tolerance",
            remedy="find what is random",
        ),
    )


def _lacking_tensors(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], pairs: Sequence[tuple[Tensor, Tensor]], margins: Margins
) -> Comparison | None:
    """Too few batches of too few shapes, or a tensor that only one of the two has."""
    batches: dict[tuple[int, ...], set[int]] = {}
    for mine, _ in pairs:
        batches.setdefault(mine.shape, set()).add(mine.batch)
    shapes = sum(len(seen) >= margins.min_batches for seen in batches.values())
    if shapes < margins.min_shapes:
        return too_few(f"shapes of {margins.min_batches} batches each", shapes, margins.min_shapes)
    alone = {_place(one) for one in ours} ^ {_place(one) for one in theirs}
    return (
        unsaid(f"{len(alone)} tensors are only on one side", "none", "run the same battery on both") if alone else None
    )


def tensors(ours: Sequence[Tensor], theirs: Sequence[Tensor], margins: Margins) -> Comparison:
    """Tensors of the same training steps on two devices, each beside its own fp64 reference.

    Each RMSE at most `m` times the authority's and a tenth of the tolerance, no corrupted row, the same when done again. An
    authority with a corrupted row says nothing. Deterministic: p is 0 or 1.
    """
    faulty = sum(_faulty(one) for one in theirs)
    if faulty:
        return unsaid(f"{faulty} of the authority's tensors are corrupted", "none", "measure the authority again")
    pairs = _pairs(ours, theirs)
    if not pairs:
        return too_few("tensors in common", 0, margins.min_shapes * margins.min_batches)
    reasons = _tensor_reasons(ours, pairs, margins)
    largest = max(_excess(pair, margins) for pair in pairs)
    if largest > margins.tensor_contradiction or any(map(_faulty, ours)):
        return settled(1.0, reasons, contradicted=True)
    lacking = _lacking_tensors(ours, theirs, pairs, margins)
    within = largest <= 1 and all(map(_repeats, pairs))
    return lacking or settled(0.0 if within else 1.0, reasons, contradicted=False)


class Seeded(NamedTuple):
    """A student trained from one seed on one device: its accuracy, and its first losses without dropout."""

    seed: int
    accuracy: float
    first_losses: tuple[float, ...]


def _parted(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The largest difference of the first losses, relative to the authority's; None where it cannot be told.

    Ours that is not a number is infinitely far; the authority's that is not, or is 0, says nothing.
    """
    if min(len(ours), len(theirs)) < _FIRST_STEPS or not all(math.isfinite(loss) and loss for loss in theirs):
        return None
    first = list(zip(ours, theirs, strict=False))[:_FIRST_STEPS]
    return max(abs(a - b) / abs(b) if math.isfinite(a) else math.inf for a, b in first)


def _by_seed(students: Iterable[Seeded]) -> list[float]:
    """The mean accuracy of each seed: a seed trained twice is one observation."""
    found: dict[int, list[float]] = {}
    for one in students:
        found.setdefault(one.seed, []).append(one.accuracy)
    return [sum(several) / len(several) for several in found.values()]


def _loss_reason(parted: Sequence[float | None], margins: Margins) -> Reason:
    told = [one for one in parted if one is not None]
    seen = f"at most {max(told):.1e} apart" if told else "never compared"
    untold = f", {len(parted) - len(told)} untold" if len(told) < len(parted) else ""
    return Reason(
        rule="first losses",
        number=f"of {len(parted)} pairs of one seed: {seen}{untold}",
        threshold=f"within {margins.first_losses:g} of the authority's; "
        f"beyond {margins.tensor_contradiction * margins.first_losses:g} contradicts",
        remedy="train the same seeds on both devices, and find the first step that differs",
    )


def _accuracy_reason(difference: stats.Interval, margins: Margins) -> Reason:
    return Reason(
        rule="accuracy over seeds",
        number=points(difference),
        threshold=f"90 % interval within ±{100 * margins.trained_accuracy:.1f} points",
        remedy="train more seeds; a real difference stays",
    )


def trained(ours: Sequence[Seeded], theirs: Sequence[Seeded], margins: Margins) -> Comparison:
    """Students trained on two devices: Welch's test of equivalence over seeds, and the first losses of the same seeds.

    Losses just beyond the margin confirm nothing; `tensor_contradiction` times beyond it they contradict, for rounding is
    carried from step to step, and a wrong operator is not rounding.
    """
    parted = [_parted(a.first_losses, b.first_losses) for a in ours for b in theirs if a.seed == b.seed]
    reason = _loss_reason(parted, margins)
    if any(one is not None and one > margins.tensor_contradiction * margins.first_losses for one in parted):
        return settled(1.0, (reason,), contradicted=True)
    mine, other = _by_seed(ours), _by_seed(theirs)
    if min(len(mine), len(other)) < margins.min_seeds:
        return too_few("seeds", min(len(mine), len(other)), margins.min_seeds)
    difference = stats.welch_interval(mine, other, 0.90)
    if difference is None:
        return too_few("finite accuracies", 0, margins.min_seeds)
    agree = bool(parted) and all(one is not None and one <= margins.first_losses for one in parted)
    p = stats.welch_p(mine, other, margins.trained_accuracy) if agree else 1.0
    reasons = (_accuracy_reason(difference, margins), reason)
    return settled(p, reasons, contradicted=outside(difference, margins.trained_accuracy))
