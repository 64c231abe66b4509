"""One student's training at work: examples on the device, leaves to train, and the step that is repeated.

Nothing in a step waits for the device: examples, labels and logits lie on it, and losses add up there. On CUDA a step, from
gathering the batch to the optimizer, is one captured graph for each shape of batch. On a CPU two threads share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import torch
from transformers import PreTrainedModel

from matrix.errors import DataError
from matrix.workloads.distill.buckets import Draw, Shape, draws, table
from matrix.workloads.distill.fast_student import FastStudent
from matrix.workloads.distill.graphs import Captured
from matrix.workloads.distill.halves import LEAST, Halves
from matrix.workloads.train import CLIP, WEIGHT_DECAY, Encoded, distillation_loss, rate

_GPU_HEAD: Final = 32
"""Multiple that heads are padded to on CUDA: at 26 a masked bf16 batch falls to the attention written out in parts."""


def head_multiple(device: str) -> int:
    """What attention heads are padded to on this device, so that its kernels take them."""
    return _GPU_HEAD if device == "cuda" else 1


@dataclass(frozen=True)
class Switches:
    """What departs from the reference's training.

    Attributes:
        dropout: what the student's configuration says is dropped in training. Off, the student is trained without that
            regularisation.
        buckets: batches are drawn from examples of one length. Off, they are drawn from all, in random order, and padded to
            their longest.
    """

    dropout: bool = False
    buckets: bool = True


@dataclass(frozen=True)
class Fast:
    """How a student is trained: AdamW, a gradient's norm clipped to 1, a linear warm-up over a tenth and a linear decline.

    Attributes:
        batch: examples a step; the last batch of an epoch has the rest.
        lr: the rate at its highest.
        temperature: of the soft term; `alpha` is its weight (`train.distillation_loss`).
        weight_decay: decoupled, of every parameter, as in the reference.
        device: cpu, cuda or mps; the student must lie there.
        dtype: of the forward pass: float32, or bfloat16 by autocast.
        constant: the rate stays as it is, from the first step to the last.
    """

    epochs: int
    batch: int
    lr: float
    seed: int
    temperature: float
    alpha: float
    weight_decay: float = WEIGHT_DECAY
    switches: Switches = Switches()
    device: str = "cpu"
    dtype: str = "float32"
    constant: bool = False

    def steps(self, examples: int) -> int:
        """Optimizer steps in all."""
        return self.epochs * -(-examples // self.batch)


class Loop:
    """The training of one student at work; `step` is all that is repeated."""

    def __init__(self, student: PreTrainedModel, data: Encoded, soft: torch.Tensor, how: Fast) -> None:
        self.how, self.table = how, table(data, soft, how.device)
        self.lengths = np.array([len(row) for row in data.ids])
        self.steps = how.steps(len(data))
        on_cuda, longest = how.device == "cuda", self.table.ids.shape[1]
        self.fast = FastStudent(student, self.table.vocabulary, longest, multiple=head_multiple(how.device))
        self.leaves = self.fast.leaves()
        # a tensor, because a captured graph reads the rate from the device
        lr: Any = torch.tensor(how.lr, device=how.device) if on_cuda else how.lr
        self.optimizer = torch.optim.AdamW(
            list(self.leaves.values()), lr=lr, weight_decay=how.weight_decay, fused=True, capturable=on_cuda
        )
        self.losses = torch.zeros((), device=how.device)
        self._run: Callable[[torch.Tensor, Shape], torch.Tensor] = (
            Captured(self._whole_step) if on_cuda else self._whole_step
        )
        # with dropout not: both threads would draw from one generator, in whatever order
        threads = torch.get_num_threads() if how.device == "cpu" and not how.switches.dropout else 1
        self._halves = Halves() if threads > 1 and how.batch >= LEAST else None
        self._written = 0

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        return self.how.lr if self.how.constant else self.how.lr * rate(step, self.steps)

    def epoch(self, number: int) -> list[Draw]:
        """The batches of an epoch: a function of lengths, seed and number alone, on every device."""
        rng = np.random.default_rng([self.how.seed, number])
        return draws(self.lengths, self.how.batch, rng, buckets=self.how.switches.buckets)

    def feed(self, start: int) -> Iterator[tuple[int, torch.Tensor, Shape]]:
        """From step `start` on, for ever: the step's number, its examples on the device, their shape. One transfer an epoch."""
        a_epoch = self.steps // self.how.epochs
        first, skip = divmod(start, a_epoch)
        epoch, step = first, start
        while True:
            drawn = self.epoch(epoch)
            rows = torch.from_numpy(np.concatenate([draw.rows for draw in drawn])).to(self.how.device)
            parts = rows.split([len(draw.rows) for draw in drawn])
            for part, draw in islice(zip(parts, drawn, strict=True), skip, None):
                yield step, part, draw.shape
                step += 1
            epoch, skip = epoch + 1, 0

    def loss(self, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        """The KD loss of the examples `rows` (indices on the device), by the trained leaves."""
        how, ids_and_mask = self.how, self.table.batch(rows, shape)
        # without its cache: in a graph a cached cast would keep the first step's weights
        with torch.autocast(how.device, torch.bfloat16, enabled=how.dtype == "bfloat16", cache_enabled=False):
            logits = self.fast.logits(self.leaves, *ids_and_mask, dropout=how.switches.dropout)
        taught, labels = (whole.index_select(0, rows) for whole in (self.table.soft, self.table.labels))
        return distillation_loss(logits.float(), taught, labels, temperature=how.temperature, alpha=how.alpha)

    def step(self, number: int, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        """Step `number` on these examples; its loss, on the device. Does not wait for it."""
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(self.rate(number))
        else:
            group["lr"] = self.rate(number)
        return self._run(rows, shape)

    def _whole_step(self, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        loss = self._backward(rows, shape)
        self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses += loss
        return loss

    def _backward(self, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        if self._halves and len(rows) >= LEAST:
            return self._halves.backward(lambda part: self.loss(part, shape), rows)
        loss = self.loss(rows, shape)
        loss.backward()
        return loss.detach()

    def _clip(self) -> None:
        """`clip_grad_norm_` without a pass of its own: the fused optimizer divides each gradient as it reads it."""
        leaves = list(self.leaves.values())
        norm = torch.nn.utils.get_total_norm([leaf.grad for leaf in leaves if leaf.grad is not None])
        if self.how.device == "mps":  # torch 2.13: its fused AdamW takes no scale
            torch.nn.utils.clip_grads_with_norm_(leaves, CLIP, norm)
        else:
            self.optimizer.grad_scale = ((norm + 1e-6) / CLIP).clamp(min=1.0).float()

    def write_back(self, done: int) -> None:
        """Give the student what `done` steps made of it; what it has already is not written again.

        Raises:
            DataError: the training diverged.
        """
        if done == self._written:
            return
        if not bool(torch.isfinite(self.losses)):
            raise DataError("the training diverged: its loss is not finite", remedy="lower the learning rate")
        decay = np.prod([1 - self.rate(step) * self.how.weight_decay for step in range(self._written, done)])
        self.fast.write_back(self.leaves, float(decay))
        self._written = done

    def close(self) -> None:
        """End what the loop has running."""
        if self._halves:
            self._halves.close()
