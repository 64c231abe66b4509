"""How a student comes to be: what its seed decides, and what two devices can compare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import PreTrainedModel

from matrix.job import Folders, Job, Training, WorkloadSpec
from matrix.profile import Recipe
from matrix.workloads.cache import Cache
from matrix.workloads.data import load_splits
from matrix.workloads.distill.buckets import Shape
from matrix.workloads.distill.fast import FIRST, Fast, Switches, first_losses, train
from matrix.workloads.distill.fast_loop import Loop
from matrix.workloads.models import build_student, build_teacher, train_tokenizer
from matrix.workloads.student import StudentMaker, story_of
from matrix.workloads.train import Encoded, dropout_off, encode, logits_of
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
NAMES = tuple("abcdefghij")
SHORT = {
    "train_examples": 320,
    "validation_examples": 50,
    "evaluation_examples": 50,
    "teacher_epochs": 1,
    "student_epochs": 1,
}
SMALL = PROFILE.model_copy(update={"recipe": PROFILE.recipe.model_copy(update=SHORT)})
RECIPE = SMALL.recipe


class Lesson(NamedTuple):
    """What a student is fitted to."""

    teacher: PreTrainedModel
    data: Encoded
    soft: torch.Tensor
    how: Fast


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    """320 utterances, 20 steps, a teacher that nobody trained."""
    split = load_splits("embedded", RECIPE).train
    data, teacher = encode(train_tokenizer(split.texts), split, RECIPE.max_length), build_teacher(RECIPE, NAMES)
    soft = logits_of(teacher, data, lambda *_: None, "")
    return Lesson(teacher, data, soft, Fast(1, 16, 2e-3, seed=1, temperature=4.0, alpha=0.7))


def losses(student: PreTrainedModel, lesson: Lesson) -> tuple[float, ...]:
    """The first ten, taught by the teacher that nobody trained."""
    return first_losses(student, lesson.teacher, lesson.data, lesson.how)


def maker(root: Path, seed: int) -> StudentMaker:
    """One student's making, on the CPU."""
    profile = SMALL.seeded(seed)
    job = Job(
        target="cpu-openvino",
        device="cpu",
        profile=profile,
        spec=WorkloadSpec(),
        suite_sha256="s" * 64,
        cells=(),
        folders=Folders(cache=str(root), out=str(root)),
        threads=1,
    )
    return StudentMaker(job, load_splits("embedded", profile.recipe), Cache(root), lambda _: None)


def story(root: Path, seed: int) -> Training:
    """How a student of this seed came to be, without a cache."""
    root.mkdir()
    maker(root, seed).make(root)
    found = story_of(root)
    assert found
    return found


@pytest.mark.parametrize("build", [build_student, build_teacher])
def test_without_dropout_training_mode_repeats(build: Callable[[Recipe, tuple[str, ...]], PreTrainedModel]) -> None:
    """Attention too: SDPA is told its share as a number, which no `Dropout` module holds."""
    model = build(RECIPE, NAMES).train()
    ids = torch.arange(5, 69).reshape(4, 16)
    dropout_off(model)
    assert torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.parametrize("dropout", [False, True])
def test_the_first_losses_do_not_change_what_the_student_becomes(lesson: Lesson, *, dropout: bool) -> None:
    """Weights are bit-equal with and without them, with dropout's masks too."""
    how = replace(lesson.how, switches=Switches(dropout=dropout))
    with_them, without = build_student(RECIPE, NAMES), build_student(RECIPE, NAMES)
    losses(with_them, lesson)
    for student in (with_them, without):
        train(student, lesson.data, lesson.soft, how, lambda *_: None)
    pairs = zip(with_them.state_dict().values(), without.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_first_losses_are_those_of_training(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ten floats that `train` steps by."""
    seen: list[float] = []
    step = Loop.step

    def watched(loop: Loop, number: int, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        loss = step(loop, number, rows, shape)
        seen.append(float(loss))
        return loss

    student = build_student(RECIPE, NAMES)
    told = losses(student, lesson)
    monkeypatch.setattr(Loop, "step", watched)
    train(student, lesson.data, lesson.soft, lesson.how, lambda *_: None)
    assert len(told) == FIRST == 10
    assert told == pytest.approx(seen[:FIRST], abs=1e-6)
    assert len(set(told)) == FIRST


def test_rounding_keeps_the_first_losses_within_the_margin(lesson: Lesson) -> None:
    """Weights off by an fp32 rounding, as on another device: a hundredth of the policy's 1e-3 at most, after ten steps."""
    other = build_student(RECIPE, NAMES)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1 + 1e-7 * torch.randn(weight.shape, generator=generator))
    assert losses(other, lesson) == pytest.approx(losses(build_student(RECIPE, NAMES), lesson), abs=1e-5)


def test_a_seed_decides_the_student_and_its_story(tmp_path: Path) -> None:
    """Equal seeds repeat the ten losses bit by bit; another has others, and another key in the cache."""
    first, again, other = (story(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert (first.seed, first.device, len(first.first_losses)) == (1, "cpu", FIRST)
    assert all(math.isfinite(loss) for loss in first.first_losses)
    assert first.first_losses == again.first_losses
    assert not set(first.first_losses) & set(other.first_losses)
    assert maker(tmp_path, 1).key() == maker(tmp_path, 1).key() != maker(tmp_path, 2).key()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
