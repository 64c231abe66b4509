"""The serving cells: load a runtime, prove that it answers right, and start one from nothing."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, Self

import numpy as np

from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.workloads import export, serve
from matrix.workloads.examples import Float
from matrix.workloads.launch import Launch
from matrix.workloads.sampling import Arguments
from matrix.workloads.serve import Inputs, Predict

_EXACT = 1e-4
"""Largest difference of a logit that fp32 may show, relative to the largest logit: the order of sums, nothing more."""

_LIKE = 0.9
"""Least correlation of a quantised variant's logits with the reference's: below it, it is another model."""

_COMPARED = 16
"""Probes that are answered before the clock starts; `export_accuracy` compares every example."""


def load(variant: str, launch: Launch, *, device: str, threads: int) -> Predict:
    """The function that serves `variant` (a runtime, or an export format) in this process, on `threads` threads."""
    if serving := serve.SERVINGS.get(variant):
        return serve.runtime(variant).load(launch.artifact(serving.format), device=device, threads=threads)
    return serve.runtime_of(variant).load(launch.artifact(variant), device=device, threads=threads)


class Answers(Protocol):
    """What a warm cell samples: its requests, and the call that answers one."""

    @property
    def requests(self) -> Sequence[Any]:
        """One a probe."""

    @property
    def call(self) -> Callable[[Any], Float]:
        """The function that answers one request with its logits."""

    def arrivals(self) -> Iterator[Arguments]:
        """The requests as calls, each when it is due."""

    def cpu_s(self) -> float:
        """CPU seconds of what answers outside this process."""

    def facts(self) -> dict[str, float | None]:
        """What the clock does not tell, by metric name."""


class FirstAnswer(Protocol):
    """What a cold cell times: a block in which something starts from nothing and answers once."""

    def __enter__(self) -> Self:
        """Get ready, outside the clock."""

    def __exit__(self, *_: object) -> None:
        """End what was started, outside the clock."""

    def first_answer(self) -> None:
        """Start and answer, inside the clock."""

    def told(self) -> tuple[Float, dict[str, float | None]]:
        """The logits, and where the time went, by metric name."""

    def cpu_s(self) -> float:
        """CPU seconds of what answers outside this process and its children."""


class InProcess:
    """A runtime in this process as a latency cell calls it: its requests are its probes."""

    def __init__(self, predict: Predict, probes: Sequence[Inputs]) -> None:
        self.requests: Sequence[Any] = probes
        self._predict = predict

    @property
    def call(self) -> Predict:
        """The runtime's own function: the harness adds no frame to what is timed."""
        return self._predict

    def arrivals(self) -> Iterator[Arguments]:
        """The probes in turn, one at once after the other."""
        return itertools.cycle(((probe,), {}) for probe in self.requests)

    def cpu_s(self) -> float:
        """Nothing works for this process elsewhere."""
        return 0.0

    def facts(self) -> dict[str, float | None]:
        """Nothing that the clock does not tell."""
        return {}


@contextmanager
def service(cell: Cell, launch: Launch, *, threads: int) -> Iterator[Answers]:
    """What answers a warm cell's requests: a runtime here, or a function."""
    probes = launch.examples.probes(cell.length or "data")
    if not launch.job.emulates:
        yield InProcess(load(cell.variant, launch, device=launch.job.device, threads=threads), probes)
        return
    # at the data's own lengths what a client sends: the function's own tokenizer is in the call
    sent = [str(text) for text in launch.examples.texts] if cell.length == "data" else probes
    with launch.functions.service(cell, sent) as serves:
        yield serves


@contextmanager
def answering(cell: Cell, launch: Launch, *, threads: int) -> Iterator[Predict]:
    """What answers an accuracy cell: a runtime here, or a function at full speed; a function's reference was prepared."""
    if not launch.job.emulates:
        device = launch.job.device if cell.variant == "torch_fp32" else "cpu"
        yield load(cell.variant, launch, device=device, threads=threads)
    elif cell.variant == "torch_fp32":
        yield _recorded(launch)
    else:
        with launch.functions.at_full_speed(cell.variant) as predict:
            yield predict


def _recorded(launch: Launch) -> Predict:
    """The checkpoint's answers to the evaluation examples, as the preparing environment gave them."""
    ids = launch.examples.evaluation_ids()
    known = {row.tobytes(): logits for row, logits in zip(ids, launch.examples.checkpoint, strict=True)}
    return lambda inputs: np.stack([known[row.tobytes()] for row in inputs["input_ids"]])


def cold_start(cell: Cell, launch: Launch) -> FirstAnswer:
    """A process or an instance of a function that starts from nothing to answer the first probe of the data's own length."""
    if launch.job.emulates:
        return launch.functions.cold_start(cell, str(launch.examples.texts[0]))
    return ColdStart(cell.variant, launch, launch.examples.probes("data")[0])


def same_answers(variant: str, logits: Float, reference: Float) -> None:
    """Refuse a runtime that answers otherwise than the reference (both examples x classes).

    Raises:
        EvidenceError: fp32 logits differ beyond rounding, or those of fewer bits are not like the reference's.
    """
    exact = serve.SERVINGS[variant].format in export.EXACT
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


def agree(variant: str, answers: Answers, reference: Float) -> None:
    """Answer the first requests and compare with the reference (`same_answers`).

    Raises:
        EvidenceError: the runtime answers otherwise.
    """
    found = [answers.call(request) for request in answers.requests[:_COMPARED]]
    same_answers(variant, np.vstack(found), reference[: len(found)])


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

    def cpu_s(self) -> float:
        """Its process is a child of this one."""
        return 0.0

    def __enter__(self) -> Self:
        self._ended = ExitStack()
        # what torch.compile made for an earlier process is no part of nothing
        kept = self._ended.enter_context(tempfile.TemporaryDirectory(prefix="matrix-cold-"))
        self._environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": kept}
        self._errors = self._ended.enter_context(tempfile.TemporaryFile("w+"))  # a pipe that nobody reads would fill up
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    def first_answer(self) -> None:
        """Start the process and wait for its line."""
        process = subprocess.Popen(  # noqa: S603 - our own module
            self._command, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=self._environment
        )
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
