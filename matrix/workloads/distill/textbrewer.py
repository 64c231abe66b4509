"""Knowledge distillation with TextBrewer's GeneralDistiller (seed, section 2.4, its traps mended).

Its KD loss is the cross entropy of the softened distributions, without T^2: the seed's `kd_loss_weight=0.7` would give the teacher
a sixteenth of its say at T = 4. The weight here is alpha T^2. And cross entropy is KL plus the teacher's entropy, a constant that
no student moves: the gradients are output KD's, the loss is larger by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from matrix.workloads.distill import Batch, Work, inputs_of
from matrix.workloads.distill.brewed import Brewed


def _of_teacher(_: Mapping[str, torch.Tensor], outputs: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers is not typed
    return {"logits": outputs.logits.float()}


def _of_student(_: Mapping[str, torch.Tensor], outputs: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers is not typed
    return {"logits": outputs.logits.float(), "losses": outputs.loss}


class TextBrewer(Brewed):
    """Logits of teacher and student, and the student's own loss on the labels."""

    def __init__(self, work: Work) -> None:
        super().__init__(
            work,
            _of_teacher,
            _of_student,
            temperature=work.temperature,
            kd_loss_type="ce",
            kd_loss_weight=work.alpha * work.temperature**2,
            hard_label_weight=1 - work.alpha,
        )

    def fed(self, batch: Batch) -> dict[str, Any]:
        """The teacher gets no labels: it would compute a loss that nobody reads."""
        return {"teacher": inputs_of(batch), "student": dict(batch)}

    def expected(self, batch: Batch) -> torch.Tensor:
        """Output KD plus the teacher's entropy, alpha T^2 times: a constant."""
        work = self.work
        with torch.no_grad(), work.autocast():
            softened = work.teacher(**inputs_of(batch)).logits.cpu().double() / work.temperature
        entropy = torch.distributions.Categorical(logits=softened).entropy().mean()
        return super().expected(batch) + work.alpha * work.temperature**2 * entropy


def prepare(work: Work) -> TextBrewer:
    """The distiller, ready to step."""
    return TextBrewer(work)
