"""The fast path: a student trained from cached teacher logits, as fast as the device allows, in work that is the reference's.

What is exact has no switch, and a test: cached logits, fused products and heads (`fast_student`), embedding rows that never
occur, clipping inside the fused optimizer (`fast_loop`). What changes training is a switch of `Switches`, which says what it
changes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Final

import numpy as np
import torch
from transformers import PreTrainedModel

from matrix.workloads.checkpoint import Checkpoints, packed, unpack
from matrix.workloads.distill import Batch, Run, Work
from matrix.workloads.distill.buckets import Shape, table
from matrix.workloads.distill.fast_loop import Fast, Loop, Switches, head_multiple
from matrix.workloads.distill.fast_student import FastStudent
from matrix.workloads.train import Encoded, Report, distillation_loss, logits_of

__all__ = ["FIRST", "Fast", "Switches", "first_losses", "prepare", "train"]

FIRST: Final = 10
"""Steps whose losses two devices compare: many enough for a wrong gradient to show, too few for rounding to grow."""


def train(
    student: PreTrainedModel,
    data: Encoded,
    soft: torch.Tensor,
    how: Fast,
    report: Report,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train `student`, which lies on `how.device`, in place, from the teacher's logits `soft` (examples x classes).

    With `checkpoints` a killed training goes on where it was; on a CPU, at the same number of threads, to the same bits.

    Raises:
        DataError: the fast path does not compute this student, or the training diverged.
    """
    torch.manual_seed(how.seed)
    with closing(Loop(student, data, soft, how)) as loop:
        _train(loop, report, checkpoints)
    student.eval()


def _train(loop: Loop, report: Report, checkpoints: Checkpoints | None) -> None:
    kept = checkpoints.latest() if checkpoints else None
    if kept:
        unpack(kept.tensors, loop.leaves, loop.optimizer)
    done = kept.done if kept else 0
    for step, rows, shape in islice(loop.feed(done), loop.steps - done):
        loop.step(step, rows, shape)
        if checkpoints:
            checkpoints.offer(step + 1, lambda: packed(loop.leaves, loop.optimizer))
        report("distil the student", step + 1, loop.steps)
    if checkpoints:
        checkpoints.keep(loop.steps, packed(loop.leaves, loop.optimizer))
    loop.write_back(loop.steps)


def first_losses(student: PreTrainedModel, teacher: PreTrainedModel, data: Encoded, how: Fast) -> tuple[float, ...]:
    """The losses of the first ten steps of `train`, in fp32, taught by `teacher`; `student` stays as it is.

    Two devices have them in common up to rounding, because what would part them is left out: dropout, whose masks each kind
    of device draws in its own way, and all training before. So `teacher` is the one that nobody trained here: where only
    rounding differed (1 against 2 threads) a teacher trained at tests' size moved these losses by 0.18.
    """
    how = replace(how, switches=replace(how.switches, dropout=False), dtype="float32")
    unknown = torch.zeros(len(data), student.config.num_labels)
    with closing(Loop(copy.deepcopy(student).float(), data, unknown, how)) as loop:
        first = list(islice(loop.feed(0), min(FIRST, loop.steps)))
        rows = np.unique(np.concatenate([part.cpu().numpy() for _, part, _ in first]))
        asked = Encoded([data.ids[row] for row in rows], data.labels[rows])
        loop.table.soft[rows] = logits_of(teacher, asked, _silent, "").to(how.device)
        return tuple(float(loop.step(*one)) for one in first)


class FastRun(Run):
    """The fast path as a stack. The logits of the loader's examples are cached beforehand: no step runs the teacher."""

    teacher_passes = 0

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        data = _encoded(work.loader.dataset)
        soft = logits_of(work.teacher, data, _silent, "")
        self._cached = {tuple(ids): logits for ids, logits in zip(data.ids, soft, strict=True)}
        how = Fast(
            epochs=1,
            batch=work.batch,
            lr=work.lr,
            seed=work.seed,
            temperature=work.temperature,
            alpha=work.alpha,
            weight_decay=0.0,
            device=work.device,
            dtype=work.dtype,
            constant=True,
        )
        self.loop = Loop(work.student, data, soft, how)
        self.optimizer = self.loop.optimizer
        self._feed, self._done = self.loop.feed(0), 0

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of `batch` as a step computes it, by the student's own parameters."""
        work = self.work
        self.loop.write_back(self._done)
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        data = _encoded(rows)
        whole = table(data, self._taught(data), work.device)
        longest = whole.ids.shape[1]
        fast = FastStudent(work.student, whole.vocabulary, longest, multiple=head_multiple(work.device))
        shape = Shape(len(data), longest, masked=bool((whole.lengths != longest).any()))
        with torch.autocast(work.device, torch.bfloat16, enabled=work.dtype == "bfloat16"):
            logits = fast.logits(fast.weights(), *whole.batch(torch.arange(len(data), device=work.device), shape))
        return distillation_loss(
            logits.float(), whole.soft, whole.labels, temperature=work.temperature, alpha=work.alpha
        )

    def _taught(self, data: Encoded) -> torch.Tensor:
        """The cached logits; those of examples that are not the loader's are asked of the teacher."""
        new = Encoded([ids for ids in data.ids if tuple(ids) not in self._cached], data.labels)
        if new.ids:
            asked = logits_of(self.work.teacher, new, _silent, "")
            self._cached |= {tuple(ids): logits for ids, logits in zip(new.ids, asked, strict=True)}
        return torch.stack([self._cached[tuple(ids)] for ids in data.ids])

    def step(self) -> None:
        """One step of the loop."""
        self.loop.step(*next(self._feed))
        self._done += 1

    def student(self) -> PreTrainedModel:
        """The student with all that it learnt so far."""
        self.loop.write_back(self._done)
        return self.work.student

    def close(self) -> None:
        """Give the student what it learnt, and end the loop."""
        self.loop.write_back(self._done)
        self.loop.close()


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Tell nobody: this is before the clock."""


def _encoded(rows: Iterable[Batch]) -> Encoded:
    """Examples without their padding."""
    found = list(rows)
    ids = [row["input_ids"][row["attention_mask"].bool()].tolist() for row in found]
    return Encoded(ids, torch.stack([row["labels"] for row in found]).cpu())


def prepare(work: Work) -> FastRun:
    """The fast path, ready to step."""
    return FastRun(work)
