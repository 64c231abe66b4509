"""The training-step cells: proves that a stack does the work that it names, and reads what a step costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.workloads import clock, distill, works
from matrix.workloads.distill import Batch, Run, Work, gradients
from matrix.workloads.launch import Launch
from matrix.workloads.memory import PeakMemory
from matrix.workloads.phases import Phases
from matrix.workloads.sampling import Arguments


class TrainingRun:
    """One stack at work on one cell."""

    def __init__(self, cell: Cell, launch: Launch) -> None:
        self.cell, self.launch = cell, launch
        self.work = works.work_of(cell, launch)
        self.stack = distill.stack(cell.variant)(self.work)
        self.phases = Phases(launch.job.device)
        if self.stack.has_phases:
            self.phases.watch(self.stack.teachers, self.work.student, self.stack.optimizer)
        self.step = self.phases.wrap(self.stack.step)
        self._before = _sums(self.stack)
        self._memory = PeakMemory(launch.job.device)

    def watch_memory(self) -> None:
        """Forget the high-water mark so far: building the models and `agree` are not what a step needs."""
        self._memory.forget()

    def between(self) -> Iterator[Arguments]:
        """Outside the clock, before each step: read the last step's phases."""
        while True:
            self.phases.collect()
            yield (), {}

    def moved(self) -> bool:
        """Whether training changed what the stack trains, to finite values."""
        after = _sums(self.stack)
        return bool(torch.isfinite(after).all()) and not torch.equal(after, self._before)

    def facts(self, rounds: int) -> dict[str, float | None]:
        """What the confirming block's `rounds` steps cost, beside their time."""
        self.phases.collect()
        return {
            **self.phases.shares(rounds),
            "step_flop": self.stack.step_flop(int(self.cell.length or 1)),
            "matmul_flop_per_s": clock.matmul_peak(self.launch.job.device, self.work.dtype),
            "peak_bytes": self._memory.bytes(),
        }


def _sums(stack: Run) -> torch.Tensor:
    """The sum of each trained tensor: what one optimizer step moves."""
    return torch.stack([one.detach().float().sum().cpu() for one in stack.trained])


@contextmanager
def prepared(cell: Cell, launch: Launch) -> Iterator[TrainingRun]:
    """The cell's stack, ready to step; unwound afterwards."""
    torch.set_num_threads(launch.job.threads)
    torch.manual_seed(launch.job.seed)
    run = TrainingRun(cell, launch)
    try:
        yield run
    finally:
        run.phases.close()
        run.stack.close()


def apart(stack: Run, batch: Batch) -> dict[str, float]:
    """How far the stack's loss and gradient on `batch` are from its work's definition, relative; dropout off."""
    student = stack.work.student.eval()
    found, expected = stack.gradients(batch), gradients(stack.expected(batch), stack.trained)
    student.train()
    return {
        "loss": abs(found.loss - expected.loss) / abs(expected.loss),
        "gradient": float((found.gradient - expected.gradient).norm() / expected.gradient.norm()),
    }


def agree(name: str, stack: Run, work: Work) -> None:
    """Before any timing: the stack's loss and gradients on one frozen batch, dropout off, are those of its definition.

    Raises:
        EvidenceError: they differ by more than rounding; the stack would be timed at other work.
    """
    batch = {key: tensor.to(work.device) for key, tensor in next(iter(work.loader)).items()}
    tolerance = 1e-4 if work.dtype == "float32" else stack.bf16_tolerance
    wrong = {key: value for key, value in apart(stack, batch).items() if not value <= tolerance}
    if wrong:
        raise EvidenceError(
            f"{name} does other work than the reference", remedy=f"relative differences {wrong}, allowed {tolerance}"
        )
