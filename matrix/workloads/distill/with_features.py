"""Output KD plus one weighted loss on what teacher and student compute inside: the plain loop of the Zoo's feature methods.

AberHu/Knowledge-Distillation-Zoo is a repository of loss classes beside one training script, not a package: each method here
is its paper's formula, with the weight and the averaging of the Zoo's script. The Zoo adds a method to the cross entropy
alone; here it is added to output KD, so that a method's cost and gain stand beside the plain work.
"""

from __future__ import annotations

from abc import abstractmethod

import torch

from matrix.workloads.distill import Batch, Work, reference
from matrix.workloads.distill.features import Seen, see
from matrix.workloads.distill.loop import Loop
from matrix.workloads.train import distillation_loss


class WithFeatures(Loop):
    """The loop's state; a method gives `transfer`, its definition `defined`, and the weight of both.

    `added` is what the method trains beside the student.
    """

    weight: float
    attentions = False
    """Whether the method reads attention probabilities; they cost both models their fused attention."""
    bf16_tolerance = 5e-2
    """A gradient that adds up to almost nothing over the batch keeps its rounding: that of relations among the examples was 0.017
    off (the seed's models before training, torch 2.13 on a CPU), the other methods' at most 0.006. In fp32 all are below 4e-6."""

    def __init__(self, work: Work, added: torch.nn.Module | None = None) -> None:
        self.added = added or torch.nn.ModuleList()
        super().__init__(work, self.added.parameters())
        self.projected = [one for one in self.added.modules() if isinstance(one, torch.nn.Linear)]

    @property
    def trained(self) -> tuple[torch.nn.Parameter, ...]:
        """The student's parameters, then the method's."""
        return (*super().trained, *self.added.parameters())

    @abstractmethod
    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """The method's loss, unweighted; `mask` (batch x tokens) is 0 where a token is padding."""

    @abstractmethod
    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """`transfer` from its definition, in fp64 on the CPU."""

    def seen(self, batch: Batch) -> tuple[Seen, Seen]:
        """Student and teacher on `batch`; the teacher without gradient."""
        work = self.work
        with work.autocast():
            with torch.no_grad():
                teacher = see(work.teacher, batch, attentions=self.attentions)
            student = see(work.student, batch, attentions=self.attentions)
        return student, teacher

    def loss(self, batch: Batch) -> torch.Tensor:
        """Output KD and the weighted method; both are computed in fp32, outside autocast."""
        student, teacher = self.seen(batch)
        plain = distillation_loss(
            student.logits.float(),
            teacher.logits.float(),
            batch["labels"],
            temperature=self.work.temperature,
            alpha=self.work.alpha,
        )
        return plain + self.weight * self.transfer(student, teacher, batch["attention_mask"])

    def expected(self, batch: Batch) -> torch.Tensor:
        """Output KD and the weighted method, both from their definitions."""
        student, teacher = self.seen(batch)
        plain = reference.output_kd(
            student.logits,
            teacher.logits,
            batch["labels"],
            temperature=self.work.temperature,
            alpha=self.work.alpha,
        )
        return plain + self.weight * self.defined(student, teacher, batch["attention_mask"])
