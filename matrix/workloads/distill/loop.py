"""A training loop written by hand: what the plain PyTorch stacks have in common. A stack brings its loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedModel

from matrix.workloads.distill import CLIP, Batch, Run, Work, inputs_of
from matrix.workloads.train import distillation_loss


class Loop(Run):
    """The loop's state; `extra` are parameters that a method trains beside the student."""

    def __init__(self, work: Work, extra: Iterable[torch.nn.Parameter] = ()) -> None:
        super().__init__(work)
        self.optimizer = work.optimizer(extra)
        self._feed = work.batches()

    def step(self) -> None:
        """One step of the loop."""
        self.loss(next(self._feed)).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()


def online(work: Work, student: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Output KD on `batch`: teacher without gradient, `student` with (the work's own, or a wrapper of it); the loss of both."""
    with work.autocast():
        with torch.no_grad():
            taught = work.teacher(**inputs_of(batch)).logits
        logits = student(**inputs_of(batch)).logits
    return distillation_loss(
        logits.float(), taught.float(), batch["labels"], temperature=work.temperature, alpha=work.alpha
    )
