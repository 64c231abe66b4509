"""A TextBrewer distiller at work: what its two stacks have in common.

Of TextBrewer 0.2.1.post1, the last (2020): without a `log_dir` it still reads each loss back from the device in every step, which
waits for the device; its mixed precision needs Apex; `type(batch) is dict` is asked, so a BatchEncoding is spread as a tuple; it
clips the student's gradients and no projection's; its distributed mode wraps the frozen teacher in DDP, which raises.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch

from matrix.workloads.distill import CLIP, Batch, Run, Work
from matrix.workloads.distill.halted import FOREVER, Halted, halting

with warnings.catch_warnings():
    # 0.2.1.post1 asks `is not 'none'` and has '\c' in docstrings; Python 3.11 says so when it compiles the files
    warnings.filterwarnings("ignore", '"is( not)?" with', SyntaxWarning)
    warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
    import textbrewer

Adaptor = Callable[[Mapping[str, torch.Tensor], Any], dict[str, Any]]
"""Told with a model's inputs and outputs: what TextBrewer is to compare of them, by its own names."""


class Distiller(textbrewer.GeneralDistiller):  # type: ignore[misc]  # textbrewer is not typed
    """A GeneralDistiller in torch's own mixed precision."""

    def __init__(self, work: Work, *args: Any) -> None:  # noqa: ANN401 - the distiller's own
        super().__init__(*args)
        self.work = work

    def train_on_batch(self, batch: Any, args: Any) -> Any:  # noqa: ANN401 - the distiller's own signature
        """Both forward passes and the losses; the backward pass stays outside autocast, as it must."""
        with self.work.autocast():
            return super().train_on_batch(batch, args)


class Brewed(Run):
    """A distiller at work in a coroutine. A stack says what is compared, and what it feeds to the models."""

    forwarded: Mapping[str, bool] = {}
    """What both models are called with beside the batch."""

    def __init__(self, work: Work, teacher: Adaptor, student: Adaptor, **compared: Any) -> None:  # noqa: ANN401 - DistillationConfig's own
        super().__init__(work)
        self.optimizer = work.optimizer()
        self._folder = tempfile.mkdtemp(prefix="matrix-textbrewer-")
        # the device is "cuda" unless one says otherwise; without ckpt_steps a training of so many steps fails at its start
        training = textbrewer.TrainingConfig(device=work.device, output_dir=self._folder, ckpt_steps=FOREVER)
        config = textbrewer.DistillationConfig(**compared)
        self.distiller = Distiller(work, training, config, work.teacher, work.student, teacher, student)
        self._loop = Halted(self._train)

    @abstractmethod
    def fed(self, batch: Batch) -> dict[str, Any]:
        """What the distiller is given of a batch, a plain dict."""

    def _train(self) -> None:
        epochs = itertools.chain.from_iterable(itertools.repeat(self.work.loader))
        with self.distiller:
            self.distiller.train(
                self.optimizer,
                halting(epochs),
                num_steps=FOREVER,
                max_grad_norm=CLIP,
                batch_postprocessor=self.fed,
                **self.forwarded,
            )

    def loss(self, batch: Batch) -> torch.Tensor:
        """What the distiller itself would minimise on `batch`."""
        loss: torch.Tensor = self.distiller.train_on_batch(self.fed(batch), self.forwarded)[0]
        return loss

    def step(self) -> None:
        """The loop's next step."""
        self._loop.step()

    def close(self) -> None:
        """Unwind the distiller's loop and remove its folder."""
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)
