"""The fast path beside the HF Trainer and a plain loop: examples per second, end to end; and the accuracy that they lead to.

    python -m tests.bench.fast [--data embedded|PATH] [--examples 1600] [--online 128] [--blocks 6] [--epochs 6]
    python -m tests.bench.fast --accuracy [--data embedded|PATH] [--seeds 5] [--train 2000] [--epochs 6]

Speed: in each block every way trains a new student once over its examples, in an order that turns with the block; a ratio is
taken within its block, its interval over blocks. The Trainer that runs the teacher gets fewer examples, for its rate does not
depend on their number. What is timed is the whole call: feeding, collating, tables, optimizer. The teacher's pass, which the
cached ways need once, is timed in each block too, and counted once in `--epochs` epochs; "steady" is without it.

Accuracy: students of several seeds, each once by the Trainer and once by the fast path, from the same weights and for the same
number of examples; the same teacher. The Trainer is fed cached logits and pads to the longest, which is the same arithmetic as
online and 128 (printed: by how much loss and gradients differ), so that it ends. Equivalent is: the 90 % interval of the
difference lies within half a point (TOST at 5 %, Schuirmann 1987); better is a difference whose interval lies above.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch

from matrix import definitions
from matrix.profile import Recipe, parse_profiles
from matrix.stats import Interval, geometric_interval, mean_interval, welch_interval
from matrix.workloads.cache import Cache
from matrix.workloads.data import Splits, load_splits
from matrix.workloads.models import build_student, build_teacher, train_tokenizer
from matrix.workloads.teacher import Teachers
from matrix.workloads.train import accuracy, distillation_loss, dropout_off, encode, logits_of
from tests.bench.arms import (
    ARMS,
    BORROWING,
    ONLINE,
    OTHERS,
    Arm,
    CachedTrainer,
    Task,
    cached_rows,
    fast_path,
    nobody,
    padded_rows,
    trainer_same,
)

MARGIN = 0.005
"""Half a point of accuracy."""


def tell(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


def seconds(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def untrained(splits: Splits, recipe: Recipe, examples: int) -> Task:
    """A task for timing: weights decide no time, so nobody trained the teacher."""
    tokenizer, teacher = train_tokenizer(splits.train.texts), build_teacher(recipe, splits.names).eval()
    data = encode(tokenizer, splits.train, recipe.max_length)
    soft = torch.randn(len(data), len(splits.names), generator=torch.Generator().manual_seed(1))
    return Task(recipe, teacher, tokenizer, data, soft).part(examples)


def blocks(task: Task, names: Sequence[str], *, online: int, count: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds an example, by way and block, and of the teacher's pass by block."""
    few, found, passes = task.part(online), {name: [] for name in ARMS}, []  # type: ignore[var-annotated]
    for block in range(count + 1):  # the first is thrown away: allocators, kernels and imports warm up in it
        order = list(ARMS)[block % len(ARMS) :] + list(ARMS)[: block % len(ARMS)]
        for name in order:
            part = few if name == ONLINE else task
            student = build_student(task.recipe, names)
            spent = seconds(lambda: ARMS[name](student, part, 1)) / len(part.data)  # noqa: B023 - called at once
            tell(f"block {block} of {count}: {name}: {1 / spent:.1f} examples/s" + ("" if block else " (not counted)"))
            found[name] += [spent] if block else []
        spent = seconds(lambda: logits_of(task.teacher, few.data, nobody, "")) / len(few.data)
        passes += [spent] if block else []
    return found, passes


def shown(interval: Interval | None, digits: int = 1) -> str:
    """`3.1 [2.9, 3.4]`."""
    if interval is None:
        return "-"
    value, low, high = (f"{number:.{digits}f}" for number in interval)
    return f"{value} [{low}, {high}]"


def speed_table(found: dict[str, list[float]], passes: list[float], epochs: int) -> str:
    """Rates and ratios, with 95 % intervals of the geometric mean over blocks."""

    def whole(name: str) -> list[float]:
        once = [0.0] * len(passes) if name == ONLINE else [spent / epochs for spent in passes]
        return [steady + share for steady, share in zip(found[name], once, strict=True)]

    def rate(times: list[float]) -> str:
        return shown(geometric_interval([1 / spent for spent in times]))

    def times_as_fast(name: str, other: str, of: Callable[[str], list[float]]) -> str:
        return shown(geometric_interval([b / a for a, b in zip(of(name), of(other), strict=True)]), 2)

    best = min(OTHERS, key=lambda name: fmean(found[name]))
    head = (
        "way",
        "examples/s, steady",
        f"with the teacher's pass in {epochs} epochs",
        "x online, steady",
        "x online, with the pass",
        f"x the fastest other way, steady ({best})",
        f"x it without dropout ({BORROWING})",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in ARMS:
        cells = [name, rate(found[name]), rate(whole(name)), times_as_fast(name, ONLINE, found.__getitem__)]
        cells += [times_as_fast(name, ONLINE, whole)]
        cells += [times_as_fast(name, other, found.__getitem__) for other in (best, BORROWING)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def same_arithmetic(task: Task, names: Sequence[str]) -> tuple[float, float]:
    """Relative difference of loss and gradient: padded to 128 and online, against padded to the longest and cached.

    One batch, without dropout, whose random masks would differ.
    """
    part, recipe = task.part(task.recipe.student_batch), task.recipe
    student = build_student(recipe, names).train()
    dropout_off(student)
    parameters = list(student.parameters())
    rows = padded_rows(part)
    wide = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    fed = {name: wide[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        taught = part.teacher(**fed).logits
    weights = {"temperature": recipe.temperature, "alpha": recipe.alpha}
    online = distillation_loss(student(**fed).logits, taught, wide["labels"], **weights)
    soft = logits_of(part.teacher, part.data, nobody, "")
    rows = cached_rows(Task(recipe, part.teacher, part.tokenizer, part.data, soft))
    narrow = part.tokenizer.pad(rows, return_tensors="pt")
    cached = CachedTrainer.compute_loss(argparse.Namespace(recipe=recipe), student, narrow)  # type: ignore[arg-type]
    ours, theirs = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]) for loss in (cached, online)
    )
    return (
        float((abs(cached - online) / online).detach()),
        float((ours - theirs).norm() / theirs.norm()),
    )


def accuracies(task: Task, splits: Splits, ways: dict[str, Arm], seeds: int) -> dict[str, list[float]]:
    """Accuracy on the evaluation split, by way and seed; the same seeds for each."""
    evaluation = encode(task.tokenizer, splits.evaluation, task.recipe.max_length)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(seeds):
        recipe = task.recipe.model_copy(update={"seed": task.recipe.seed + index})
        one = Task(recipe, task.teacher, task.tokenizer, task.data, task.soft)
        for name, way in ways.items():
            student = build_student(recipe, splits.names)
            spent = seconds(lambda: way(student, one, recipe.student_epochs))  # noqa: B023 - called at once
            answers = logits_of(student, evaluation, nobody, "")
            found[name].append(accuracy(answers, evaluation.labels))
            tell(f"seed {index + 1} of {seeds}: {name}: {found[name][-1]:.4f} after {spent:.0f} s")
    return found


def answer(difference: Interval | None) -> str:
    """What the 90 % interval of fast minus reference says."""
    if difference is None:
        return "cannot be told from one seed"
    if difference.low > 0:
        return "better"
    if difference.low > -MARGIN and difference.high < MARGIN:
        return "equivalent within half a point"
    return "worse by more than half a point" if difference.high < -MARGIN else "cannot tell"


def accuracy_table(found: dict[str, list[float]]) -> str:
    """Accuracies in percent with 95 % intervals, and the difference at 90 %, paired by seed and not."""
    lines = ["| way | accuracy, % | by seed |", "|---|---|---|"]
    for name, values in found.items():
        points = [100 * value for value in values]
        lines.append(f"| {name} | {shown(mean_interval(points), 2)} | {', '.join(f'{one:.2f}' for one in points)} |")
    reference, ours = found.values()
    paired = mean_interval([b - a for a, b in zip(reference, ours, strict=True)], 0.90)
    for how, difference in (("paired by seed", paired), ("not paired", welch_interval(ours, reference, 0.90))):
        told = shown(difference and difference.map(lambda one: 100 * one), 2)
        lines.append(f"\nDifference in points, {how}, 90 %: {told}: {answer(difference)}.")
    return "\n".join(lines)


def of_speed(recipe: Recipe, source: str, options: argparse.Namespace) -> str:
    """The table of rates."""
    splits = load_splits(source, recipe)
    task = untrained(splits, recipe, options.examples)
    found, passes = blocks(task, splits.names, online=options.online, count=options.blocks)
    told = f"{len(task.data)} examples a block ({options.online} online), batch {recipe.student_batch}, {options.blocks} blocks"
    return f"{source}: {told}, {torch.get_num_threads()} threads\n\n{speed_table(found, passes, options.epochs)}"


def of_accuracy(recipe: Recipe, source: str, options: argparse.Namespace) -> str:
    """The table of accuracies, and what the teacher and its cache are."""
    splits = load_splits(source, recipe)

    def told(event: object) -> None:
        at = (getattr(event, "done", None), getattr(event, "total", None))
        if at[1] and at[0] and at[0] % max(1, math.ceil(at[1] / 5)) == 0:
            tell(f"{getattr(event, 'stage', '')}: {at[0]} of {at[1]}")

    teachers = Teachers(None, recipe, "cpu", splits, Cache(Path(options.cache or definitions.cache())), told)
    teacher, tokenizer = teachers.load()
    data = encode(tokenizer, splits.train, recipe.max_length)
    task = Task(recipe, teacher.eval(), tokenizer, data, teachers.logits(teacher, tokenizer, data))
    loss, gradient = same_arithmetic(task, splits.names)
    found = accuracies(task, splits, {"HF Trainer": trainer_same, "fast path": fast_path}, options.seeds)
    same = f"Padded to 128 online against padded to the longest and cached: loss {loss:.1e}, gradient {gradient:.1e} apart."
    size = f"{len(data)} examples x {recipe.student_epochs} epochs, {len(splits.evaluation)} evaluated"
    return f"{source}: {size}\n\n{same}\n\n{accuracy_table(found)}"


def main(arguments: Sequence[str] | None = None, recipe: Recipe | None = None) -> str:
    """Measure, print, and give back what was printed; `recipe` is the profile's unless a test brings a smaller one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=1600)
    parser.add_argument("--online", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument(
        "--epochs", type=int, default=None, help="of the teacher's one pass; or of training, for accuracy"
    )
    parser.add_argument(
        "--train", type=int, default=None, help="examples that teacher and students train on (accuracy)"
    )
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cache", default=None)
    options = parser.parse_args(arguments)
    recipe = recipe or parse_profiles(definitions.text("profiles.toml")).of(options.profile).recipe
    chosen = {"student_epochs": options.epochs, "train_examples": options.train}
    recipe = recipe.model_copy(update={name: value for name, value in chosen.items() if value})
    options.epochs = recipe.student_epochs
    if options.threads:
        torch.set_num_threads(options.threads)
    told = (of_accuracy if options.accuracy else of_speed)(recipe, options.data, options)
    print(told)
    return told


if __name__ == "__main__":
    main()
