"""The loop of the stacks that keep their teacher's logits: they differ in what they regenerate each step."""

from __future__ import annotations

import math
from itertools import cycle

import torch
from torch.utils.data import DataLoader

from matrix.workloads.distill import Batch, Work, inputs_of
from matrix.workloads.distill.loop import Loop
from matrix.workloads.distill.teacher_cache import Origin, TeacherCache, teacher_digest
from matrix.workloads.train import distillation_loss


class FromCache(Loop):
    """Output KD from a cache that belongs to this work alone, whose examples have one tokenizer.

    `share` of each step's rows is regenerated, oldest first. The cache is filled first, so that no timed step has a miss; neither
    the loader's order nor torch's random state moves by that.
    """

    def __init__(self, work: Work, share: float = 0.0) -> None:
        super().__init__(work)
        self.cache = TeacherCache(Origin(teacher_digest(work.teacher), work.dtype, "this work's own"), share=0.0)
        loader = work.loader
        for batch in DataLoader(loader.dataset, work.batch, collate_fn=loader.collate_fn, generator=torch.Generator()):
            self.taught(batch)
        self.cache.share = share
        self.teacher_passes = math.ceil(share * work.batch) / work.batch
        # on the CPU, where keys are made: a batch from the device would be waited for
        self._feed = (batch for _ in cycle([None]) for batch in loader)

    def taught(self, batch: Batch) -> torch.Tensor:
        """The teacher's logits, batch x classes: only rows that the cache lacks, or that are due, go through the teacher."""
        work, held = self.work, {name: tensor.cpu() for name, tensor in inputs_of(batch).items()}

        def teach(rows: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), work.autocast():
                found: torch.Tensor = work.teacher(
                    **{name: all_[rows].to(work.device) for name, all_ in held.items()}
                ).logits
            return found

        return self.cache.logits(held["input_ids"], held["attention_mask"], teach)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Cached teacher, student with gradient; the KD loss of both."""
        work, taught = self.work, self.taught(batch)
        held = {name: tensor.to(work.device) for name, tensor in batch.items()}
        with work.autocast():
            logits = work.student(**inputs_of(held)).logits
        return distillation_loss(logits.float(), taught, held["labels"], temperature=work.temperature, alpha=work.alpha)
