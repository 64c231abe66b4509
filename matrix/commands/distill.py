"""The command that trains a student for its own sake: distill."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from matrix import definitions, host
from matrix.commands import child, options
from matrix.console import Live, duration
from matrix.distillation import STORY, Asked, Distillation, Distilled, working_folder
from matrix.errors import ExitCode, UsageError
from matrix.job import WorkloadSpec
from matrix.profile import Recipe
from matrix.strict import parse, parse_json

_NEEDED = ("torch", "transformers")
_UNFINISHED = ("the student is not finished", "the same command goes on from the last checkpoint")


@click.command()
@options.data
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder that the student appears in, whole."
)
@click.option(
    "--teacher", default=None, help="DistilBERT classifier, a folder or hub id [default: trained here, and kept]."
)
@click.option("--student", default=None, help="BERT classifier to start from [default: TinyBERT 4L-312D, random].")
@click.option(
    "--profile", default="quick", show_default=True, help="Whose recipe is the default: quick, standard, full."
)
@click.option("--epochs", type=click.IntRange(min=1), default=None, help="Times that the student sees each example.")
@click.option("--batch", type=click.IntRange(min=1), default=None, help="Examples a step.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=None, help="Learning rate at its highest.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=None, help="Of weights and of the order of training."
)
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), default=None, help="Of the soft targets.")
@click.option(
    "--alpha", type=click.FloatRange(0, 1), default=None, help="Weight of the soft targets; the labels' is 1 - it."
)
@click.option("--dropout", is_flag=True, help="Train with the student's dropout: slower, another student.")
@click.option("--random-order", is_flag=True, help="Draw batches from all lengths, padded: slower, another student.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), default=None, help="[default: the best one here]")
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between checkpoints.",
)
def distill(
    data: str,
    out: Path,
    teacher: str | None,
    student: str | None,
    profile: str,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    seed: int | None,
    temperature: float | None,
    alpha: float | None,
    dropout: bool,
    random_order: bool,
    device: Literal["cpu", "cuda", "mps"] | None,
    checkpoint_every: float,
) -> None:
    """Train a student from a teacher, by the fastest way this project knows, and save it as a checkpoint.

    \b
      matrix distill --data clinc150/data_full.json --out student
      matrix run cpu --data clinc150/data_full.json --student student

    The teacher's logits are computed once and kept in $MATRIX_CACHE. Stop or kill it at any time: the same command goes on
    from the last checkpoint, on a CPU to the same bits. OUT loads with AutoModelForSequenceClassification; its training.json
    says how it was made and how accurate it is.
    """  # noqa: D301 - click's own mark, a backspace
    recipe = _changed(
        options.profiles().of(profile).recipe,
        student_epochs=epochs,
        student_batch=batch,
        student_lr=lr,
        seed=seed,
        temperature=temperature,
        alpha=alpha,
    )
    asked = Asked(
        spec=WorkloadSpec(data=data, teacher=teacher, student=student),
        recipe=recipe,
        dropout=dropout,
        random_order=random_order,
        device=device,
    )
    with Live(Console(stderr=True)) as live:
        try:
            story = run(asked, out, live, every_s=checkpoint_every)
        except KeyboardInterrupt:
            live.say("interrupted: the same command goes on from the last checkpoint")
            sys.exit(ExitCode.INTERRUPTED)
    click.echo(
        f"{out}: accuracy {story.student_accuracy:.4f} (its teacher's {story.teacher_accuracy:.4f}), {story.steps} steps in "
        f"{duration(story.seconds)}, {story.examples_per_s:.0f} examples/s"
    )


def _changed(recipe: Recipe, **changes: float | None) -> Recipe:
    asked = {name: value for name, value in changes.items() if value is not None}
    return parse(Recipe, recipe.model_dump() | asked, "the command line")


def run(asked: Asked, out: Path, live: Live, *, every_s: float, cache: Path | None = None) -> Distilled:
    """Have a process of this Python make the student; how it came to be.

    Raises:
        HostError: this Python lacks a package.
        UsageError: something else is at `out`.
        MatrixError: the process refused: another student is being made at `out`, the data or a given model cannot be used,
            the device is not there, or the training diverged.
        IncompleteError: the process ended before its work did; its checkpoints are kept.
    """
    out = out.resolve()
    _free(out, asked)
    child.need(_NEEDED, "distilling")
    order = Distillation(
        asked=asked,
        out=str(out),
        working=str(working_folder(out)),
        cache=str((cache or definitions.cache()).absolute()),
        threads=host.usable_cores(),
        every_s=every_s,
    )
    with tempfile.TemporaryDirectory(prefix="matrix-distill-") as folder:
        child.obeyed("matrix.workloads.distill.run", order, Path(folder), live, _UNFINISHED)
    return _story(out)


def _story(out: Path) -> Distilled:
    return parse_json(Distilled, (out / STORY).read_bytes(), str(out / STORY))


def _free(out: Path, asked: Asked) -> None:
    """Refuse, before any work, a place that something else has."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / STORY).is_file() or _story(out).asked != asked:
        raise UsageError(
            f"something else is at {out}", remedy="name another --out, or remove it: a student is never written over"
        )
