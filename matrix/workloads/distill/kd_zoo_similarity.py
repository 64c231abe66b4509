"""Knowledge-Distillation-Zoo, similarity-preserving: examples that are alike to the teacher are alike to the student.

Tung, Mori 2019, section 3: `G = Q Q^T` of the batch's activations Q (batch x values), each row divided by its L2 norm, and
`L = 1/b^2 ||G_T - G_S||_F^2`. Q is the embeddings of [CLS]: the paper flattens a whole map, in which a place means the same
in every image; the fifth token of two utterances has no such thing in common.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Work, reference_features
from matrix.workloads.distill.features import Seen
from matrix.workloads.distill.with_features import WithFeatures

WEIGHT: Final = 3000.0
"""The paper's gamma, and the Zoo's `lambda_kd`."""


class SP(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """The mean squared difference of two row-normalised similarity matrices."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss of embeddings, batch x width each."""
        mine, theirs = (F.normalize(one @ one.mT, dim=1) for one in (student, teacher))
        return F.mse_loss(mine, theirs)


class Similarity(WithFeatures):
    """SP on the examples' embeddings."""

    weight = WEIGHT

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.criterion = SP()

    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - [CLS] is no padding
        """The batch's loss."""
        loss: torch.Tensor = self.criterion(student.embedding, teacher.embedding)
        return loss

    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - [CLS] is no padding
        """The same, row by row."""
        return reference_features.similarity(student.embedding, teacher.embedding)


def prepare(work: Work) -> Similarity:
    """The loop, ready to step."""
    return Similarity(work)
