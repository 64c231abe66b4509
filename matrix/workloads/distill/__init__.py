"""Training stacks: one module a stack, named as the catalog names it. Each is written as its library's own users would write it.

A stack says itself which work it does: `expected` is that work's loss written out from its definition. Stacks of the same work
are compared with each other, and no others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, NamedTuple, cast

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from matrix import flops
from matrix.catalog import VARIANTS
from matrix.cell import Workload
from matrix.workloads.distill import reference

Batch = Mapping[str, torch.Tensor]

CLIP: Final = 1.0
LEARNING_RATE: Final = 5e-5
INPUTS: Final = ("input_ids", "attention_mask")
"""What reaches both models: DistilBERT has no token types."""


def inputs_of(batch: Batch) -> dict[str, torch.Tensor]:
    """The part of a batch that both models take."""
    return {name: batch[name] for name in INPUTS}


@dataclass(frozen=True)
class Work:
    """What every stack is given: the same models, examples, loss and optimizer settings.

    `teacher` is frozen and in evaluation mode; `student` is in training mode with its dropout; `loader` yields
    `input_ids`, `attention_mask` (batch x length) and `labels` (batch), in fp32 or under bf16 autocast as `dtype` says.
    `another_teacher` makes a second frozen teacher of the same shape from another seed. `threads` are those that training has.
    """

    teacher: PreTrainedModel
    student: PreTrainedModel
    loader: DataLoader[dict[str, torch.Tensor]]
    batch: int
    temperature: float
    alpha: float
    device: str
    dtype: str
    another_teacher: Callable[[], PreTrainedModel]
    lr: float = LEARNING_RATE
    seed: int = 0
    threads: int = 1

    def optimizer(self, extra: Iterable[torch.nn.Parameter] = ()) -> torch.optim.AdamW:
        """The optimizer that every stack uses: fused AdamW, no weight decay, constant rate.

        `extra` are parameters that a method trains beside the student: its projections.
        """
        trained = [one for one in (*self.student.parameters(), *extra) if one.requires_grad]
        return torch.optim.AdamW(trained, lr=self.lr, weight_decay=0.0, fused=True)

    def autocast(self) -> torch.autocast:
        """The precision of both forward passes."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def batches(self) -> Iterator[Batch]:
        """The loader's batches on the device, epoch after epoch, for loops that are written by hand."""
        while True:
            for batch in self.loader:
                yield {name: tensor.to(self.device) for name, tensor in batch.items()}


class Gradients(NamedTuple):
    """A loss and its gradient by the trained parameters in their order, flat, fp64, on the CPU."""

    loss: float
    gradient: torch.Tensor


def gradients(loss: torch.Tensor, trained: Iterable[torch.nn.Parameter]) -> Gradients:
    """The gradients of `loss`; a parameter that it does not reach has zeros. What parameters held before is forgotten."""
    parameters = list(trained)
    for one in parameters:
        one.grad = None
    loss.backward()
    parts = [one.grad if one.grad is not None else torch.zeros_like(one) for one in parameters]
    found = torch.cat([part.detach().flatten().cpu().double() for part in parts])
    for one in parameters:
        one.grad = None
    return Gradients(float(loss.detach()), found)


class Run(ABC):
    """A stack, ready to step. `optimizer` is the inner one, which `Phases` watches."""

    optimizer: torch.optim.Optimizer
    teacher_passes: float = 1
    """Forward passes of a teacher in one step; a share of one where only a part of the batch goes through it."""
    bf16_tolerance = 1e-2
    """How far loss and gradient may be from their definition in bf16, relative; in fp32 it is 1e-4, for all."""
    projected: Iterable[torch.nn.Linear] = ()
    """Linear maps that the method puts on every token beside the student's own: they are part of its work."""

    def __init__(self, work: Work) -> None:
        self.work = work

    @property
    def teachers(self) -> tuple[torch.nn.Module, ...]:
        """The frozen models whose forward passes are the teacher's part of a step."""
        return (self.work.teacher,)

    @property
    def trained(self) -> tuple[torch.nn.Parameter, ...]:
        """What the stack trains: the student, and whatever its method adds."""
        return tuple(one for one in self.student().parameters() if one.requires_grad)

    def student(self) -> PreTrainedModel:
        """The trained student, whole, for evaluation."""
        return self.work.student

    has_phases = True
    """Whether teacher and student are called one after the other, so that hooks on them can tell where a step's time goes."""

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """The stack's own loss on `batch`, with a gradient."""

    @abstractmethod
    def step(self) -> None:
        """One optimizer step as the stack does it: fetch, teacher, student, loss, backward, clip, optimizer."""

    def gradients(self, batch: Batch) -> Gradients:
        """Loss and gradient as the stack computes them: what is compared with `expected` before any timing."""
        return gradients(self.loss(batch), self.trained)

    def expected(self, batch: Batch) -> torch.Tensor:
        """The loss of the stack's work, from its definition, in fp64 on the CPU: output KD unless the stack says otherwise."""
        with self.work.autocast():
            logits, taught = (model(**inputs_of(batch)).logits for model in (self.student(), self.work.teacher))
        return reference.output_kd(
            logits, taught, batch["labels"], temperature=self.work.temperature, alpha=self.work.alpha
        )

    def progress(self, done: int, total: int) -> None:  # noqa: B027 - most stacks have one stage
        """Called by a trial before each step, `done` of its `total` steps over: a stack of several stages goes on to the next."""

    def step_flop(self, length: int) -> int:
        """FLOPs of one step on rows of `length` tokens, by `matrix.flops`: teachers' passes, the student's three, projections'."""
        work = self.work
        teacher, student, shape = work.teacher.config, work.student.config, {"batch": work.batch, "length": length}
        of_teacher = flops.encoder_forward(layers=teacher.n_layers, dim=teacher.dim, hidden=teacher.hidden_dim, **shape)
        of_student = flops.encoder_forward(
            layers=student.num_hidden_layers, dim=student.hidden_size, hidden=student.intermediate_size, **shape
        )
        heads = [
            flops.head_forward(dim=dim, classes=student.num_labels, batch=work.batch)
            for dim in (teacher.dim, student.hidden_size)
        ]
        added = sum(2 * one.in_features * one.out_features for one in self.projected) * work.batch * length
        taught = round(self.teacher_passes * (of_teacher + heads[0]))
        return flops.distillation_step(taught, of_student + heads[1] + added)

    def close(self) -> None:  # noqa: B027 - most stacks leave nothing running
        """End it; nothing is left running."""


Stack = Callable[[Work], Run]


def stack(name: str) -> Stack:
    """The `prepare` function of the stack `name`; its library is imported on this call."""
    return cast("Stack", import_module(f"{__name__}.{name}").prepare)


def stacks(workload: Workload) -> tuple[str, ...]:
    """Every stack of a workload, in the catalog's order: each is the module of its name."""
    return tuple(one.name for one in VARIANTS if (one.suite, one.workload) == ("training_step", workload))
