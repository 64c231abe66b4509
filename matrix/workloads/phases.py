"""Where a training step's time goes, seen from outside: hooks on teacher, student and optimizer, the same for every stack.

A model's forward passes within a step add up. `backward` is what lies between the last forward's end and the optimizer's
start: the loss, the backward pass and gradient clipping. `other` is the rest of the step: fetching the batch, the schedule,
clearing gradients, the library's own loop. A stack that calls the student in a way of its own, which no hook sees, has no shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

import torch

from matrix.workloads.clock import Mark, marker

NAMES = ("teacher_forward", "student_forward", "backward", "optimizer", "other")

Span = tuple[Mark, Mark]


class _Step(NamedTuple):
    begin: Mark
    end: Mark
    spans: Mapping[str, list[Span]]


def _milliseconds(spans: list[Span]) -> float:
    return sum(opened.elapsed_time(closed) for opened, closed in spans)


class Phases:
    """Watches one stack. Marks are device events, read when the step is over; nothing synchronises inside a step."""

    def __init__(self, device: str) -> None:
        self._mark = marker(device)
        self._open: dict[str, Mark] = {}
        self._spans: dict[str, list[Span]] = {}
        self._steps: list[dict[str, float]] = []
        self._handles: list[Any] = []
        self._pending: _Step | None = None

    def watch(
        self, teachers: Iterable[torch.nn.Module], student: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Put the hooks in place. A stack that wraps its optimizer must pass the inner one."""
        for name, module in (*(("teacher_forward", one) for one in teachers), ("student_forward", student)):
            self._handles.append(module.register_forward_pre_hook(self._opener(name)))
            self._handles.append(module.register_forward_hook(self._closer(name)))
        self._handles.append(optimizer.register_step_pre_hook(self._opener("optimizer")))
        self._handles.append(optimizer.register_step_post_hook(self._closer("optimizer")))

    def _opener(self, name: str) -> Callable[..., None]:
        def opened(*_: Any) -> None:  # noqa: ANN401 - hooks of several shapes
            self._open[name] = self._mark()

        return opened

    def _closer(self, name: str) -> Callable[..., None]:
        def closed(*_: Any) -> None:  # noqa: ANN401 - hooks of several shapes
            self._spans.setdefault(name, []).append((self._open[name], self._mark()))

        return closed

    def wrap(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """`step` with its phases recorded; wrap it once more in the clock's synchronisation."""

        def watched() -> Any:  # noqa: ANN401 - passes through the step's result
            self._spans = {}
            begin = self._mark()
            result = step()
            self._pending = _Step(begin, self._mark(), self._spans)
            return result

        return watched

    def collect(self) -> None:
        """Read the last step's events; call it after the device is idle, outside the clock."""
        pending, self._pending = self._pending, None
        if pending is None or not {"student_forward", "optimizer"} <= set(pending.spans):
            return
        spans, whole = pending.spans, pending.begin.elapsed_time(pending.end)
        spent = {name: _milliseconds(found) for name, found in spans.items()}
        forwards = [spans[name][-1][1] for name in ("teacher_forward", "student_forward") if name in spans]
        spent["backward"] = min(end.elapsed_time(spans["optimizer"][0][0]) for end in forwards)
        spent["other"] = max(0.0, whole - sum(spent.values()))
        self._steps.append({name: spent.get(name, 0.0) / whole for name in NAMES})

    def shares(self, last: int) -> dict[str, float]:
        """Mean share of each phase over the `last` steps (the confirming block); the shares sum to one."""
        seen = self._steps[-last:]
        return {f"{name}_share": fmean(step[name] for step in seen) for name in NAMES} if len(seen) == last else {}

    def close(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
