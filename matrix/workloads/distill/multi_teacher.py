"""Output KD to several teachers at once: the student learns the mean of their softened distributions (plain PyTorch).

`(1 - alpha) CE + alpha T^2 KL(mean_k softmax(t_k / T) || softmax(s / T))`, the teachers weighted alike (Hinton et al. 2015 take an
ensemble's arithmetic or geometric mean; here the arithmetic). TextBrewer 0.2.1.post1 has a MultiTeacherDistiller that does other
work: it averages the logits, and softens that one mean, which is the distributions' geometric mean; it lacks T^2 too. Hence this.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Batch, Work, inputs_of, reference
from matrix.workloads.distill.loop import Loop


class MultiTeacher(Loop):
    """The loop's state: the work's teacher, and another of its shape."""

    teacher_passes = 2

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._another = work.another_teacher()

    @property
    def teachers(self) -> tuple[torch.nn.Module, ...]:
        """Both."""
        return (self.work.teacher, self._another)

    def _logits(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The student's and each teacher's, batch x classes, fp32."""
        with self.work.autocast():
            with torch.no_grad():
                taught = [teacher(**inputs_of(batch)).logits.float() for teacher in self.teachers]
            return self.work.student(**inputs_of(batch)).logits.float(), taught

    def loss(self, batch: Batch) -> torch.Tensor:
        """KD to the mean of the softened distributions, and cross entropy with the labels."""
        logits, taught = self._logits(batch)
        temperature, alpha = self.work.temperature, self.work.alpha
        target = torch.stack([F.softmax(one / temperature, -1) for one in taught]).mean(0)
        soft = F.kl_div(F.log_softmax(logits / temperature, -1), target, reduction="batchmean")
        return (1 - alpha) * F.cross_entropy(logits, batch["labels"]) + alpha * temperature**2 * soft

    def expected(self, batch: Batch) -> torch.Tensor:
        """The same, from its definition."""
        logits, taught = self._logits(batch)
        return reference.several_teachers(
            logits, taught, batch["labels"], temperature=self.work.temperature, alpha=self.work.alpha
        )


def prepare(work: Work) -> MultiTeacher:
    """The loop, ready to step."""
    return MultiTeacher(work)
