"""How the intent student is made: a teacher is fitted to the labels, the student to the teacher's cached logits and the labels.

Length-sorted batches without padding to 128, fused AdamW, a linear schedule with warm-up. The teacher is frozen and its
inputs are fixed, so its logits are computed once: caching them changes nothing (they would be bit-equal each time).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.profile import Recipe
from matrix.workloads.checkpoint import Checkpoints, packed, unpack
from matrix.workloads.data import Split

Ids = Sequence[list[int]]
Report = Callable[[str, int, int], None]
"""Told with a stage, steps done and steps in all."""

CLIP: Final = 1.0
"""Norm that a gradient is clipped to."""

WEIGHT_DECAY: Final = 0.01

_JUDGED = 64  # examples that a model answers at once
_WARMUP_SHARE = 0.1
_WINDOW = 50  # batches that are sorted by length together: wide enough to pad little, narrow enough to stay random


@dataclass(frozen=True)
class Encoded:
    """A split as token ids, each example at its own length."""

    ids: Ids
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


def encode(tokenizer: PreTrainedTokenizerBase, split: Split, max_length: int) -> Encoded:
    """Token ids of `split`, truncated to `max_length`, unpadded."""
    ids = tokenizer(list(split.texts), truncation=True, max_length=max_length)["input_ids"]
    return Encoded(ids, torch.tensor(split.labels))


def batches(lengths: Sequence[int], size: int, rng: np.random.Generator | None) -> list[npt.NDArray[np.int64]]:
    """Indices in batches of similar length: shuffled by `rng`, or in order of length without one."""
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    window = len(order) if rng is None else size * _WINDOW
    found: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), window):
        part = np.array(sorted(order[start : start + window], key=lambda index: lengths[index]))
        found += [part[at : at + size] for at in range(0, len(part), size)]
    if rng is not None:
        rng.shuffle(found)
    return found


def pad(ids: Ids, rows: npt.NDArray[np.int64], device: str = "cpu") -> dict[str, torch.Tensor]:
    """`rows` of `ids` as `input_ids` and `attention_mask`, int64, batch x longest of the batch."""
    width = max(len(ids[row]) for row in rows)
    out = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(out)
    for position, row in enumerate(rows):
        out[position, : len(ids[row])] = torch.tensor(ids[row])
        mask[position, : len(ids[row])] = 1
    return {"input_ids": out.to(device), "attention_mask": mask.to(device)}


def logits_of(
    model: PreTrainedModel, data: Encoded, report: Report, stage: str, checkpoints: Checkpoints | None = None
) -> torch.Tensor:
    """Logits of every example, in the data's order, float32, examples x classes, on the CPU; dropout off."""
    model.eval()
    parts = batches([len(row) for row in data.ids], _JUDGED, None)
    kept = checkpoints.latest() if checkpoints else None
    start, out = (kept.done, kept.tensors["logits"]) if kept else (0, torch.zeros(len(data), model.config.num_labels))
    for done, rows in enumerate(parts[start:], start=start + 1):
        with torch.inference_mode():
            out[rows] = model(**pad(data.ids, rows, model.device)).logits.float().cpu()
        report(stage, done, len(parts))
        if checkpoints:
            checkpoints.offer(done, lambda: {"logits": out})
    return out


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of examples whose largest logit is their label's."""
    return float((logits.argmax(-1) == labels).float().mean())


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """`(1 - alpha) * CE(student, labels) + alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T))`, batch means.

    Hinton, Vinyals, Dean 2015, section 2; T^2 keeps the soft gradient's size independent of T.

    Args:
        student: logits, batch x classes.
        teacher: logits, batch x classes, without gradient.
        labels: class indices, batch.
        temperature: T > 0.
        alpha: weight of the soft term, 0 to 1.
    """
    soft = F.kl_div(
        F.log_softmax(student / temperature, dim=-1), F.softmax(teacher / temperature, dim=-1), reduction="batchmean"
    )
    return (1 - alpha) * F.cross_entropy(student, labels) + alpha * temperature**2 * soft


def dropout_off(model: PreTrainedModel) -> None:
    """Make `model` compute in training mode what it computes in evaluation mode.

    transformers 4.57: the SDPA attention of BERT and DistilBERT holds its share as the number `dropout_prob`, in no module.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0


def rate(step: int, steps: int) -> float:
    """Share of the learning rate in step `step` (from 0) of `steps`: a linear warm-up over a tenth, then linearly to 0."""
    warm = max(1, round(steps * _WARMUP_SHARE))
    return min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))


@dataclass(frozen=True)
class Fit:
    """How one model is fitted; `soft` holds teacher logits (examples x classes) or is None for labels only."""

    stage: str
    epochs: int
    batch: int
    lr: float
    dropout: bool
    soft: torch.Tensor | None = None

    def steps(self, examples: int) -> int:
        """Optimizer steps in all."""
        return self.epochs * -(-examples // self.batch)


def _order(data: Encoded, how: Fit, recipe: Recipe) -> Iterator[npt.NDArray[np.int64]]:
    """The batches of all epochs: a function of lengths and seed, whatever the device."""
    rng, lengths = np.random.default_rng(recipe.seed), [len(row) for row in data.ids]
    for _ in range(how.epochs):
        yield from batches(lengths, how.batch, rng)


def fit(
    model: PreTrainedModel,
    data: Encoded,
    how: Fit,
    recipe: Recipe,
    report: Report,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train `model` in place; equal inputs give equal batches in equal order, and a killed training goes on where it was."""
    if not how.dropout:
        dropout_off(model)
    torch.manual_seed(recipe.seed)
    model.train()
    trained, steps = dict(model.named_parameters()), how.steps(len(data))
    optimizer = torch.optim.AdamW(trained.values(), lr=how.lr, weight_decay=WEIGHT_DECAY, fused=True)
    kept = checkpoints.latest() if checkpoints else None
    if kept:
        unpack(kept.tensors, trained, optimizer)
    for step, rows in itertools.islice(enumerate(_order(data, how, recipe)), kept.done if kept else 0, None):
        optimizer.param_groups[0]["lr"] = how.lr * rate(step, steps)
        logits = model(**pad(data.ids, rows, model.device)).logits
        labels = data.labels[rows].to(model.device)
        if how.soft is None:
            loss = F.cross_entropy(logits, labels)
        else:
            teacher = how.soft[rows].to(model.device)
            loss = distillation_loss(logits, teacher, labels, temperature=recipe.temperature, alpha=recipe.alpha)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        if checkpoints:
            checkpoints.offer(step + 1, lambda: packed(trained, optimizer))
        report(how.stage, step + 1, steps)
    model.eval()
