"""The serving cells: load a runtime, prove that it answers right, and start one from nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class ColdStart:
    """A new process' first answer, and what it cost (seconds, bytes; by metric name)."""

    logits: Float
    facts: dict[str, float | None]


def cold_start(variant: str, launch: Launch, probe: Inputs) -> ColdStart:
    """Start a process, wait for its first answer, and no longer: its end is not waited for inside the clock.

    Raises:
        EvidenceError: it ended without an answer; with the end of its error output.
    """
    serving = serve.SERVINGS[variant]
    orders = {
        "variant": variant,
        "model": str(launch.artifact(serving.format)),
        "device": launch.job.device,
        "threads": launch.job.profile.inference_threads,
        "inputs": {name: array.tolist() for name, array in probe.items()},
    }
    command = [sys.executable, "-m", "matrix.workloads.serve.cold", json.dumps(orders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own module
        answer = process.stdout.readline() if process.stdout else ""
        process.kill()
        errors = process.stderr.read() if process.stderr else ""
    if not answer:
        raise EvidenceError(f"a new {variant} process gave no answer", remedy=errors[-1_000:])
    told = json.loads(answer)
    return ColdStart(np.array(told["logits"], dtype=np.float32), told["facts"])
