"""Knowledge distillation as a plain PyTorch loop: the reference of every other stack (seed, section 2.2)."""

from __future__ import annotations

import torch

from matrix.workloads.distill import Batch, Work
from matrix.workloads.distill.loop import Loop, online


class RawTorch(Loop):
    """The plain loop with the plain loss."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Teacher without gradient, student with; the KD loss of both."""
        return online(self.work, self.work.student, batch)


def prepare(work: Work) -> RawTorch:
    """The loop, ready to step."""
    return RawTorch(work)
