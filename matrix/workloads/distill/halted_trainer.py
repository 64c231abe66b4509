"""A transformers `Trainer`, or a library's heir of it, whose own loop is what runs: halted by a callback between steps."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any, Final

import torch
from transformers import Trainer, TrainerCallback

from matrix.workloads.distill import CLIP, Batch, Run, Work
from matrix.workloads.distill.halted import FOREVER, Halted, halt

_PRECISION: Final = "ACCELERATE_MIXED_PRECISION"
"""Where TrainingArguments (transformers 4.57.6) leave bf16 for every later trainer of the process, whatever it asks for."""


class HaltCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Halts the trainer before each step until the next one is asked for."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - the callback's own signature
        """Between two steps."""
        halt()


def arguments(work: Work, folder: str) -> dict[str, Any]:
    """Arguments that every trainer's configuration takes: the work's settings, constant rate, no checkpoints, nothing logged."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": work.batch,
        "max_steps": FOREVER,
        "learning_rate": work.lr,
        "lr_scheduler_type": "constant",
        "max_grad_norm": CLIP,
        "seed": work.seed,  # the Trainer seeds everything itself (4.57: by 42), its order of examples too
        "bf16": work.dtype == "bfloat16",
        "use_cpu": work.device == "cpu",
        "dataloader_pin_memory": work.device == "cuda",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


class HaltedTrainer(Run):
    """A trainer at work in a coroutine; `trainer` is made by the heir, with `optimizer` and a `HaltCallback`."""

    trainer: Trainer

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.optimizer = work.optimizer()
        self._precision = os.environ.get(_PRECISION)
        self.folder = tempfile.mkdtemp(prefix="matrix-trainer-")
        self._loop = Halted(self._train)

    def _train(self) -> None:
        self.trainer.train()  # the heir makes the trainer after the loop

    def loss(self, batch: Batch) -> torch.Tensor:
        """What the trainer itself would minimise on `batch`."""
        # the loop's beginning prepares the model: only then are bf16 logits made fp32 (accelerate 1.15, transformers 4.57),
        # without which trl's GKDTrainer takes the divergence in bf16 (5 to 9 % off, measured)
        student = self.work.student
        mode = student.training
        self._loop.start()
        student.train(mode)  # it also turns dropout on
        with self.trainer.compute_loss_context_manager():
            loss: torch.Tensor = self.trainer.compute_loss(self.trainer.model, dict(batch))
        return loss

    def step(self) -> None:
        """The loop's next step."""
        self._loop.step()

    def close(self) -> None:
        """Unwind the trainer's loop, remove its folder, and leave the next stack no precision."""
        self._loop.close()
        os.environ.pop(_PRECISION, None)
        if self._precision is not None:
            os.environ[_PRECISION] = self._precision
        shutil.rmtree(self.folder, ignore_errors=True)
