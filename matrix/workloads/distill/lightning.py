"""Knowledge distillation in a `LightningModule`, run by Lightning's own `Trainer.fit` (seed, section 2.9, its traps mended).

The seed makes the teacher a submodule: it is written into every checkpoint, and whoever calls the module's `train()` puts the
frozen teacher's dropout on. Here the module holds it without registering it, so neither reaches it.
"""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch

from matrix.workloads.distill import CLIP, Batch, Run, Work, inputs_of
from matrix.workloads.distill.halted import Halted, halt
from matrix.workloads.train import distillation_loss

# Lightning 2.6.6 tells every Trainer's hardware, and advertises: noise in a launch's output, and no warning
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Distillation(lightning.LightningModule):  # type: ignore[misc]  # its imports are not followed
    """A student and its loss. `work` is no module: what it holds is neither moved, saved, nor put into another mode."""

    def __init__(self, work: Work, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.student = work.student
        self.work, self.inner = work, optimizer

    def training_step(self, batch: Batch, _: int = 0) -> torch.Tensor:
        """The KD loss on `batch`; the Trainer's precision is around it."""
        with torch.no_grad():
            taught = self.work.teacher(**inputs_of(batch)).logits
        logits = self.student(**inputs_of(batch)).logits
        return distillation_loss(
            logits.float(),
            taught.float(),
            batch["labels"],
            temperature=self.work.temperature,
            alpha=self.work.alpha,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer that every stack uses."""
        return self.inner

    def configure_gradient_clipping(
        self,
        optimizer: Any,  # noqa: ANN401, ARG002 - Lightning's own signature
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002 - likewise; the default, by norm
    ) -> None:
        """Clip to the Trainer's `gradient_clip_val`, then say that the update itself begins.

        With the call that Lightning makes itself: its own hook refuses a fused optimizer under bf16-mixed, as if there were a
        scaler whose work the optimizer might do.

        Lightning computes forward and backward passes inside `optimizer.step(closure)`, whose pre-hooks run before the closure:
        who watches the optimizer by its hooks would take the whole step for the update. This is the last hook before it.
        """
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), gradient_clip_val or float("inf"))
        for begins in self.inner._optimizer_step_pre_hooks.values():  # noqa: SLF001 - torch 2.13 offers no public list
            begins(self.inner, (), {})


class HaltCallback(lightning.Callback):  # type: ignore[misc]  # its imports are not followed
    """Halts the trainer before each step until the next one is asked for."""

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - the callback's own signature
        """Between two steps, the batch being fetched."""
        halt()


class Lightning(Run):
    """A trainer at work in a coroutine."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.optimizer = work.optimizer()
        self.module = Distillation(work, self.optimizer)
        self.trainer = _trainer(work)
        self._loop = Halted(lambda: self.trainer.fit(self.module, work.loader))

    def loss(self, batch: Batch) -> torch.Tensor:
        """What the trainer itself would minimise on `batch`."""
        with self.trainer.precision_plugin.train_step_context():
            return self.module.training_step(batch)

    def step(self) -> None:
        """The loop's next step."""
        self._loop.step()

    def close(self) -> None:
        """Unwind the trainer's loop: it puts the process's signal handlers back, and the student on the CPU; ours belongs here."""
        self._loop.close()
        self.work.student.to(self.work.device)


def _trainer(work: Work) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator=work.device,
        devices=1,
        precision="bf16-mixed" if work.dtype == "bfloat16" else "32-true",
        max_epochs=-1,
        gradient_clip_val=CLIP,
        callbacks=[HaltCallback()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def prepare(work: Work) -> Lightning:
    """The trainer, ready to step."""
    return Lightning(work)
