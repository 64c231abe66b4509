"""Tiny models of unequal depths and widths, and batches of unequal lengths: what feature methods are tried on."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from matrix.profile import Recipe, StudentShape, TeacherShape
from matrix.workloads.distill import Batch, Gradients, Work
from matrix.workloads.models import build_student, build_teacher
from matrix.workloads.works import frozen
from tests.real.tiny import PROFILE

NAMES = tuple("abcdefghij")


def recipe(*, student: int = 4, teacher: int = 6, heads: int = 2) -> Recipe:
    """Tiny widths, unequal; the depths of the seed unless others are asked for."""
    shapes = {
        "teacher": TeacherShape(layers=teacher, dim=24, heads=2, hidden=48),
        "student": StudentShape(layers=student, dim=16, heads=heads, hidden=32),
        "vocabulary": 500,
    }
    return PROFILE.recipe.model_copy(update=shapes)


def batch(*lengths: int, width: int = 0) -> Batch:
    """Examples of these lengths, random ids, padded to `width`; the ids do not depend on it."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.zeros(len(lengths), max(width, *lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 500, (length,), generator=generator)
        mask[row, :length] = 1
    labels = torch.randint(0, 10, (len(lengths),), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def work(teacher: PreTrainedModel | None = None, made: Recipe | None = None, dtype: str = "float32") -> Work:
    """Tiny models, equal each time, and padded examples."""
    of = made or recipe()
    found = batch(*(5, 9, 12, 7) * 2)
    rows = [{name: tensor[index] for name, tensor in found.items()} for index in range(8)]
    return Work(
        teacher=frozen(teacher or build_teacher(of, NAMES), "cpu"),
        student=build_student(of, NAMES).train(),
        loader=DataLoader(rows, batch_size=4),  # type: ignore[arg-type]  # a list is a dataset
        batch=4,
        temperature=4.0,
        alpha=0.7,
        device="cpu",
        dtype=dtype,
        another_teacher=lambda: frozen(build_teacher(of, NAMES), "cpu"),
    )


def apart(left: Gradients, right: Gradients) -> float:
    """The larger relative difference of loss and gradient."""
    loss = abs(left.loss - right.loss) / abs(right.loss)
    return max(loss, float((left.gradient - right.gradient).norm() / right.gradient.norm()))


def value(loss: torch.Tensor) -> float:
    """A loss as a number, whatever hangs on it."""
    return float(loss.detach())
