"""How the intent student is made: a teacher is fitted to the labels, the student to the teacher's cached logits and the labels.

Length-sorted batches without padding to 128, fused AdamW, a linear schedule with warm-up. The teacher is frozen and its
inputs are fixed, so its logits are computed once: caching them changes nothing (they would be bit-equal each time).
"""

from __future__ import annotations

import copy
import dataclasses
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
from matrix.workloads.data import Split

Ids = Sequence[list[int]]
Report = Callable[[str, int, int], None]
"""Told with a stage, steps done and steps in all."""

FIRST: Final = 10
"""Steps whose losses two devices compare: many enough for a wrong gradient to show, too few for rounding to grow."""

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


def logits_of(model: PreTrainedModel, data: Encoded, report: Report, stage: str, size: int = 64) -> torch.Tensor:
    """Logits of every example, in the data's order, float32, examples x classes, on the CPU; dropout off."""
    model.eval()
    parts = batches([len(row) for row in data.ids], size, None)
    out = torch.zeros(len(data), model.config.num_labels)
    for done, rows in enumerate(parts, start=1):
        with torch.inference_mode():
            out[rows] = model(**pad(data.ids, rows, model.device)).logits.float().cpu()
        report(stage, done, len(parts))
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


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    warm = max(1, round(steps * _WARMUP_SHARE))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
    )


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


def _losses(model: PreTrainedModel, data: Encoded, how: Fit, recipe: Recipe) -> Iterator[torch.Tensor]:
    """Train `model` in place, one step a turn; the step's loss, on the model's device."""
    torch.manual_seed(recipe.seed)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=how.lr, weight_decay=0.01, fused=True)
    schedule = _schedule(optimizer, how.steps(len(data)))
    for rows in _order(data, how, recipe):
        logits = model(**pad(data.ids, rows, model.device)).logits
        labels = data.labels[rows].to(model.device)
        if how.soft is None:
            loss = F.cross_entropy(logits, labels)
        else:
            teacher = how.soft[rows].to(model.device)
            loss = distillation_loss(logits, teacher, labels, temperature=recipe.temperature, alpha=recipe.alpha)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.detach()


def first_losses(
    student: PreTrainedModel, teacher: PreTrainedModel, data: Encoded, how: Fit, recipe: Recipe
) -> tuple[float, ...]:
    """The losses of the first ten steps of `fit`, in fp32, taught by `teacher`; `student` stays as it is.

    Two devices have them in common up to rounding, because what would part them is left out: dropout, whose masks each kind
    of device draws in its own way, and all training before. So `teacher` is the one that nobody trained here: where only
    rounding differed (1 against 2 threads) a teacher trained at tests' size moved these losses by 0.18.
    """
    probe = copy.deepcopy(student).float()
    dropout_off(probe)
    rows = np.concatenate(list(itertools.islice(_order(data, how, recipe), FIRST)))
    taught = Encoded([data.ids[row] for row in rows], data.labels[rows])
    soft = torch.zeros(len(data), probe.config.num_labels)
    soft[rows] = logits_of(teacher, taught, lambda *_: None, "")
    how = dataclasses.replace(how, soft=soft)
    return tuple(float(loss) for loss in itertools.islice(_losses(probe, data, how, recipe), FIRST))


def fit(model: PreTrainedModel, data: Encoded, how: Fit, recipe: Recipe, report: Report) -> None:
    """Train `model` in place; equal inputs give equal batches in equal order."""
    if not how.dropout:
        dropout_off(model)
    for done, _ in enumerate(_losses(model, data, how, recipe), start=1):
        report(how.stage, done, how.steps(len(data)))
    model.eval()
