"""Knowledge-Distillation-Zoo, soft targets: its loss class beside a cross entropy, the same work as raw output KD.

The Zoo's script adds 0.1 of this loss to the whole cross entropy; here the two are weighed as every stack of this work weighs them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import CLIP, Batch, Run, Work, inputs_of


class SoftTarget(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))`, mean over the batch (Hinton, Vinyals, Dean 2015, section 2)."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss of logits, both batch x classes."""
        log_p = F.log_softmax(student / self.temperature, dim=1)
        q = F.softmax(teacher / self.temperature, dim=1)
        return F.kl_div(log_p, q, reduction="batchmean") * self.temperature**2


class SoftTargets(Run):
    """The script's loop: two criteria, one sum."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.optimizer = work.optimizer()
        self._feed = work.batches()
        self._hard, self._soft = torch.nn.CrossEntropyLoss(), SoftTarget(work.temperature)

    def loss(self, batch: Batch) -> torch.Tensor:
        """`(1 - alpha) CE + alpha SoftTarget`."""
        work = self.work
        with work.autocast():
            with torch.no_grad():
                taught = work.teacher(**inputs_of(batch)).logits
            logits = work.student(**inputs_of(batch)).logits
        hard = self._hard(logits.float(), batch["labels"])
        soft: torch.Tensor = self._soft(logits.float(), taught.float())
        return (1 - work.alpha) * hard + work.alpha * soft

    def step(self) -> None:
        """One step of the loop."""
        self.optimizer.zero_grad()
        self.loss(next(self._feed)).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()


def prepare(work: Work) -> SoftTargets:
    """The loop, ready to step."""
    return SoftTargets(work)
