"""A trial: one stack trains the same student on the same number of examples, and what it learnt is judged beside the time.

The clock runs while the stack is built (its trainer, its cache, its processes: a user waits for them too) and while it
steps. It rests at ten points of the training: there a copy of the student answers the watched examples, until the goal is
reached, and nothing of that leaves a trace in the training. The Trainer of transformers draws its own order of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from matrix.cell import Cell
from matrix.energy import EnergyMark
from matrix.profile import Sampling
from matrix.workloads import distill, works
from matrix.workloads.distill import INPUTS, Run
from matrix.workloads.examples import Float, Int, predict_all
from matrix.workloads.launch import Launch
from matrix.workloads.memory import PeakMemory
from matrix.workloads.sampling import Arguments
from matrix.workloads.serve import Inputs

POINTS: Final = 10
"""How often the clock rests to see whether the goal is reached."""

WATCHED: Final = 1_000
"""Validation examples that are looked at there: an accuracy of 80 % is known to ±2.5 points (95 %)."""

_BATCH: Final = 100
_UNJUDGED: Final = 1e9
"""A width that no interval exceeds: how far parts of a training differ is no doubt about their sum."""


def parts_of(steps: int) -> list[int]:
    """`steps` in at most `POINTS` parts that differ by one step at most."""
    points = min(POINTS, steps)
    return [steps * (point + 1) // points - steps * point // points for point in range(points)]


def logits_of(student: PreTrainedModel, ids: list[Int], device: str) -> Float:
    """Logits (examples x classes) of a copy of `student`, in fp32, dropout off.

    The student itself, its gradients and its mode are not touched, nor is the state of the generator that dropout and
    shuffling draw from: only a new model's weights are drawn here, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        judge = AutoModelForSequenceClassification.from_config(student.config)
    judge.load_state_dict(student.state_dict())
    judge.eval().float().to(device)

    def predict(inputs: Inputs) -> Float:
        with torch.inference_mode():
            found = judge(**{name: torch.from_numpy(inputs[name]).to(device) for name in INPUTS}).logits
        answers: Float = found.float().cpu().numpy()
        return answers

    return predict_all(predict, ids, _BATCH, student.config.num_labels)


def _gpus() -> list[str]:
    """UUIDs of the GPUs that this process sees, as NVML spells them."""
    count = torch.cuda.device_count()
    return [f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(count)]


class Trial:
    """One stack's training in parts: the first builds the stack, each of the others is a block of steps."""

    def __init__(self, cell: Cell, launch: Launch) -> None:
        self.launch, self.spec = launch, launch.job.profile.trial
        self.device = launch.job.device
        self._prepare = distill.stack(cell.variant)  # the library's import is no training
        self.work = works.trial(launch)
        torch.manual_seed(self.work.seed)  # from here on the stack draws: dropout, its method's own weights
        self.run: Run | None = None
        self.done = 0
        self._memory, self._gpus = PeakMemory(self.device), _gpus()
        self._mark: EnergyMark | None = None
        self._spent: list[dict[str, float | None]] = []
        self._peaks: list[int | None] = []
        self._reached: int | None = None
        validation = launch.examples
        self._ids, self._labels = validation.validation_ids(), validation.validation_labels

    @property
    def sampling(self) -> Sampling:
        """Each part is timed once, as it comes; its samples say nothing of each other."""
        rounds = 1 + len(parts_of(self.spec.steps))
        fixed = {"min_rounds": rounds, "max_rounds": rounds, "warmup_calls": 0, "warmup_cap_s": 0.0}
        return Sampling(**fixed, cap_s=1.0, width=1.0, doubt_width=_UNJUDGED, steady=1.0)

    def parts(self) -> Iterator[Arguments]:
        """The parts as calls of `advance`; between them the clock rests."""
        blocks = [self._build, *(partial(self._train, steps) for steps in parts_of(self.spec.steps))]
        for number, part in enumerate(blocks):
            if number:
                self.rest()
            self._memory.forget()
            self._mark = EnergyMark.now(self._gpus)
            yield (part,), {}

    def advance(self, part: Callable[[], None]) -> None:
        """One part, inside the clock."""
        part()

    def _build(self) -> None:
        self.run = self._prepare(self.work)

    def _train(self, steps: int) -> None:
        assert self.run  # noqa: S101 - the first part built it
        for _ in range(steps):
            self.run.progress(self.done, self.spec.steps)
            self.run.step()
            self.done += 1

    def rest(self) -> None:
        """After each part, outside the clock: what it took, and whether the student knows enough by now."""
        assert self._mark  # noqa: S101 - a part has begun
        self._spent.append(self._mark.until(EnergyMark.now(self._gpus)))
        self._peaks.append(self._memory.bytes())
        if self.done and self._reached is None:
            right = np.argmax(self._answers(WATCHED), axis=1) == self._labels[:WATCHED]
            if right.mean() >= self.spec.goal:
                self._reached = len(self._peaks)

    def _answers(self, count: int | None = None) -> Float:
        assert self.run  # noqa: S101 - there is nothing to judge before
        return logits_of(self.run.student(), self._ids[:count], self.device)

    def judged(self) -> tuple[Float, Int]:
        """The trained student's logits on the whole validation split, and its labels."""
        return self._answers(), self._labels

    def facts(self, samples: list[float]) -> dict[str, float | None]:
        """What the parts took beside their times, which are `samples`; None: not told, or the goal was not reached."""
        peaks = [peak for peak in self._peaks if peak is not None]
        return {
            "time_to_accuracy_s": None if self._reached is None else sum(samples[: self._reached]),
            "peak_bytes": max(peaks) if len(peaks) == len(samples) else None,
            **{name: _sum([part[name] for part in self._spent]) for name in self._spent[0]},
        }

    def close(self) -> None:
        """End the stack."""
        if self.run:
            self.run.close()


def _sum(parts: list[float | None]) -> float | None:
    told = [part for part in parts if part is not None]
    return sum(told) if len(told) == len(parts) else None


@contextmanager
def prepared(cell: Cell, launch: Launch) -> Iterator[Trial]:
    """The cell's trial, ready for its first part; its stack is closed afterwards."""
    torch.set_num_threads(launch.job.threads)
    found = Trial(cell, launch)
    try:
        yield found
    finally:
        found.close()
