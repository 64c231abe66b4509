"""The serving cells: load a runtime, prove that it answers right, and start one from nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

import numpy as np

from matrix.errors import EvidenceError
from matrix.workloads import serve
from matrix.workloads.examples import Float
from matrix.workloads.launch import Launch
from matrix.workloads.serve import Inputs, Predict

_EXACT = 1e-4
"""Largest difference of a logit that fp32 may show, relative to the largest logit: the order of sums, nothing more."""

_LIKE = 0.9
"""Least correlation of an INT8 variant's logits with the reference's: below it, it is another model."""

_COMPARED = 16
"""Probes that are answered before the clock starts; `export_accuracy` compares every example."""


def load(variant: str, launch: Launch, *, device: str, threads: int) -> Predict:
    """The function that serves `variant` (a runtime, or an export format) in this process, on `threads` threads."""
    name = variant if variant in serve.SERVINGS else serve.serving_of(variant)
    serving = serve.SERVINGS[name]
    return serve.runtime(name).load(launch.artifact(serving.format), device=device, threads=threads)


def same_answers(logits: Float, reference: Float, *, exact: bool) -> None:
    """Refuse a runtime that answers otherwise than the reference (both examples x classes).

    Raises:
        EvidenceError: fp32 logits differ beyond rounding, or INT8 logits are not like the reference's.
    """
    if not np.isfinite(logits).all():
        raise EvidenceError("a logit is not finite", remedy="the export is broken; measure nothing with it")
    largest = float(np.abs(reference).max())
    apart = float(np.abs(logits - reference).max())
    if exact and apart > _EXACT * max(1.0, largest):
        raise EvidenceError(
            f"fp32 logits differ by {apart:.2e} from the reference",
            remedy=f"allowed is {_EXACT * max(1.0, largest):.2e}",
        )
    alike = float(np.corrcoef(logits.ravel(), reference.ravel())[0, 1])
    if not alike >= _LIKE:
        raise EvidenceError(f"logits correlate by {alike:.3f} with the reference", remedy=f"at least {_LIKE} is asked")


def agree(predict: Predict, probes: Sequence[Inputs], reference: Float, *, exact: bool) -> None:
    """Answer the first probes and compare with the reference (`same_answers`).

    Raises:
        EvidenceError: the runtime answers otherwise.
    """
    first = probes[:_COMPARED]
    same_answers(np.vstack([predict(probe) for probe in first]), reference[: len(first)], exact=exact)


class ColdStart:
    """A process that starts from nothing, answers one probe, and is ended when the block ends, outside the clock."""

    def __init__(self, variant: str, launch: Launch, probe: Inputs) -> None:
        serving = serve.SERVINGS[variant]
        orders = {
            "parent": os.getpid(),
            "variant": variant,
            "model": str(launch.artifact(serving.format)),
            "device": launch.job.device,
            "threads": launch.job.profile.inference_threads,
            "inputs": {name: array.tolist() for name, array in probe.items()},
        }
        self.variant, self._answer = variant, ""
        self._command = [sys.executable, "-m", "matrix.workloads.serve.cold", json.dumps(orders)]

    def __enter__(self) -> Self:
        self._ended = ExitStack()
        self._errors = self._ended.enter_context(tempfile.TemporaryFile("w+"))  # a pipe that nobody reads would fill up
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    def first_answer(self) -> None:
        """Start the process and wait for its line."""
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._errors, text=True)  # noqa: S603 - our own module
        self._ended.enter_context(process)
        self._ended.callback(process.kill)
        self._answer = process.stdout.readline() if process.stdout else ""

    def told(self) -> tuple[Float, dict[str, float | None]]:
        """The logits, and what they cost by the process' own account (seconds, bytes; by metric name).

        Raises:
            EvidenceError: it ended without an answer; with the end of its error output.
        """
        if not self._answer:
            self._errors.seek(0)
            raise EvidenceError(f"a new {self.variant} process gave no answer", remedy=self._errors.read()[-1_000:])
        told = json.loads(self._answer)
        return np.array(told["logits"], dtype=np.float32), told["facts"]
