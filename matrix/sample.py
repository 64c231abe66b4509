"""What one launch says: the evidence of each cell, beside pytest-benchmark's own statistics, and how the launch went.

A cell's raw samples stay in pytest-benchmark's JSON; `CellEvidence` is its `extra_info["matrix"]`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, Literal

from pydantic import Field

from matrix.cell import Cell
from matrix.strict import Strict
from matrix.target import Expectation

EXTRA: Final = "matrix"
"""The key of `extra_info` that holds a `CellEvidence`."""

OUTCOMES: Final = "outcomes.jsonl"
PROCESS: Final = "process.json"
INVENTORY: Final = "inventory.json"
FALLBACKS: Final = "fallbacks.jsonl"
"""A launch's files beside pytest-benchmark's own JSON (`job.BENCHMARK`): an `Outcome` a line, its `ProcessFacts`,
an image's `Inventory` where its cell ran, and a `Fallback` a line."""

FELL_BACK: Final = "fall back to run on the CPU"
"""What torch (2.13, MPSFallback.mm) warns of when MPS lacks an operator and PYTORCH_ENABLE_MPS_FALLBACK is set."""


def fallback_in(text: str) -> str | None:
    """The warning `text` without the line of torch's source, if it says that an operator ran on the CPU instead."""
    return text.partition(" (Triggered")[0] if FELL_BACK in text else None


class Timing(Strict):
    """How a cell was sampled. Widths are half-widths of the median's 95 % interval, relative to the median.

    `width` is that of the confirming block, whose samples are the claim; None where its rounds are too few for any.
    """

    warmup_calls: int
    steady: bool
    adaptive_calls: int
    capped: bool
    rounds: int
    asked_width: float
    doubt_width: float
    width: float | None


class Load(Strict):
    """What else the machine did while a cell was sampled.

    `cpu_s` is this process' CPU time over `wall_s`; `foreign_cores` the mean number of cores that other processes kept busy;
    `steal_share` the share of all cores' time that the hypervisor took; `throttled_s` what a CPU quota took. None: not told
    by this system.
    """

    wall_s: float
    cpu_s: float
    foreign_cores: float | None
    steal_share: float | None
    throttled_s: float | None


class CellEvidence(Strict):
    """One cell in one launch. `facts` are its single values by metric name (SI); `outputs` and `labels` name files by digest."""

    cell: Cell
    workload_id: str
    device: str
    dtype: str
    threads: int
    load: Load
    timing: Timing | None = None
    facts: dict[str, float] = Field(default_factory=dict)
    outputs: str | None = None
    labels: str | None = None


class ClockCheck(Strict):
    """The clock's test of itself on this device, before anything is timed.

    `empty_s` times an empty region; `doubling` is the time of 2N units of work over that of N (2 is right); `same` compares
    the same work under two names (1 is right).
    """

    empty_s: float
    doubling: float
    same: float

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the clock; none when its times may be believed."""
        found = []
        if self.empty_s > 1e-3:  # noqa: PLR2004 - a millisecond for nothing: no latency could be told from it
            found.append(f"an empty region takes {self.empty_s:.2e} s")
        if not 1.8 <= self.doubling <= 2.2:  # noqa: PLR2004 - 10 % around the right answer
            found.append(f"twice the work takes {self.doubling:.2f} times as long")
        if not 0.9 <= self.same <= 1.1:  # noqa: PLR2004 - 10 % around the right answer
            found.append(f"the same work takes {self.same:.2f} times as long under another name")
        return tuple(found)


class Environment(Strict):
    """The software that a launch ran on. `packages_sha256` covers every installed distribution."""

    python: str
    system: str
    packages: dict[str, str]
    packages_sha256: str
    variables: dict[str, str]


ISA_CLASSES: Final = {
    "amx": "amx_int8",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512": "avx512f",
    "avx2": "avx2",
    "dotprod": "asimddp",
}
"""Classes of instruction set by the flag that tells them, widest first: kernels of one class add INT8 products up alike."""


class HostClass(Strict):
    """The hardware that a launch ran on, as far as it matters to a number."""

    cpu: str
    machine: str
    flags: tuple[str, ...]
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    driver: str | None = None
    virtual: bool | None = None
    quota_cores: float | None = None
    governor: str | None = None

    @property
    def isa(self) -> str:
        """The class of instruction set on which INT8 kernels depend: the widest that this CPU has, else its machine."""
        return next((name for name, flag in ISA_CLASSES.items() if flag in self.flags), self.machine)

    def differs(self, expect: Expectation) -> list[str]:
        """What a target expects of its host and this one is not, as told from inside; an engine may be far away."""
        facts = [f"it ran on {self.machine}"] if self.machine != expect.machine else []
        if lacking := [flag for flag in expect.cpu_flags if flag not in self.flags]:
            facts.append(f"its CPU lacks {', '.join(lacking)}")
        if expect.gpu_name and not any(fnmatchcase(name, expect.gpu_name) for name in self.gpus):
            facts.append(f"its GPUs are {', '.join(self.gpus) or 'none'}, not {expect.gpu_name!r}")
        return facts


class Confinement(Strict):
    """The limits of a process: as a target asks for them, or as the process finds them from inside (`matrix.confined`).

    `memory_swap_bytes` is memory and swap together; `capabilities` the bounding and effective sets joined, as a number;
    `cpus` those that the scheduler may use; `quota_us` and `period_us` the CPU's quota, None without one.
    """

    user: int
    read_only: bool
    interfaces: tuple[str, ...]
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    pids: int | None
    memory_bytes: int | None
    memory_swap_bytes: int | None
    cpus: tuple[int, ...]
    quota_us: int | None = None
    period_us: int | None = None

    def broken_by(self, found: Confinement) -> tuple[str, ...]:
        """Every limit that was asked for here and is another in `found`, with both values."""
        theirs = found.model_dump()
        return tuple(
            f"{name} is {theirs[name]}, asked was {value}"
            for name, value in self.model_dump().items()
            if theirs[name] != value
        )


class Canary(Strict):
    """One question to which the right answer is known, asked of a device before anything is timed on it.

    `error` is the distance to the right answer (None: it raised, or was not a number), `limit` the largest that is right.
    """

    name: str
    error: float | None
    limit: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the device answered right."""
        return self.error is not None and self.error <= self.limit


class Tensor(Strict):
    """One tensor of a training step on this device beside its fp64 CPU reference.

    `rmse` is the root mean square error over its `elements` (None: one of the two is not a number where the other is);
    `tolerance` the element-wise error that the dtype explains; `corrupted_rows` counts rows with an element beyond ten
    times that; `rerun` is the largest change of an element when the step is done again.
    """

    name: str
    shape: tuple[int, ...]
    batch: int
    elements: int
    rmse: float | None
    tolerance: float
    corrupted_rows: int
    rerun: float | None


class Battery(Strict):
    """What a device answered before anything was timed: its canaries, and tensors that another device's can be compared with.

    `fallbacks` are warnings that an operator ran on the CPU instead; `tf32` whether fp32 products may be rounded (None: not
    a device that does); `compiler` what `torch.compile` compiled with.
    """

    device: str
    canaries: tuple[Canary, ...]
    tensors: tuple[Tensor, ...] = ()
    fallbacks: tuple[str, ...] = ()
    tf32: bool | None = None
    compiler: str | None = None


class Fallback(Strict):
    """A warning, while cells ran, that an operator ran on the CPU instead."""

    text: str


class ProcessFacts(Strict):
    """What a launch's process says of itself before its first cell. `nonce` is the run's, given back by who has its job."""

    clock: ClockCheck
    environment: Environment
    host: HostClass
    confinement: Confinement | None = None
    battery: Battery | None = None
    nonce: str = ""


class Installed(Strict):
    """One Python distribution of an image."""

    name: str
    version: str
    licence: str
    bytes: int


class DebianPackage(Strict):
    """One Debian package of an image."""

    name: str
    version: str
    architecture: str


class Inventory(Strict):
    """What an image holds, as seen from inside."""

    python: tuple[Installed, ...]
    debian: tuple[DebianPackage, ...]


class Outcome(Strict):
    """What became of one planned cell in one launch; `error` explains whatever is not measured."""

    cell: str
    state: Literal["measured", "failed", "unreached"]
    error: str | None = None
    seconds: float = 0.0


class LaunchRecord(Strict):
    """One fresh process: the order of its cells (a block of a randomised block design) and what became of each.

    `story` says how it ended; `image` is the digest of its image's configuration; `asked` are the limits of its container
    (None: it had none), `confinement` those that it found. `foreign_gpu` names processes that were on its GPU before it began
    (None: not told); `fallbacks` are warnings of its cells that an operator ran on the CPU instead.
    """

    index: int
    seed: int
    order: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    clock: ClockCheck | None
    environment: Environment | None
    host: HostClass | None
    started: str
    seconds: float
    exit_code: int
    story: str = ""
    image: str | None = None
    asked: Confinement | None = None
    confinement: Confinement | None = None
    battery: Battery | None = None
    nonce: str = ""
    foreign_gpu: tuple[str, ...] | None = None
    fallbacks: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """Limits that were asked for and did not hold, as told from inside; a launch that did not tell held none."""
        if self.asked is None:
            return ()
        return self.asked.broken_by(self.confinement) if self.confinement else ("it said nothing of its limits",)
