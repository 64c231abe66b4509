"""Knowledge-Distillation-Zoo, PKT: with what probability an example has another as its neighbour.

Passalis, Tefas 2018 (probabilistic knowledge transfer), section 3: the cosine kernel `K(a, b) = (cos(a, b) + 1) / 2` over its row's
sum gives conditional probabilities, and the loss is the divergence of the student's from the teacher's, on the embeddings of [CLS].
The paper leaves an example out of its own neighbours and sums; its authors' code and the Zoo keep it in and take the mean over all
N^2, to which the weight belongs: so does this.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Work, reference_features
from matrix.workloads.distill.features import Seen
from matrix.workloads.distill.with_features import WithFeatures

WEIGHT: Final = 10_000.0
"""The Zoo's `lambda_kd`."""
EPSILON: Final = 1e-6
"""Added to every probability, so that opposite embeddings have a finite logarithm (the Zoo adds it within the logarithm only)."""


class PKT(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """The mean over all pairs of `p log(p / q)`, p the teacher's probabilities and q the student's."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss of embeddings, batch x width each.

        p and q differ by little, so that almost all of `p log(p / q)` cancels in the sum, and fp32 keeps few digits or none. Both
        have the same sum, and `p (r - log(1 + r))` with `r = (q - p) / p` adds up to the same, in terms of the second order only.
        """
        q, p = self.probabilities(student), self.probabilities(teacher)
        r = (q - p) / p
        return (p * (r - r.log1p())).mean()

    def probabilities(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Conditional probabilities, N x N, each row an example's."""
        directions = F.normalize(embeddings, dim=1)
        kernel = (directions @ directions.mT + 1) / 2
        return kernel / kernel.sum(1, keepdim=True) + EPSILON


class Neighbours(WithFeatures):
    """PKT on the examples' embeddings."""

    weight = WEIGHT

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.criterion = PKT()

    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - [CLS] is no padding
        """The batch's loss."""
        loss: torch.Tensor = self.criterion(student.embedding, teacher.embedding)
        return loss

    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - [CLS] is no padding
        """The same, example by example, with the logarithm of the ratio."""
        return reference_features.neighbours(student.embedding, teacher.embedding, epsilon=EPSILON)


def prepare(work: Work) -> Neighbours:
    """The loop, ready to step."""
    return Neighbours(work)
