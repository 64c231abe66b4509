"""What a canary answers, and how far from the right answer that is.

Refuses to forget a NaN: a distance in which one took part is NaN, whatever it was compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from matrix.workloads import step
from matrix.workloads.step import normal


class Answer(NamedTuple):
    """How far a device is from the right answer, and how far it may be; an error that is not a number is wrong."""

    error: float
    limit: float
    detail: str = ""


Question = Callable[[str], Answer]
"""Asked of a device."""


def distance(found: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference, relative to the largest right value; NaN where one of the two is not a number.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != right.shape:
        raise ValueError(f"the answer's shape is {tuple(found.shape)}, the right one's {tuple(right.shape)}")
    a, b = (tensor.detach().cpu().double() for tensor in (found, right))
    return float((a - b).abs().max() / b.abs().max())


def worst(errors: Iterable[float]) -> float:
    """The largest, or NaN if one is: Python's own `max` forgets NaN by its place in the list."""
    return float(np.max(list(errors)))


def _leaf(tensor: torch.Tensor, device: str, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().to(device, dtype, copy=True).requires_grad_()


Formula = Callable[..., torch.Tensor]


def with_gradients(
    formula: Formula, inputs: Iterable[torch.Tensor], device: str, dtype: torch.dtype
) -> list[torch.Tensor]:
    """The formula's result, and the gradients of a fixed weighted sum of it, at copies of `inputs`."""
    leaves = [_leaf(one, device, dtype) for one in inputs]
    result = formula(*leaves)
    weighing = normal(*result.shape, seed=99).to(device, result.dtype)
    (result * weighing).sum().backward()
    return [result, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def against_reference(
    formula: Formula,
    inputs: Iterable[torch.Tensor],
    device: str,
    dtype: torch.dtype = torch.float32,
    right: Formula | None = None,
) -> float:
    """The distance of a formula and its gradients, in `dtype`, from `right` (the formula itself) in fp64 on the CPU."""
    given = [one.to(dtype) for one in inputs]  # rounded first: both get the same numbers
    found = with_gradients(formula, given, device, dtype)
    known = with_gradients(right or formula, given, "cpu", torch.float64)
    return worst(distance(a, b) for a, b in zip(found, known, strict=True))


def step_error(found: step.Step, right: step.Step) -> float:
    """The distance of logits and of each weight's gradient."""
    gradients = (distance(gradient, right.gradients[name]) for name, gradient in found.gradients.items())
    return worst([distance(found.logits, right.logits), *gradients])
