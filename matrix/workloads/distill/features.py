"""What the feature methods read of teacher and student: hidden states, attention probabilities, which layer learns from which.

An example's embedding is the last hidden state of its first token, [CLS]: it is all that both classifiers read. What a
convolution has over its places an encoder has over its tokens, so methods of feature maps see every token, padding left out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import torch
from transformers import PreTrainedModel

from matrix.errors import DataError, UsageError
from matrix.workloads.distill import Batch, Work, inputs_of

LayerMap = tuple[int, ...]
"""For each hidden state of the student, the embeddings' first, the number of the teacher's: 0 is its embeddings, m layer m."""

MAPS: Final[dict[tuple[int, int], LayerMap]] = {(4, 6): (0, 1, 3, 4, 6)}
"""By the layers of student and teacher. TinyBERT's code takes every (N / M)th layer and refuses an N that M does not divide."""


class Seen(NamedTuple):
    """One forward pass of a model of L layers.

    `logits` are batch x classes; `states` L + 1 tensors of batch x tokens x width, the embeddings first; `attentions` L
    tensors of batch x heads x tokens x tokens, the probabilities after the softmax, or none where they were not asked for.
    """

    logits: torch.Tensor
    states: tuple[torch.Tensor, ...]
    attentions: tuple[torch.Tensor, ...] = ()

    @property
    def embedding(self) -> torch.Tensor:
        """The examples' embeddings, float32, batch x width: the last hidden state of [CLS]."""
        return self.states[-1][:, 0].float()


def see(model: PreTrainedModel, batch: Batch, *, attentions: bool = False) -> Seen:
    """A forward pass of `model` that shows its inside.

    The models keep their fused attention: transformers 4.57.6 computes a forward pass that is asked for attentions with the
    eager attention's own code, bit for bit, says so once in its log, and stays fused in every other pass
    (`set_attn_implementation` would change nothing: the modules' classes were chosen when the model was built).

    Raises:
        DataError: the model gives no attention probabilities.
    """
    found = model(**inputs_of(batch), output_hidden_states=True, output_attentions=attentions)
    told = tuple(found.attentions or ()) if attentions else ()
    if attentions and (not told or any(one is None for one in told)):
        raise DataError(
            f"the {model.config.model_type} model gives no attention probabilities",
            remedy="load it with attn_implementation='eager'",
        )
    return Seen(found.logits, tuple(found.hidden_states), told)


def layer_map(student: PreTrainedModel, teacher: PreTrainedModel, given: LayerMap | None = None) -> LayerMap:
    """Which hidden state of the teacher each of the student's learns from: `given`, else the map for these depths.

    Equal depths need no map. No rule derives the others: rounding m N / M gives (0, 2, 3, 4, 6) for 4 of 6 layers.

    Raises:
        UsageError: no map is known for these depths, or `given` is none: one entry a hidden state of the student, ascending,
            none beyond the teacher's last.
    """
    mine, theirs = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    found = given or MAPS.get((mine, theirs)) or (tuple(range(mine + 1)) if mine == theirs else None)
    if found is None:
        raise UsageError(
            f"no map is known from {theirs} layers of a teacher to {mine} of a student",
            remedy=f"give one: for each of the student's {mine + 1} hidden states the number of the teacher's, 0 to {theirs}",
        )
    ascending = all(left < right for left, right in pairwise(found))
    if len(found) != mine + 1 or not ascending or not 0 <= found[0] <= found[-1] <= theirs:
        raise UsageError(
            f"{found} maps no {mine} layers to {theirs}",
            remedy=f"give {mine + 1} numbers that ascend within 0 to {theirs}: the first is the embeddings'",
        )
    return found


def check_heads(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse models whose attention cannot be compared head by head.

    Raises:
        UsageError: they have different numbers of heads.
    """
    heads = [model.config.num_attention_heads for model in (student, teacher)]
    if heads[0] != heads[1]:
        raise UsageError(
            f"the student has {heads[0]} attention heads and the teacher {heads[1]}",
            remedy="they are compared one by one: give a student with as many heads as the teacher",
        )


def projections(work: Work, count: int) -> torch.nn.ModuleList:
    """`count` linear maps from the student's width to the teacher's, drawn from the work's seed; no other draw is disturbed."""
    widths = work.student.config.hidden_size, work.teacher.config.hidden_size
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(work.seed)
        made = torch.nn.ModuleList(torch.nn.Linear(*widths) for _ in range(count))
    return made.to(work.device)


def state_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over the tokens that are no padding, and the width; batch x tokens x width, mask batch x tokens."""
    squared = (student.float() - teacher.float()).square() * mask[:, :, None]
    return squared.sum() / (mask.sum() * student.shape[-1])


def attention_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over heads and pairs of tokens of which none is padding; batch x heads x tokens x tokens."""
    pairs = (mask[:, :, None] * mask[:, None, :])[:, None]
    squared = (student.float() - teacher.float()).square() * pairs
    return squared.sum() / (pairs.sum() * student.shape[1])
