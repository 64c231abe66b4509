"""Knowledge distillation in an `accelerate` loop: the plain one, whose device, precision and data the library manages (seed, B4).

The seed moves the teacher to the device and no more: under `mixed_precision` accelerate puts only what it prepared under
autocast, so that the teacher, most of the work, would stay in fp32. Here it is prepared for evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from matrix.workloads.distill import CLIP, Batch, Run, Work, inputs_of
from matrix.workloads.train import distillation_loss


def _forget() -> None:
    """Drop what accelerate 1.15 keeps for the whole process: device, precision, gradient accumulation, the current loader.

    Every Accelerator shares it, the one inside a transformers Trainer too: a second one of another precision raises, and a loader
    that was left in the middle decides when the next one's gradients are due. TrainingArguments resets the first two in this way.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - there is no public way
    GradientState._reset_state()  # noqa: SLF001 - likewise


class Accelerated(Run):
    """The loop's state. `optimizer` stays the inner one; `_stepper` is accelerate's around it."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        _forget()
        self.optimizer = work.optimizer()
        # "no" is said, not left out: TrainingArguments of a bf16 Trainer leave ACCELERATE_MIXED_PRECISION in the environment
        precision = "bf16" if work.dtype == "bfloat16" else "no"
        self.accelerator = Accelerator(cpu=work.device == "cpu", mixed_precision=precision)
        self._student, self._stepper, self._loader = self.accelerator.prepare(work.student, self.optimizer, work.loader)
        self._teacher = self.accelerator.prepare_model(work.teacher, evaluation_mode=True)
        self._feed = self._batches()

    def _batches(self) -> Iterator[Batch]:
        while True:
            yield from self._loader

    def loss(self, batch: Batch) -> torch.Tensor:
        """The KD loss; the prepared models bring their own precision and give fp32 logits."""
        with torch.no_grad():
            taught = self._teacher(**inputs_of(batch)).logits
        logits = self._student(**inputs_of(batch)).logits
        return distillation_loss(
            logits, taught, batch["labels"], temperature=self.work.temperature, alpha=self.work.alpha
        )

    def step(self) -> None:
        """One step of the loop."""
        self.accelerator.backward(self.loss(next(self._feed)))
        self.accelerator.clip_grad_norm_(self._student.parameters(), CLIP)
        self._stepper.step()
        self._stepper.zero_grad()

    def close(self) -> None:
        """Give the models their own `forward` back, and leave nothing to the next Accelerator of this process."""
        for model in (self._student, self._teacher):
            self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        _forget()


def prepare(work: Work) -> Accelerated:
    """The loop, ready to step."""
    return Accelerated(work)
