"""Knowledge-Distillation-Zoo, attention transfer: where the student looks is drawn to where the teacher looks.

Zagoruyko, Komodakis 2017, section 3.1: a map `F(A) = sum over channels of |A|^p` of an activation tensor A (channels x places),
and eq. 2: the distance of the two maps, each divided by its L2 norm. For text the tensor is what a layer's attention is made of:
its heads are the channels, its pairs of tokens the places, so that F is heads x tokens x tokens summed over heads, and the
numbers of heads may differ. The hidden states are no such tensor in a BERT: each ends in a LayerNorm, after which every token has
nearly the same sum of squares, whatever the text; their map is flat (tests/real/test_features.py).
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Work, reference_features
from matrix.workloads.distill.features import Seen, layer_map
from matrix.workloads.distill.with_features import WithFeatures

WEIGHT: Final = 1000.0
"""The Zoo's `lambda_kd` of a mean over places; the paper's beta is 10^3 over the number of places, with a 1/2."""
POWER: Final = 2
"""p, of the paper's experiments and the Zoo."""


class AT(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """The mean squared difference of two layers' normalised maps."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attention probabilities batch x heads x tokens x tokens; the mean is over pairs of tokens that are no padding."""
        pairs = mask[:, :, None] * mask[:, None, :]
        mine, theirs = (F.normalize(self.map(one, pairs), dim=1) for one in (student, teacher))
        return (mine - theirs).square().sum() / pairs.sum()

    def map(self, attention: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """`sum over heads of |A|^p`, batch x places, 0 where a place is padding."""
        return (attention.float().abs().pow(POWER).sum(1) * pairs).flatten(1)


class Attention(WithFeatures):
    """The mean over the student's layers, each beside the teacher's layer of the map, as the Zoo takes the mean of its three."""

    weight = WEIGHT
    attentions = True

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.criterion = AT()
        self._taught = layer_map(work.student, work.teacher)[1:]

    def _pairs(self, student: Seen, teacher: Seen) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [
            (mine, teacher.attentions[layer - 1]) for mine, layer in zip(student.attentions, self._taught, strict=True)
        ]

    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """The layers' mean."""
        return torch.stack([self.criterion(*pair, mask) for pair in self._pairs(student, teacher)]).mean()

    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """The same, layer by layer and example by example."""
        return reference_features.attention_transfer(self._pairs(student, teacher), mask)


def prepare(work: Work) -> Attention:
    """The loop, ready to step."""
    return Attention(work)
