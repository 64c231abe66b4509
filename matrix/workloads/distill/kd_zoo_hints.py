"""Knowledge-Distillation-Zoo, FitNet hints: the student's middle layer, projected, is drawn to the teacher's.

Romero et al. 2015 (FitNets), section 2.2 and eq. 3: `1/2 ||u_h(x) - r(v_g(x))||^2` of the middle layers, r a learnt regressor.
The paper minimises it before it begins output KD; the Zoo, and the seed's snippet, add it to the loss of every step, as a mean
without the 1/2. The regressor is linear, token by token (the paper's is a convolution for the same reason: one map for all places).
"""

from __future__ import annotations

from typing import Final

import torch

from matrix.workloads.distill import Work, reference_features
from matrix.workloads.distill.features import Seen, layer_map, projections, state_mse
from matrix.workloads.distill.with_features import WithFeatures

WEIGHT: Final = 0.1
"""The Zoo's `lambda_kd`."""


class Hints(WithFeatures):
    """The hint of one pair of layers: 2 of the student's 4 and 3 of the teacher's 6."""

    weight = WEIGHT

    def __init__(self, work: Work) -> None:
        super().__init__(work, projections(work, 1))
        self.guided = (work.student.config.num_hidden_layers + 1) // 2
        self.hint = layer_map(work.student, work.teacher)[self.guided]

    def transfer(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """Mean squared difference over real tokens and the teacher's width."""
        with self.work.autocast():
            projected = self.added[0](student.states[self.guided])
        return state_mse(projected, teacher.states[self.hint], mask)

    def defined(self, student: Seen, teacher: Seen, mask: torch.Tensor) -> torch.Tensor:
        """The same, example by example."""
        return reference_features.hidden_states(
            student.states[self.guided], teacher.states[self.hint], self.added[0], mask
        )


def prepare(work: Work) -> Hints:
    """The loop, ready to step."""
    return Hints(work)
