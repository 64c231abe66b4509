"""On-policy distillation in trl's `DistillationTrainer` (seed, section 2.8, for trl 1.16.0, which has no other policy).

A step generates answers of the student to a batch of prompts, then matches the teacher's next-token distributions on them:
reverse KL at temperature 1, mean over the generated tokens, no T^2. Every answer has exactly as many tokens as the profile says
(`min_new_tokens`): a student with random weights ends its answers at random, and steps would differ in work.

One batch of prompts is generated and used once a step: with gradient accumulation the trainer would generate for all of its
micro-batches at once, before the first.
"""

from __future__ import annotations

import torch
from datasets import Dataset
from trl import DistillationConfig, DistillationTrainer

from matrix import flops
from matrix.workloads.conversations import IGNORED, messages
from matrix.workloads.distill import Batch, reference
from matrix.workloads.distill.halted_trainer import HaltCallback, HaltedTrainer, arguments
from matrix.workloads.distill.response import ResponseRun, ResponseWork

REVERSE_KL = 1.0


class TrlDistillation(HaltedTrainer, ResponseRun):
    """A trainer at work in a coroutine."""

    has_phases = False  # the teacher is called inside the student's redirected forward, and generating is many forwards

    def __init__(self, work: ResponseWork) -> None:
        super().__init__(work)
        answer = work.shape.answer
        self.trainer = DistillationTrainer(
            model=work.student,
            teacher_model=work.teacher,
            args=DistillationConfig(
                **arguments(work, self.folder),
                beta=REVERSE_KL,
                temperature=1.0,
                max_completion_length=answer,
                generation_kwargs={"min_new_tokens": answer},
                gradient_checkpointing=False,
            ),
            train_dataset=Dataset.from_list([{"prompt": messages(example)[:1]} for example in work.conversations]),
            processing_class=work.tokenizer,
            optimizers=(self.optimizer, None),
            callbacks=[HaltCallback()],
        )
        self._generated: tuple[torch.Tensor, Batch] | None = None

    def generated(self, batch: Batch) -> Batch:
        """What the student answers to the first prompts of its data, once a batch: loss and definition see the same tokens."""
        if self._generated is None or self._generated[0] is not batch["input_ids"]:
            rows = self.work.conversations[: len(batch["input_ids"])]
            prompts = [{"prompt": messages(example)[:1]} for example in rows]
            self._generated = batch["input_ids"], self.trainer._prepare_inputs(prompts)  # noqa: SLF001 - its generation
        return self._generated[1]

    def loss(self, batch: Batch) -> torch.Tensor:
        """The trainer's own loss on what it generates for the batch."""
        return super().loss(self.generated(batch))

    def expected(self, batch: Batch) -> torch.Tensor:
        """The divergence on the same tokens, from its definition."""
        rows, work = self.generated(batch), self.work
        ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], 1)
        labels = torch.cat([torch.full_like(rows["prompt_ids"], IGNORED), rows["completion_ids"]], 1)
        with work.autocast():
            logits, taught = (
                model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
                for model in (work.student, work.teacher)
            )
        return reference.token_divergence(logits, taught, labels, beta=REVERSE_KL)

    def step_flop(self, length: int) -> int:
        """The step on a whole row, and generating its answer before."""
        shape = self.work.shape
        prompt = length - shape.answer
        made = flops.decoder_generation(shape.student, batch=self.work.batch, prompt=prompt, new=shape.answer)
        return super().step_flop(length) + made


def prepare(work: ResponseWork) -> TrlDistillation:
    """The trainer, ready to step."""
    return TrlDistillation(work)
