"""Training stacks: one module a stack, a Protocol and one dict. Each does the same work, as its library's users write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

Batch = Mapping[str, torch.Tensor]

CLIP: Final = 1.0
LEARNING_RATE: Final = 5e-5


@dataclass(frozen=True)
class Work:
    """What every stack is given: the same models, examples, loss and optimizer settings.

    `teacher` is frozen and in evaluation mode; `student` is in training mode with its dropout; `loader` yields
    `input_ids`, `attention_mask` (batch x length) and `labels` (batch), in fp32 or under bf16 autocast as `dtype` says.
    """

    teacher: PreTrainedModel
    student: PreTrainedModel
    loader: DataLoader[dict[str, torch.Tensor]]
    batch: int
    temperature: float
    alpha: float
    device: str
    dtype: str

    def optimizer(self) -> torch.optim.AdamW:
        """The optimizer that every stack uses: fused AdamW, no weight decay, constant rate."""
        return torch.optim.AdamW(self.student.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)


class Run(Protocol):
    """A stack, ready to step."""

    optimizer: torch.optim.Optimizer

    def loss(self, batch: Batch) -> torch.Tensor:
        """The stack's own loss on `batch`, with a gradient: what is compared with the reference before timing."""

    def step(self) -> None:
        """One optimizer step as the stack does it: fetch, teacher, student, loss, backward, clip, optimizer."""

    def close(self) -> None:
        """End it; nothing is left running."""


Stack = Callable[[Work], Run]

_MODULES: Final = {"raw_torch": "raw_torch", "hf_trainer": "hf_trainer"}


def stack(name: str) -> Stack:
    """The `prepare` function of the stack `name`; its library is imported on this call."""
    return cast("Stack", import_module(f"{__name__}.{_MODULES[name]}").prepare)


def stacks() -> tuple[str, ...]:
    """Every stack that is built."""
    return tuple(_MODULES)
