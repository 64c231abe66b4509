"""Token-level distillation on the teacher's answers as a plain PyTorch loop: the reference of `trl_gkd`.

The divergence is GKDTrainer's (trl 1.16.0), so that the two do the same work: generalised Jensen-Shannon at temperature 1, mean
over the answer's tokens, no T^2, no cross entropy beside it.
"""

from __future__ import annotations

import math

import torch

from matrix.workloads.distill import Batch, inputs_of
from matrix.workloads.distill.loop import Loop
from matrix.workloads.distill.response import BETA, ResponseWork, TokenLogitsRun, predictions


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean generalised Jensen-Shannon divergence of distributions given as logits (tokens x vocabulary), 0 < BETA < 1."""
    log_p, log_q = student.float().log_softmax(-1), teacher.float().log_softmax(-1)
    log_m = torch.logaddexp(log_q + math.log(BETA), log_p + math.log(1 - BETA))
    of_teacher, of_student = ((log.exp() * (log - log_m)).sum(-1) for log in (log_q, log_p))
    return (BETA * of_teacher + (1 - BETA) * of_student).mean()


class RawTokenKd(Loop, TokenLogitsRun):
    """The plain loop on the teacher's distributions."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Teacher without gradient, student with; the divergence of both on the answer's tokens."""
        work, labels = self.work, batch["labels"]
        with work.autocast():
            with torch.no_grad():
                taught = work.teacher(**inputs_of(batch), use_cache=False).logits
            logits = work.student(**inputs_of(batch), use_cache=False).logits
        return divergence(predictions(logits, labels), predictions(taught, labels))


def prepare(work: ResponseWork) -> RawTokenKd:
    """The loop, ready to step."""
    return RawTokenKd(work)
