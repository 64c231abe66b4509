"""Knowledge distillation as a plain PyTorch loop: the reference of every other stack (seed, section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from matrix.workloads.distill import CLIP, Batch, Work
from matrix.workloads.train import distillation_loss


class RawTorch:
    """The loop's state."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.optimizer = work.optimizer()
        self._feed = self._batches()
        work.student.train()

    def _batches(self) -> Iterator[Batch]:
        while True:
            for batch in self.work.loader:
                yield {name: tensor.to(self.work.device) for name, tensor in batch.items()}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Teacher without gradient, student with; the KD loss of both."""
        work = self.work
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.autocast(work.device, torch.bfloat16, enabled=work.dtype == "bfloat16"):
            with torch.no_grad():
                taught = work.teacher(**inputs).logits
            logits = work.student(**inputs).logits
        return distillation_loss(
            logits.float(), taught.float(), batch["labels"], temperature=work.temperature, alpha=work.alpha
        )

    def step(self) -> None:
        """One step of the loop."""
        self.loss(next(self._feed)).backward()
        torch.nn.utils.clip_grad_norm_(self.work.student.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def close(self) -> None:
        """Nothing runs between steps."""


def prepare(work: Work) -> RawTorch:
    """The loop, ready to step."""
    return RawTorch(work)
