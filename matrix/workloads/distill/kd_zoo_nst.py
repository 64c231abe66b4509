"""Knowledge-Distillation-Zoo, neuron selectivity transfer: the student's units prefer the tokens that the teacher's prefer.

Huang, Wang 2017, section 4: a unit's activations over the places, divided by their L2 norm, are one sample of a distribution; the
loss is the squared maximum mean discrepancy of the student's samples and the teacher's under the polynomial kernel
`k(x, y) = (x . y)^2` (d = 2, c = 0). A unit is a component of the last hidden state, its places the tokens: both
models must see the same tokens, and may have different widths. Padding is 0 in every sample.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Work, reference_features
from matrix.workloads.distill.features import Seen
from matrix.workloads.distill.with_features import WithFeatures

WEIGHT: Final = 10.0
"""The Zoo's `lambda_kd`."""


class NST(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """The squared discrepancy, mean over the batch."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The loss of hidden states, batch x tokens x width each.

        `mean_ij (f_i . g_j)^2` is the inner product of the mean outer products `mean_i f_i f_i^T` (tokens x tokens), so that the
        three kernel means are one squared Frobenius norm: no width x width x tokens is held, and no digits cancel.
        """
        mine, theirs = (self.outer(one.float() * mask[:, :, None]) for one in (student, teacher))
        return (mine - theirs).square().sum((1, 2)).mean()

    def outer(self, states: torch.Tensor) -> torch.Tensor:
        """The units' mean outer product, batch x tokens x tokens."""
        units = F.normalize(states, dim=1)
        return units @ units.mT / units.shape[2]


class Selectivity(WithFeatures):
    """NST on the last hidden states."""

    weight = WEIGHT

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.criterion = NST()

    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """The batch's loss."""
        loss: torch.Tensor = self.criterion(student.states[-1], teacher.states[-1], mask)
        return loss

    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """The same as three kernel means, example by example."""
        return reference_features.selectivity(student.states[-1], teacher.states[-1], mask)


def prepare(work: Work) -> Selectivity:
    """The loop, ready to step."""
    return Selectivity(work)
