"""One launch's hands: what the suites share, and how a cell's samples become evidence.

Lives in the process that measures. Cells run in a shuffled order, so nothing here depends on which came first.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matrix import definitions
from matrix.canonical import file_digest
from matrix.cell import Cell, Suite
from matrix.errors import UsageError
from matrix.identity import workload_id
from matrix.job import Image, Job
from matrix.load import CpuSeconds, LoadMark
from matrix.profile import Sampling
from matrix.sample import EXTRA, CellEvidence, Load, Timing
from matrix.strict import Strict
from matrix.workloads.cache import Cache
from matrix.workloads.clock import on_device
from matrix.workloads.examples import Examples
from matrix.workloads.progress import Tell, teller
from matrix.workloads.sampling import Inputs, Sampler

if TYPE_CHECKING:
    from matrix.workloads.function import Functions

ONCE = Sampling(
    min_rounds=1, max_rounds=1, cap_s=1.0, width=1.0, doubt_width=1.0, warmup_calls=0, warmup_cap_s=0.0, steady=1.0
)
"""For a call that is made once a launch: an evaluation, a cold start."""


class Launch:
    """What one launch knows and shares among its cells."""

    def __init__(self, job: Job) -> None:
        if job.prepared is None or job.launch is None:
            raise UsageError(
                "the job has no prepared workload", remedy="run suites by `matrix run`, which prepares it first"
            )
        self.job, self.prepared, self.index = job, job.prepared, job.launch
        self.cache, self.out = Cache(Path(job.folders.cache)), Path(job.folders.out)
        self.tell: Tell = teller(self.out)
        self._ended = ExitStack()

    def append(self, name: str, line: Strict) -> None:
        """Append one JSON line to a file in the launch's folder."""
        with (self.out / name).open("a", encoding="utf-8") as stream:
            stream.write(line.model_dump_json() + "\n")

    def artifact(self, name: str) -> Path:
        """The model file of an export format."""
        return self.cache.folder("exports", self.prepared.exports) / name / self.prepared.artifacts[name].model

    @property
    def image(self) -> Image:
        """The image that is measured.

        Raises:
            UsageError: this launch has none.
        """
        if self.job.image is None:
            raise UsageError("this launch has no image", remedy="run it in containers")
        return self.job.image

    @cached_property
    def suites(self) -> dict[Suite, str]:
        """What decides the numbers of each suite."""
        return definitions.suite_digests()

    @cached_property
    def functions(self) -> Functions:
        """The functions that this launch is a client of."""
        from matrix.workloads.function import Functions  # noqa: PLC0415 - images do not have the engine's SDK

        return self._ended.enter_context(Functions(self, self.job.owner))

    def close(self) -> None:
        """End what the launch holds open."""
        self._ended.close()

    @cached_property
    def examples(self) -> Examples:
        """The workload's examples."""
        return Examples.read(self.cache.folder("examples", self.prepared.examples))


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this process on its last `threads` cores while a cell runs (Linux); threads made inside inherit it.

    The last ones, because interrupts and other people's work tend to sit on the first.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Measurement:
    """The suites' one fixture: times a call through pytest-benchmark and files the evidence of its cell."""

    def __init__(self, benchmark: Any, cell: Cell, launch: Launch, *, threads: int) -> None:  # noqa: ANN401 - pytest-benchmark's fixture
        self.benchmark, self.cell, self.launch, self.threads = benchmark, cell, launch, threads
        self.device = launch.job.device
        self.dtype = launch.job.profile.training_dtype if cell.trains else "float32"
        self._facts: dict[str, float] = {}
        self._files: dict[str, str] = {}
        self._sampled: tuple[Timing, Load] | None = None

    def facts(self, **values: float | None) -> None:
        """Single values of this cell, by metric name; what the system does not tell (None) is left out."""
        self._facts |= {name: float(value) for name, value in values.items() if value is not None}

    def keep(self, kind: str, array: npt.NDArray[Any]) -> None:
        """File an array ("outputs" or "labels") under its digest: equal outputs are stored once."""
        folder = self.launch.out / "outputs"
        folder.mkdir(exist_ok=True)
        beside = folder / f".{kind}.npy"
        np.save(beside, array, allow_pickle=False)
        name = file_digest(beside)
        beside.replace(folder / f"{name}.npy")
        self._files[kind] = name

    def once(self, call: Callable[[], Any], elsewhere: CpuSeconds = lambda: 0.0) -> Any:  # noqa: ANN401 - passes through the call's result
        """Make the call once, timed; its result."""
        kept: list[Any] = []
        self.sampled(lambda: kept.append(call()), ONCE, elsewhere=elsewhere)
        return kept[0]

    def sampled(
        self,
        call: Callable[..., Any],
        rules: Sampling,
        inputs: Inputs = lambda: itertools.repeat(((), {})),
        elsewhere: CpuSeconds = lambda: 0.0,
    ) -> int:
        """Sample `call` under `rules` with these arguments; the number of claimed rounds.

        `elsewhere` tells the CPU time of what works for the call outside this process and its children.
        """
        self.benchmark.group = self.cell.suite
        sampler = Sampler(on_device(call, self.device), inputs, rules, self.launch.tell, self.cell.id)
        mark = LoadMark.now(elsewhere)
        timing = sampler.run(self.benchmark, lambda: self.samples)
        self._sampled = (timing, mark.until_now(elsewhere))
        return timing.rounds

    @property
    def samples(self) -> list[float]:
        """The claimed samples in their order, seconds."""
        return list(self.benchmark.stats.stats.data)

    def file(self) -> None:
        """Write the cell's evidence into pytest-benchmark's `extra_info`; the fixture's last act."""
        if self._sampled is None:
            return
        job = self.launch.job
        timing, load = self._sampled
        identity = workload_id(
            self.cell,
            job.profile,
            self.launch.prepared,
            suite_sha256=self.launch.suites[self.cell.suite],
            dtype=self.dtype,
        )
        evidence = CellEvidence(
            cell=self.cell,
            workload_id=identity,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            load=load,
            timing=timing,
            facts=self._facts,
            outputs=self._files.get("outputs"),
            labels=self._files.get("labels"),
        )
        self.benchmark.extra_info[EXTRA] = evidence.model_dump(mode="json")
