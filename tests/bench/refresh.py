"""Online, cached and mixed teachers: training time, final accuracy, and where each works best (seed 001's exercise).

    python -m tests.bench.refresh [--data embedded|PATH] [--seeds 5] [--examples 2000] [--epochs 6] [--shares 0.1 0.5]

Three conditions: a frozen teacher on fixed inputs; inputs augmented anew each epoch (words dropped and misspelt); a teacher that
is still being trained. `by example` keys the cache by the example whatever became of its text, as the seed does by index; where
inputs are fixed that is the same as by content. Staleness is KL(teacher now || logits served), mean over rows and over every
fourth step. Differences of accuracy are paired by seed, at 90 %: both ends are one-sided 95 % bounds. All but times repeats.
Modes step side by side, in turns drawn anew each batch; keep the machine quiet, times are a measurement.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import torch

from matrix import definitions, stats
from matrix.policy import parse_policy
from matrix.profile import Recipe
from matrix.stats import Interval
from matrix.workloads.data import load_splits
from matrix.workloads.models import train_tokenizer
from tests.bench.lessons import SIZES, Condition, Mode, Outcome, conditions, lesson, taught, trained

FIT = ("equal to the bit", "equivalent", "better")
"""Calls with which a mode may be preferred to online for its time."""


Found = Mapping[str, Sequence[Outcome]]
"""Outcomes by the mode's name, in the order of seeds."""


class Row(NamedTuple):
    """A mode over all seeds, beside online on the same seeds. `against` is a paired difference of accuracies, 90 %."""

    mode: Mode
    accuracy: Interval
    against: Interval
    time: Interval
    stale: float
    asked: float
    call: str


def difference(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> Interval:
    """Paired difference of accuracies, 90 %: its ends are one-sided 95 % bounds, as two one-sided tests ask (Schuirmann 1987)."""
    pairs = zip(ours, theirs, strict=True)
    found = stats.mean_interval([one.accuracy - other.accuracy for one, other in pairs], 0.9)
    assert found
    return found


def slower(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> Interval:
    """Paired ratio of times, 95 %."""
    found = stats.geometric_interval([one.seconds / other.seconds for one, other in zip(ours, theirs, strict=True)])
    assert found
    return found


def call(apart: Interval, margin: float) -> str:
    """What the interval of a difference of accuracies says."""
    if -margin < apart.low and apart.high < margin:
        return "equivalent"
    return "worse" if apart.high < 0 else "better" if apart.low > 0 else "cannot be told"


def row(mode: Mode, ours: Sequence[Outcome], online: Sequence[Outcome], margin: float) -> Row:
    """The mode's row."""
    level = stats.mean_interval([one.accuracy for one in ours])
    assert level
    apart = difference(ours, online)
    same = all(one.weights == other.weights for one, other in zip(ours, online, strict=True))
    said = "equal to the bit" if same else call(apart, margin)
    return Row(
        mode, level, apart, slower(ours, online), fmean(o.stale for o in ours), fmean(o.asked for o in ours), said
    )


def points(interval: Interval, sign: str = "") -> str:
    """Shares in percent."""
    value, low, high = (f"{100 * part:{sign}.2f}" for part in interval)
    return f"{value} [{low}, {high}]"


def ratio_of(interval: Interval) -> str:
    """A ratio and its interval."""
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The condition's modes, as Markdown."""
    yield "| mode | rows asked, % | staleness, nats | accuracy, % [95 %] | - online, points [90 %] | | time / online [95 %] |"
    yield "|---|---|---|---|---|---|---|"
    for one in rows:
        level, apart = points(one.accuracy), points(one.against, "+")
        cells = (
            one.mode.name,
            f"{100 * one.asked:.1f}",
            f"{one.stale:.2g}",
            level,
            apart,
            one.call,
            ratio_of(one.time),
        )
        yield f"| {' | '.join(cells)} |"


def best(rows: Sequence[Row], found: Found) -> str:
    """Which mode works best, from the intervals: fit in accuracy first, then faster than online, then fastest."""
    faster = [one for one in rows[1:] if one.time.high < 1]
    sound = sorted((one for one in faster if one.call in FIT), key=lambda one: one.time.value)
    if sound:
        first = sound[0]
        alike = [one.mode.name for one in sound[1:] if slower(found[one.mode.name], found[first.mode.name]).low <= 1]
        others = f" (or {' or '.join(alike)}: the times cannot be told apart)" if alike else ""
        return f"{first.mode.name}{others}: {first.call} in accuracy, in {ratio_of(first.time)} of online's time"
    doubted = [one.mode.name for one in faster if one.call == "cannot be told"]
    if doubted:
        return f"cannot be told: {' and '.join(doubted)} took less time than online, at an accuracy that is not decided"
    return f"online: {'every faster mode is worse' if faster else 'no mode was faster beyond doubt'}"


def refreshed(rows: Sequence[Row], found: Found, margin: float) -> Iterator[str]:
    """What each refreshing does, beside the same cache without it."""
    for mixed in rows:
        if not mixed.mode.share:
            continue
        kept = next(one for one in rows if (one.mode.share, one.mode.by_example) == (0.0, mixed.mode.by_example))
        apart = difference(found[mixed.mode.name], found[kept.mode.name])
        stale = f"staleness {kept.stale:.2g} -> {mixed.stale:.2g} nats"
        yield f"{mixed.mode.name} against {kept.mode.name}: {call(apart, margin)}, {points(apart, '+')} points, {stale}."


def judged(condition: Condition, found: Found, margin: float) -> Iterator[str]:
    """The condition's table, and its answer."""
    online = found[condition.modes[0].name]
    rows = [row(mode, found[mode.name], online, margin) for mode in condition.modes]
    yield f"\n### {condition.title}\n"
    yield from table(rows)
    yield " ".join([f"\nWorks best: {best(rows, found)}.", *refreshed(rows, found, margin)])


def asked_for(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=2_000)
    parser.add_argument("--evaluation", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--teacher-epochs", type=int, default=4)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.5])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("--seeds: at least 2, or there is no interval")
    if not all(0 < share <= 1 for share in options.shares):
        parser.error("--shares: each above 0, and at most 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train every student, judge, print."""
    options = asked_for(arguments)
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        train_examples=options.examples,
        evaluation_examples=options.evaluation,
        validation_examples=100,
        teacher_epochs=options.teacher_epochs,
        student_epochs=options.epochs,
        **SIZES[options.size],
    )
    splits = load_splits(options.data, recipe)
    tokenizer = train_tokenizer(splits.train.texts)
    margin = parse_policy(definitions.text("gates.toml")).margins.trained_accuracy
    sizes = f"{len(splits.train)} examples, {options.epochs} epochs, {options.seeds} seeds, models: {options.size}"
    print(f"{splits.source}: {sizes}")
    print(f"equivalent: the difference's 90 % interval lies within +-{100 * margin:g} points")
    asked = conditions(options.shares)
    found: list[dict[str, list[Outcome]]] = [{mode.name: [] for mode in condition.modes} for condition in asked]
    for seed in range(options.seeds):
        seeded = recipe.model_copy(update={"seed": recipe.seed + 10 * seed})
        frozen = taught(seeded, splits, tokenizer, recipe.teacher_epochs)
        for condition, outcomes in zip(asked, found, strict=True):
            for name, outcome in trained(lesson(condition, seeded, splits, tokenizer, frozen), condition.modes).items():
                outcomes[name].append(outcome)
    for condition, outcomes in zip(asked, found, strict=True):
        print("\n".join(judged(condition, outcomes, margin)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
