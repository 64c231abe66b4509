"""Knowledge-Distillation-Zoo, relational: distances and angles among the batch's examples are the teacher's.

Park et al. 2019 (RKD), section 3.2, on the embeddings of [CLS]; widths may differ, for only relations are compared. The paper sums
over pairs and triples of distinct examples; its authors' code and the Zoo take the mean over all N^2 and N^3, to which the weights
belong. Angles are at every example, between every two others.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads.distill import Work, reference_features
from matrix.workloads.distill.features import Seen
from matrix.workloads.distill.with_features import WithFeatures

DISTANCE: Final = 25.0
ANGLE: Final = 50.0
"""The paper's weights for classification (section 4.2), and the Zoo's `w_dist` and `w_angle`."""
EPSILON: Final = 1e-12
"""The least norm, and the least mean distance, that anything is divided by."""


class RKD(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """`DISTANCE * distance + ANGLE * angle`, both Huber losses."""

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The loss of embeddings, batch x width each.

        Differences are taken element by element and not through `|a|^2 + |b|^2 - 2ab`, which loses the digits of examples that
        lie close; the norm's gradient at 0, an example and itself, is 0 in torch, where a square root's is infinite.
        """
        mine, theirs = (one[None, :, :] - one[:, None, :] for one in (student, teacher))
        distance = F.smooth_l1_loss(self.distances(mine), self.distances(theirs))
        return DISTANCE * distance + ANGLE * F.smooth_l1_loss(self.angles(mine), self.angles(theirs))

    def distances(self, differences: torch.Tensor) -> torch.Tensor:
        """Distances over their mean among distinct examples, N x N (section 3.2.1)."""
        found = torch.linalg.vector_norm(differences, dim=2)
        pairs = max(1, found.numel() - len(found))
        return found / (found.sum() / pairs).clamp_min(EPSILON)

    def angles(self, differences: torch.Tensor) -> torch.Tensor:
        """Cosines at the first example between the second and the third, N x N x N (section 3.2.2)."""
        directions = F.normalize(differences, dim=2, eps=EPSILON)
        return directions @ directions.mT


class Relational(WithFeatures):
    """RKD on the examples' embeddings."""

    weight = 1.0

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.criterion = RKD()

    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - [CLS] is no padding
        """Both relations."""
        loss: torch.Tensor = self.criterion(student.embedding, teacher.embedding)
        return loss

    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - [CLS] is no padding
        """The same, example by example."""
        return reference_features.relational(student.embedding, teacher.embedding, distance=DISTANCE, angle=ANGLE)


def prepare(work: Work) -> Relational:
    """The loop, ready to step."""
    return Relational(work)
