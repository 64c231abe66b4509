"""Knowledge distillation in a transformers `Trainer` with its own loss (seed, section 2.3, its traps mended).

The trainer's own loop is what runs: `train()` in a coroutine of this thread, halted by a callback between steps, so that a
timed step holds all that a user of the Trainer pays for (fetching, collation, schedule, callbacks), and nothing is imitated.
Not in a thread of its own: that brings a second OpenMP pool, and with more managed threads than cores libgomp spins a
thousand turns and sleeps instead of spinning on; the same step then took 1.05 to 1.27 times as long (measured, two cores).
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import greenlet
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from matrix.workloads.distill import CLIP, LEARNING_RATE, Batch, Work
from matrix.workloads.train import distillation_loss

_FOREVER = 10**9


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
        fed = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        # transformers 4.57 puts only the prepared student under autocast: the teacher, most of the work, would stay in fp32
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
            with torch.no_grad():
                taught = self.teacher(**fed).logits
            outputs = model(**fed)
        loss = distillation_loss(
            outputs.logits.float(), taught.float(), inputs["labels"], temperature=self.temperature, alpha=self.alpha
        )
        return (loss, outputs) if return_outputs else loss


class _Halt(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Halts the trainer before each step until the next one is asked for."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - the callback's own signature
        """The step before is over; go back to whoever asked for it."""
        greenlet.getcurrent().parent.switch()


class HfTrainer:
    """A trainer at work in a coroutine."""

    def __init__(self, work: Work) -> None:
        self.optimizer = work.optimizer()
        self._folder = tempfile.mkdtemp(prefix="matrix-trainer-")
        self.trainer = DistillationTrainer(
            model=work.student,
            teacher=work.teacher,
            temperature=work.temperature,
            alpha=work.alpha,
            args=_arguments(work, self._folder),
            train_dataset=work.loader.dataset,
            optimizers=(self.optimizer, None),
            callbacks=[_Halt()],
        )
        self._loop = greenlet.greenlet(self.trainer.train)

    def loss(self, batch: Batch) -> torch.Tensor:
        """What the trainer itself would minimise on `batch`."""
        with self.trainer.compute_loss_context_manager():
            loss: torch.Tensor = self.trainer.compute_loss(self.trainer.model, dict(batch))
        return loss

    def step(self) -> None:
        """Let the trainer's loop run to the beginning of its next step; what it raises is raised here."""
        if not self._loop:
            self._loop.switch()  # to the beginning of its first step
        self._loop.switch()

    def close(self) -> None:
        """Unwind the trainer's loop and remove its folder."""
        if self._loop:
            self._loop.throw()
        shutil.rmtree(self._folder, ignore_errors=True)


def _arguments(work: Work, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=work.batch,
        max_steps=_FOREVER,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=CLIP,
        bf16=work.dtype == "bfloat16",
        use_cpu=work.device == "cpu",
        dataloader_pin_memory=work.device == "cuda",
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def prepare(work: Work) -> HfTrainer:
    """The trainer, ready to step."""
    return HfTrainer(work)
