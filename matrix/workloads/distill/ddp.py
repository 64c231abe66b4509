"""Knowledge distillation under DistributedDataParallel, two processes (seed, section 2.2, its traps mended).

The frozen teacher stays outside: DDP refuses a module without gradients, and it has none to reduce. Every forward pass goes
through the wrapper: `ddp.module(...)` would skip the reducer, and the ranks would part without a word.
"""

from __future__ import annotations

import torch
from torch.nn.parallel import DistributedDataParallel

from matrix.workloads.distill import CLIP, Batch, Gradients, Work, gradients, ranks
from matrix.workloads.distill.loop import online


class Half(ranks.Half):
    """One rank's loop."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.model = DistributedDataParallel(work.student)
        self.optimizer = work.optimizer()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Teacher without gradient, student through the wrapper; the KD loss of both."""
        return online(self.work, self.model, batch)

    def step(self, batch: Batch) -> None:
        """One step of the loop: the backward pass leaves the mean of both ranks' gradients in each."""
        self.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(self, batch: Batch) -> Gradients:
        """Both ranks hold the whole gradient."""
        loss = self.loss(batch)
        found = gradients(loss, [one for one in self.work.student.parameters() if one.requires_grad])
        return found._replace(loss=float(ranks.over_ranks(loss)))


class Ddp(ranks.Ranks):
    """Rank 0 and its peer; the student is whole in each."""


def prepare(work: Work) -> Ddp:
    """Both ranks, ready to step."""
    return Ddp(work, Half)
