"""Knowledge distillation in a transformers `Trainer` with its own loss (seed, section 2.3, its traps mended).

The trainer's own loop is what runs, so that a timed step holds all that a user of the Trainer pays for: fetching, collation,
schedule, callbacks.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from matrix.workloads.distill import Work, inputs_of
from matrix.workloads.distill.halted_trainer import HaltCallback, HaltedTrainer, arguments
from matrix.workloads.train import distillation_loss


class DistillationTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """A Trainer whose loss looks at a frozen teacher."""

    def __init__(self, *, teacher: torch.nn.Module, temperature: float, alpha: float, **kwargs: Any) -> None:  # noqa: ANN401 - the Trainer's own
        super().__init__(**kwargs)
        # The teacher stays a plain module: wrapped in DDP a frozen model raises, and it needs no gradient traffic.
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature, self.alpha = temperature, alpha
        # compute_loss returns a batch mean. The Trainer believes that a loss which takes **kwargs has divided by the number
        # of items in the accumulated batch, and skips its own division: gradients grow with the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def compute_loss(  # the Trainer's own signature
        self,
        model: Any,  # noqa: ANN401
        inputs: Any,  # noqa: ANN401
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ANN401, ARG002
    ) -> Any:  # noqa: ANN401
        """The KD loss; only the inputs that DistilBERT takes reach the teacher (it has no token types)."""
        fed = inputs_of(inputs)
        # transformers 4.57 puts only the prepared student under autocast: the teacher, most of the work, would stay in fp32
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
            with torch.no_grad():
                taught = self.teacher(**fed).logits
            outputs = model(**fed)
        loss = distillation_loss(
            outputs.logits.float(), taught.float(), inputs["labels"], temperature=self.temperature, alpha=self.alpha
        )
        return (loss, outputs) if return_outputs else loss


class HfTrainer(HaltedTrainer):
    """A trainer at work in a coroutine."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.trainer = DistillationTrainer(
            model=work.student,
            teacher=work.teacher,
            temperature=work.temperature,
            alpha=work.alpha,
            args=TrainingArguments(**arguments(work, self.folder), remove_unused_columns=False),
            train_dataset=work.loader.dataset,
            optimizers=(self.optimizer, None),
            callbacks=[HaltCallback()],
        )


def prepare(work: Work) -> HfTrainer:
    """The trainer, ready to step."""
    return HfTrainer(work)
