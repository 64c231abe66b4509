"""TinyBERT's two stages in plain PyTorch: first the inside of the teacher without a label, then output KD.

Jiao et al. 2020. Stage one sums, all of weight 1 (eq. 7 to 9 and 11): the mean squared difference of every hidden state of the
student, projected to the teacher's width, and of every layer's attention. Three departures: the paper compares attention scores
before the softmax, and transformers returns the probabilities after it, which are compared here; it shares one projection among
the layers, here each match has its own; its second stage is the soft cross entropy alone at T = 1, here it is the output KD of
every other stack. Which layer learns from which is an explicit map: TinyBERT's code asserts that the student's depth divides the
teacher's, and 4 does not divide 6.
"""

from __future__ import annotations

import torch

from matrix.workloads.distill import Batch, Work, reference_features
from matrix.workloads.distill.features import (
    LayerMap,
    Seen,
    attention_mse,
    check_heads,
    layer_map,
    projections,
    see,
    state_mse,
)
from matrix.workloads.distill.loop import Loop, online


class TwoStage(Loop):
    """The loop's state: in stage one while it has projections, which stage two drops.

    Raises:
        UsageError: the models have different numbers of attention heads, or `layers` is no map of their depths.
    """

    def __init__(self, work: Work, layers: LayerMap | None = None) -> None:
        check_heads(work.student, work.teacher)
        self.layers = layer_map(work.student, work.teacher, layers)
        self.projected = self.projections = projections(work, len(self.layers))
        super().__init__(work, self.projections.parameters())

    @property
    def trained(self) -> tuple[torch.nn.Parameter, ...]:
        """The student's parameters, then the projections in the order of their matches."""
        return (*super().trained, *self.projections.parameters())

    def progress(self, done: int, total: int) -> None:
        """Begin the second stage at half."""
        if len(self.projections) and 2 * done >= total:
            self._second_stage()

    def _second_stage(self) -> None:
        """A training of its own: no projections, and no moments of another loss. The optimizer stays the one that is watched."""
        self.projected = self.projections = torch.nn.ModuleList()
        self.optimizer.state.clear()
        self.optimizer.param_groups[0]["params"] = list(self.trained)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The features' loss in stage one, output KD in stage two."""
        return self._features(batch) if len(self.projections) else online(self.work, self.work.student, batch)

    def _seen(self, batch: Batch) -> tuple[Seen, Seen]:
        with self.work.autocast():
            with torch.no_grad():
                teacher = see(self.work.teacher, batch, attentions=True)
            student = see(self.work.student, batch, attentions=True)
        return student, teacher

    def _features(self, batch: Batch) -> torch.Tensor:
        student, teacher = self._seen(batch)
        mask = batch["attention_mask"]
        with self.work.autocast():
            projected = [one(state) for one, state in zip(self.projections, student.states, strict=True)]
        hidden = [
            state_mse(mine, teacher.states[layer], mask) for mine, layer in zip(projected, self.layers, strict=True)
        ]
        attention = [
            attention_mse(mine, teacher.attentions[layer - 1], mask)
            for mine, layer in zip(student.attentions, self.layers[1:], strict=True)
        ]
        return torch.stack([*hidden, *attention]).sum()

    def expected(self, batch: Batch) -> torch.Tensor:
        """The stage's loss, from its definition."""
        if not len(self.projections):
            return super().expected(batch)
        student, teacher = self._seen(batch)
        return reference_features.tinybert_features(
            student, teacher, tuple(self.projections), self.layers, batch["attention_mask"]
        )


def prepare(work: Work) -> TwoStage:
    """The loop, ready to step: in stage one, which the training-step suite times."""
    return TwoStage(work)
