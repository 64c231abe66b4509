"""Response distillation as a plain PyTorch loop: the reference of the response workload's other stacks (seed, section 2.7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Batch, inputs_of
from matrix.workloads.distill.loop import Loop
from matrix.workloads.distill.response import AnswersRun, ResponseWork


class RawSft(Loop, AnswersRun):
    """The plain loop on a teacher's answers."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Cross entropy of each answer's next token, mean over the batch's answer tokens."""
        with self.work.autocast():
            logits = self.work.student(**inputs_of(batch), use_cache=False).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten())


def prepare(work: ResponseWork) -> RawSft:
    """The loop, ready to step."""
    return RawSft(work)
