"""Steps as captured CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from matrix.workloads.distill.buckets import Shape


class Captured:
    """A step with one CUDA graph for each shape of batch; all share one pool of memory.

    A shape's first batch runs eagerly, on a side stream, and warms its kernels up; its second is captured. From then on a step
    is a copy of the batch's indices and one launch.
    """

    def __init__(self, step: Callable[[torch.Tensor, Shape], torch.Tensor]) -> None:
        self._step = step
        self._inputs: dict[Shape, torch.Tensor] = {}
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._pool, self._side = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def __call__(self, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        """Run the step on `rows`; its loss is overwritten by the next step of this shape."""
        if shape not in self._inputs:
            self._inputs[shape] = torch.empty_like(rows)
            return self._eager(rows, shape)
        if shape not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                loss = self._step(self._inputs[shape], shape)
            self._graphs[shape] = graph, loss
        self._inputs[shape].copy_(rows)
        graph, loss = self._graphs[shape]
        graph.replay()
        return loss

    def _eager(self, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        here = torch.cuda.current_stream()
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            loss = self._step(rows, shape)
        here.wait_stream(self._side)
        return loss
