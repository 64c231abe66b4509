"""Students of one lesson that differ in nothing but where the teacher's logits come from. Run by refresh.py.

Equal students see equal batches in equal order. Time is of the steps alone: augmenting, the teacher's own training, and watching
staleness are the same for every mode and not in it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.canonical import digest
from matrix.profile import Recipe, StudentShape, TeacherShape
from matrix.workloads.data import Split, Splits
from matrix.workloads.distill.teacher_cache import Origin, TeacherCache, teacher_digest
from matrix.workloads.mangaassist import misspell
from matrix.workloads.models import build_student, build_teacher
from matrix.workloads.train import (
    Encoded,
    Fit,
    Ids,
    accuracy,
    batches,
    distillation_loss,
    dropout_off,
    encode,
    fit,
    logits_of,
    pad,
)

CHANGED: Final = 0.15
"""Share of words that augmentation drops, and share of the others that it misspells."""
WATCHED: Final = 4
SIZES: Final[dict[str, dict[str, Any]]] = {
    "small": {
        "vocabulary": 2_000,
        "teacher": TeacherShape(layers=4, dim=128, heads=4, hidden=512),
        "student": StudentShape(layers=2, dim=64, heads=2, hidden=256),
        "teacher_batch": 32,
        "teacher_lr": 1e-3,
        "student_lr": 2e-3,
    },
    "seed": {},
}
"""Recipes' changes: by default models of the same division of work (the teacher 75 % of it) that train in seconds."""


class Mode(NamedTuple):
    """Where logits come from: the teacher (`share` None), or a cache of which `share` is regenerated each step."""

    name: str
    share: float | None
    by_example: bool = False


class Condition(NamedTuple):
    """What moves while the student learns, and the modes that differ under it."""

    title: str
    augmented: bool
    moving: bool
    modes: tuple[Mode, ...]


def conditions(shares: Sequence[float]) -> tuple[Condition, ...]:
    """The exercise; online is the first mode of each, and what is not refreshed comes before what is."""
    online, cached = Mode("online", None), Mode("cached", 0.0)
    mixed = [Mode(f"mixed {100 * share:g} %", share) for share in shares]
    by_example = (mode._replace(name=f"{mode.name}, by example", by_example=True) for mode in (cached, *mixed))
    content = cached._replace(name="cached, by content")
    return (
        Condition("Frozen teacher, fixed inputs", False, False, (online, cached, *mixed)),
        Condition("Frozen teacher, inputs augmented each epoch", True, False, (online, content, *by_example)),
        Condition("Moving teacher, fixed inputs", False, True, (online, cached, *mixed)),
    )


@dataclass(frozen=True)
class Lesson:
    """What one seed's students of a condition have in common: epochs of ids, batches of rows, and the teacher as it starts."""

    recipe: Recipe
    names: tuple[str, ...]
    plain: Ids
    epochs: Sequence[Ids]
    order: Sequence[Sequence[npt.NDArray[np.int64]]]
    labels: torch.Tensor
    evaluation: Encoded
    teacher: PreTrainedModel
    origin: Origin
    moving: bool


class Outcome(NamedTuple):
    """One student: its accuracy, the steps' seconds, staleness (nats), the share of rows asked, the weights' digest."""

    accuracy: float
    seconds: float
    stale: float
    asked: float
    weights: str


def augmented(text: str, rng: random.Random) -> str:
    """`text` with some words dropped and some misspelt; never without a word."""
    words = text.split()
    kept = [word for word in words if rng.random() >= CHANGED] or [rng.choice(words)]
    return " ".join(misspell(word, rng) if rng.random() < CHANGED else word for word in kept)


def _quiet(*_: object) -> None:
    """No progress is told."""


def taught(recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, epochs: int) -> PreTrainedModel:
    """A teacher fitted for some epochs."""
    model, train = build_teacher(recipe, splits.names), encode(tokenizer, splits.train, recipe.max_length)
    fit(model, train, Fit("", epochs, recipe.teacher_batch, recipe.teacher_lr, dropout=False), recipe, _quiet)
    return model


def lesson(
    condition: Condition, recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, frozen: PreTrainedModel
) -> Lesson:
    """One seed's lesson, by the `frozen` teacher or by one that starts after its first epoch.

    The batches' members stay together over the epochs, so that fixed inputs are padded alike each time.
    """
    train, rng = encode(tokenizer, splits.train, recipe.max_length), np.random.default_rng(recipe.seed)
    epochs: list[Ids] = [train.ids] * recipe.student_epochs
    if condition.augmented:
        draws = (random.Random(f"{recipe.seed} {epoch}") for epoch in range(recipe.student_epochs))
        texts = (tuple(augmented(text, draw) for text in splits.train.texts) for draw in draws)
        epochs = [encode(tokenizer, Split(one, splits.train.labels), recipe.max_length).ids for one in texts]
    members = batches([len(row) for row in train.ids], recipe.student_batch, rng)
    teacher = taught(recipe, splits, tokenizer, 1) if condition.moving else frozen
    return Lesson(
        recipe=recipe,
        names=splits.names,
        plain=train.ids,
        epochs=epochs,
        order=[[members[at] for at in rng.permutation(len(members))] for _ in epochs],
        labels=train.labels,
        evaluation=encode(tokenizer, splits.evaluation, recipe.max_length),
        teacher=teacher,
        origin=Origin(teacher_digest(teacher), "float32", digest(tokenizer.backend_tokenizer.to_str())),
        moving=condition.moving,
    )


Inputs = dict[str, torch.Tensor]
Logits = Callable[[Inputs, Inputs], torch.Tensor]
"""Of a batch's plain inputs, and of its inputs in this epoch: the logits that the student is taught by."""


def _asked(teacher: PreTrainedModel, inputs: Inputs) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = teacher(**inputs).logits
    return answer


def source(mode: Mode, teacher: PreTrainedModel, origin: Origin) -> tuple[Logits, TeacherCache]:
    """Where the mode's logits come from, and its cache (online it stays empty)."""
    cache = TeacherCache(origin, share=mode.share or 0.0)

    def logits(plain: Inputs, inputs: Inputs) -> torch.Tensor:
        if mode.share is None:
            return _asked(teacher, inputs)
        keyed = plain if mode.by_example else inputs
        return cache.logits(
            keyed["input_ids"],
            keyed["attention_mask"],
            lambda rows: _asked(teacher, {name: tensor[rows] for name, tensor in inputs.items()}),
        )

    return logits, cache


class Learner:
    """A model in training, without dropout; a linear decay of the rate where `steps` are given."""

    def __init__(self, model: PreTrainedModel, lr: float, steps: int | None = None) -> None:
        dropout_off(model)
        self.model = model.train()
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda at: 1 - at / steps if steps else 1.0)

    def step(self, inputs: Inputs, loss: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """One step on a loss of the model's logits."""
        loss(self.model(**inputs).logits).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


def divergence(true: torch.Tensor, served: torch.Tensor) -> float:
    """Mean KL(softmax(true) || softmax(served)) over rows, in nats."""
    found, right = (F.log_softmax(logits.double(), -1) for logits in (served, true))
    return float(F.kl_div(found, right, reduction="batchmean", log_target=True))


class Pupil:
    """A student under one mode, and what it cost so far."""

    def __init__(self, lesson: Lesson, mode: Mode) -> None:
        recipe, steps = lesson.recipe, sum(map(len, lesson.order))
        self._learner = Learner(build_student(recipe, lesson.names), recipe.student_lr, steps)
        self._logits, self._cache = source(mode, lesson.teacher, lesson.origin)
        self._online, self._seconds = mode.share is None, 0.0
        self._stale: list[float] = []
        self._loss = partial(distillation_loss, temperature=recipe.temperature, alpha=recipe.alpha)

    def step(self, plain: Inputs, inputs: Inputs, labels: torch.Tensor) -> torch.Tensor:
        """One timed step; the logits that were served."""
        begin = time.perf_counter()
        served = self._logits(plain, inputs)
        self._learner.step(inputs, partial(self._loss, teacher=served, labels=labels))
        self._seconds += time.perf_counter() - begin
        return served

    def watch(self, true: torch.Tensor, served: torch.Tensor) -> None:
        """Note how stale what was served is."""
        self._stale.append(divergence(true, served))

    def outcome(self, evaluation: Encoded) -> Outcome:
        """What became of it."""
        student, cache = self._learner.model, self._cache
        right = accuracy(logits_of(student, evaluation, _quiet, ""), evaluation.labels)
        asked = 1.0 if self._online else cache.taught / cache.served
        return Outcome(right, self._seconds, fmean(self._stale), asked, teacher_digest(student))


def trained(lesson: Lesson, modes: Sequence[Mode]) -> dict[str, Outcome]:
    """One student a mode, by the mode's name: side by side, each batch in turns, so that a slow minute slows all of them."""
    pupils = {mode.name: Pupil(lesson, mode) for mode in modes}
    coach = Learner(lesson.teacher, lesson.recipe.teacher_lr) if lesson.moving else None
    turns, at = random.Random(lesson.recipe.seed), 0
    for ids, order in zip(lesson.epochs, lesson.order, strict=True):
        for rows in order:
            plain, inputs, labels = pad(lesson.plain, rows), pad(ids, rows), lesson.labels[rows]
            served = {
                name: pupils[name].step(plain, inputs, labels) for name in turns.sample(sorted(pupils), len(pupils))
            }
            if at % WATCHED == 0:
                true = _asked(lesson.teacher, inputs)
                for name, pupil in pupils.items():
                    pupil.watch(true, served[name])
            if coach:
                coach.step(inputs, partial(F.cross_entropy, target=labels))
            at += 1
    return {name: pupil.outcome(lesson.evaluation) for name, pupil in pupils.items()}
