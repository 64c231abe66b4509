"""A classifier's runtime as a service: one worker with every thread, or a worker a thread."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from matrix.cell import Cell
from matrix.workloads import serve, serving
from matrix.workloads.concurrent import Service
from matrix.workloads.launch import Launch
from matrix.workloads.serve import Predict

Float = npt.NDArray[np.float32]

_ALIKE: Final = 1e-4
"""How far a logit may be from the runtime's own answer when it was alone, relative to the largest."""


def workers_of(cell: Cell, launch: Launch, threads: int) -> list[Predict]:
    """One worker with every thread ("latency"), or one a thread ("throughput", which OpenVINO has a hint for)."""
    if cell.mode == "latency":
        return [serving.load(cell.variant, launch, device="cpu", threads=threads)]
    served = serve.SERVINGS[cell.variant]
    if served.module == "openvino_cpu":
        from matrix.workloads.serve import openvino_cpu  # noqa: PLC0415 - no other worker needs it, and not every platform has it

        return openvino_cpu.streams(launch.artifact(served.format), threads=threads)
    return [serving.load(cell.variant, launch, device="cpu", threads=1) for _ in range(threads)]


def alike(answer: Float, alone: Float) -> bool:
    """Whether the logits are those of the runtime when it was alone, but for the order of sums."""
    return bool(np.allclose(answer, alone, rtol=0, atol=_ALIKE * max(1.0, float(np.abs(alone).max()))))


def service(cell: Cell, launch: Launch, threads: int) -> Service:
    """The cell's runtime, asked the probes of the data's own lengths.

    Raises:
        EvidenceError: it answers otherwise than the reference.
    """
    workers, probes = workers_of(cell, launch, threads), launch.examples.probes("data")
    logits = np.vstack([workers[0](probe) for probe in probes])
    serving.same_answers(cell.variant, logits, launch.examples.reference["data"])
    return Service(workers, probes, alike, len(workers))
