"""TinyBERT's first stage with TextBrewer's intermediate matches: the work of `tinybert_two_stage`, as a configuration.

Every hidden state of the student, projected, beside one of the teacher's (`hidden_mse`), and the attention probabilities of its
layers beside those of the same layers (`attention_mse`), all of weight 1; no labels and no logits. TextBrewer makes a projection a
match and adds it to the optimizer with the optimizer's own rate. It clips the student's gradients alone, by their own norm: the
projections' stay as they are, where a plain loop clips all that it trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from matrix.workloads.distill import Batch, Work, features, inputs_of, reference_features
from matrix.workloads.distill.brewed import Brewed


def _seen(inputs: Mapping[str, torch.Tensor], outputs: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers is not typed
    return {
        "hidden": [state.float() for state in outputs.hidden_states],
        "attention": [map_.float() for map_ in outputs.attentions],
        "inputs_mask": inputs["attention_mask"],
    }


def _matches(work: Work, layers: tuple[int, ...]) -> list[dict[str, Any]]:
    widths = [work.student.config.hidden_size, work.teacher.config.hidden_size]
    hidden = [
        {
            "layer_S": m,
            "layer_T": n,
            "feature": "hidden",
            "loss": "hidden_mse",
            "weight": 1,
            "proj": ["linear", *widths],
        }
        for m, n in enumerate(layers)
    ]
    attention = [
        {"layer_S": m, "layer_T": n - 1, "feature": "attention", "loss": "attention_mse", "weight": 1}
        for m, n in enumerate(layers[1:])
    ]
    return hidden + attention


class TextBrewerFeatures(Brewed):
    """Hidden states and attention maps of both models; transformers' fused attention gives way where maps are asked for."""

    forwarded: Mapping[str, bool] = {"output_hidden_states": True, "output_attentions": True}

    def __init__(self, work: Work) -> None:
        self.layers = features.layer_map(work.student, work.teacher)
        features.check_heads(work.student, work.teacher)
        super().__init__(work, _seen, _seen, kd_loss_weight=0, intermediate_matches=_matches(work, self.layers))
        self.projected = [one for one in self.distiller.projs if one is not None]
        # TextBrewer draws them anew in each process; here they are the raw stack's
        for mine, drawn in zip(self.projected, features.projections(work, len(self.layers)), strict=True):
            mine.load_state_dict(drawn.state_dict())

    @property
    def trained(self) -> tuple[torch.nn.Parameter, ...]:
        """The student's parameters, then the projections in the order of their matches."""
        return (*super().trained, *(one for projection in self.projected for one in projection.parameters()))

    def fed(self, batch: Batch) -> dict[str, Any]:
        """No labels."""
        return inputs_of(batch)

    def expected(self, batch: Batch) -> torch.Tensor:
        """The sum of the matches, from its definition."""
        with self.work.autocast():
            student, teacher = (
                features.see(model, batch, attentions=True) for model in (self.work.student, self.work.teacher)
            )
        return reference_features.tinybert_features(
            student, teacher, tuple(self.projected), self.layers, batch["attention_mask"]
        )


def prepare(work: Work) -> TextBrewerFeatures:
    """The distiller, ready to step."""
    return TextBrewerFeatures(work)
