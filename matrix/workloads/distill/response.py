"""The response workload's stacks: what they are given, and the definitions of their three kinds of work.

`labels` are the ids themselves, with the prompt's set to -100; the logits at one position predict the token of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from transformers import PreTrainedTokenizerBase

from matrix import flops
from matrix.profile import Response
from matrix.workloads.conversations import IGNORED, ResponseExample
from matrix.workloads.distill import Batch, Run, Work, inputs_of, reference

BETA: Final = 0.5
"""Token KD's divergence: the Jensen-Shannon divergence, GKD's own default."""


@dataclass(frozen=True, kw_only=True)
class ResponseWork(Work):
    """What every stack of the response workload is given.

    Causal models of one vocabulary; `loader` yields `input_ids`, `attention_mask` and `labels`, batch x length each;
    `conversations` are the same rows as messages, for libraries that tokenise themselves. `teacher` is on the meta device
    where the work needs none. Nothing has dropout, `temperature` is 1, and nothing is added to a divergence: `alpha` is 1.
    """

    tokenizer: PreTrainedTokenizerBase
    conversations: Sequence[ResponseExample]
    shape: Response


class ResponseRun(Run):
    """A stack of the response workload."""

    work: ResponseWork

    def step_flop(self, length: int) -> int:
        """FLOPs of one step: models forward over whole rows, logits for the answers alone, whatever a library computes."""
        shape, batch = self.work.shape, self.work.batch
        rows, unread = {"batch": batch, "length": length}, batch * (length - shape.answer)
        of_teacher, of_student = (
            flops.decoder_forward(one, **rows) - flops.output_forward(one, unread)
            for one in (shape.teacher, shape.student)
        )
        taught = round(self.teacher_passes * of_teacher)
        if shape.lora_rank is None:
            return flops.distillation_step(taught, of_student)
        adapters = flops.adapters_forward(shape.student, rank=shape.lora_rank, tokens=batch * length)
        attention = flops.attention_forward(shape.student, **rows)
        return taught + flops.adapted_training(of_student, attention, adapters)


class AnswersRun(ResponseRun):
    """Cross entropy on the answers: no teacher takes part in a step, its answers are the labels."""

    teacher_passes = 0

    def expected(self, batch: Batch) -> torch.Tensor:
        """The cross entropy of the answers, from its definition."""
        with self.work.autocast():
            logits = self.work.student(**inputs_of(batch)).logits
        return reference.answers(logits, batch["labels"])


class TokenLogitsRun(ResponseRun):
    """Divergence from the teacher's next-token distributions on its answers, at temperature 1."""

    def expected(self, batch: Batch) -> torch.Tensor:
        """The divergence, from its definition."""
        with self.work.autocast():
            logits, taught = (model(**inputs_of(batch)).logits for model in (self.work.student, self.work.teacher))
        return reference.token_divergence(logits, taught, batch["labels"], beta=BETA)


def predictions(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The logits (answer tokens x vocabulary) that predict the labelled tokens of `labels` (batch x length)."""
    return logits[:, :-1][labels[:, 1:] != IGNORED]
