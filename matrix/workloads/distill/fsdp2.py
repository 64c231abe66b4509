"""Knowledge distillation with a student under `fully_shard` (FSDP2), two processes; each has the whole frozen teacher.

The student is sharded in place, a group a layer and one for the rest: its parameters are DTensors of which a rank holds half,
gathered for each forward and backward pass. They stay in fp32 under autocast, as in every other stack. The gathering before
the student's first layer is no part of the phase "student forward": FSDP's hook comes before ours.
"""

from __future__ import annotations

from operator import methodcaller

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from matrix.workloads.distill import CLIP, Batch, Gradients, Work, ranks
from matrix.workloads.distill.loop import online


class Half(ranks.Half):
    """One rank's loop."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.bare = ranks.bare(work.student)
        mesh = init_device_mesh(work.device, (ranks.RANKS,))
        for layer in work.student.base_model.encoder.layer:
            fully_shard(layer, mesh=mesh)
        fully_shard(work.student, mesh=mesh)
        self.optimizer = work.optimizer()  # of the shards: after sharding

    def loss(self, batch: Batch) -> torch.Tensor:
        """Teacher without gradient, student with; the KD loss of both."""
        return online(self.work, self.work.student, batch)

    def step(self, batch: Batch) -> None:
        """One step of the loop: the norm that clips is the whole gradient's."""
        self.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.work.student.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradients(self, batch: Batch) -> Gradients:
        """The gradient's shards of both ranks, gathered."""
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        parts = [one.grad.full_tensor() for one in self.work.student.parameters() if one.requires_grad]
        self.optimizer.zero_grad()
        found = torch.cat([part.flatten().cpu().double() for part in parts])
        return Gradients(float(ranks.over_ranks(loss)), found)

    def gather(self) -> dict[str, torch.Tensor]:
        """The student's whole parameters, by name."""
        return {name: one.detach().full_tensor() for name, one in self.work.student.named_parameters()}


class Fsdp2(ranks.Ranks):
    """Rank 0 and its peer. Until it is closed `work.student` is sharded: `student` gathers a whole one."""

    half: Half
    _whole: PreTrainedModel | None = None

    def step(self) -> None:
        """One step of both ranks; what was gathered before is out of date."""
        self._whole = None
        super().step()

    def student(self) -> PreTrainedModel:
        """The trained student, whole, for evaluation: gathered from both ranks once after each step."""
        gather = methodcaller("gather")
        if self._whole is None:
            self._whole = ranks.filled(self.half.bare, self.both(gather, gather))
        return self._whole.train(self.work.student.training)

    def close(self) -> None:
        """Put the whole parameters back into `work.student`, unless rank 1 is lost; then as every pair of ranks ends."""
        try:
            whole = self.student() if self.peer.waits else None
        finally:
            super().close()
        if whole is not None:  # torch 2.13 has no way back from fully_shard, which also changed the modules' classes
            self.work.student.__class__, self.work.student.__dict__ = type(whole), whole.__dict__


def prepare(work: Work) -> Fsdp2:
    """Both ranks, ready to step."""
    return Fsdp2(work, Half)
