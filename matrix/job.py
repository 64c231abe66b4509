"""What crosses the border between the host and a process in an image: jobs in, events and prepared identities out.

Refuses paths of a machine in anything that a bundle keeps: only `Job` and `Folders` hold paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from matrix.canonical import digest
from matrix.cell import Cell
from matrix.profile import Profile
from matrix.strict import Strict
from matrix.target import Target


class WorkloadSpec(Strict):
    """Which data and models the user asked for: "embedded", a path or a hub id; models default to their configuration.

    `answers` is what the response workload learns from: "embedded", or the path of a file that `matrix label` wrote.
    """

    data: str = "embedded"
    answers: str = "embedded"
    teacher: str | None = None
    student: str | None = None


class SplitIdentity(Strict):
    """One ordered split."""

    examples: int
    sha256: str


class DataIdentity(Strict):
    """The data that a student was trained and judged on. `dropped` training rows were also in a held-out split."""

    source: str
    classes: tuple[str, ...]
    train: SplitIdentity
    validation: SplitIdentity
    evaluation: SplitIdentity
    dropped: int


class ModelIdentity(Strict):
    """A model by its weights and its configuration."""

    origin: Literal["trained", "given", "configuration"]
    parameters: int
    config_sha256: str
    weights_sha256: str | None


class Training(Strict):
    """How the student came to be. Accuracies are on the validation split (the teacher's on its first 1,000 examples).

    `seed` decided its weights and the order of its examples, `device` where it was trained; `first_losses` are those of its
    first ten steps without dropout, which two devices that compute alike have in common.
    """

    teacher_accuracy: float | None
    student_accuracy: float
    seconds: float
    seed: int | None = None
    device: str | None = None
    first_losses: tuple[float, ...] = ()


class Artifact(Strict):
    """One exported format."""

    format: str
    model: str
    bytes: int
    sha256: str
    seconds: float


class ResponseIdentity(Strict):
    """The conversations that a response student is trained on: `sha256` is of the answered prompts that they are cut from.

    `student` and `files` are the cache's keys of the student that is exported and of its GGUF files, `weights_sha256` of its
    weights; None where no cell needs it.
    """

    source: str
    examples: int
    sha256: str
    tokenizer_sha256: str
    conversations: str
    student: str | None = None
    files: str | None = None
    weights_sha256: str | None = None


class Prepared(Strict):
    """All identities of a workload, once its student is trained and exported.

    `student`, `exports`, `examples` and `response.conversations` are keys of the cache; `reused` says that the student was found
    there. `response` is None where no cell of the response workload is planned. `teachers` are keys too, of those that trials
    learn from: trained here, the second from another seed.
    """

    data: DataIdentity
    tokenizer_sha256: str
    teacher_model: ModelIdentity
    student_model: ModelIdentity
    training: Training | None
    artifacts: dict[str, Artifact]
    student: str
    exports: str
    examples: str
    reused: bool
    response: ResponseIdentity | None = None
    teachers: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What a sign-off is about: digest of the student's weights and the examples that it is judged on."""
        return digest([self.student_model.weights_sha256, self.data.evaluation.sha256])


class Layer(Strict):
    """One layer of an image: what made it, the digest of its archive, and its bytes as they are and gzipped."""

    made_by: str
    sha256: str
    bytes: int
    compressed_bytes: int


class Image(Strict):
    """An image as it was built. `id` is the digest of its configuration.

    `inputs_sha256` covers all that its dependencies were built from, `source_sha256` the code in its last layer, `revision`
    is that code's commit. Build times are seconds: of the newest build that installed the dependencies (cold) and of the
    newest that found them in the builder's cache (warm). `base_created` is None where the engine does not hold the base.
    """

    name: str
    id: str
    platform: str
    revision: str
    inputs_sha256: str
    source_sha256: str
    base: str
    base_created: str | None
    layers: tuple[Layer, ...]
    cold_build_s: float | None = None
    warm_build_s: float | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all layers, uncompressed."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def compressed_bytes(self) -> int:
        """Bytes that a pull moves."""
        return sum(layer.compressed_bytes for layer in self.layers)


CacheKind = Literal["teachers", "logits", "students", "exports", "examples", "conversations", "language"]
"""What is made once and kept, a folder of the cache each."""


class Folders(Strict):
    """Where a process may read and write: absolute paths, on the machine that it runs on."""

    cache: str
    out: str


class Job(Strict):
    """One process' orders: prepare the workload (`launch` is None) or run one launch of `cells`, in this order.

    `folders` are those of the machine or the container that the process runs in: the executor sets them. `image` is the one
    that is measured, None without one; where `emulates`, the process is a client of containers of that image. `owner` marks
    whatever a launch leaves on an engine when it is killed; `nonce` is the run's, which each launch gives back.
    """

    target: str
    device: Literal["cpu", "cuda", "mps"]
    profile: Profile
    spec: WorkloadSpec
    suite_sha256: str
    cells: tuple[Cell, ...]
    folders: Folders
    threads: int
    launch: int | None = None
    seed: int = 0
    prepared: Prepared | None = None
    image: Image | None = None
    emulates: bool = False
    owner: str = ""
    nonce: str = ""

    def command(self, suites: str, file: str) -> list[str]:
        """The Python arguments of the process that obeys this job, read from `file`; `suites` is where it finds them."""
        if self.launch is None:
            return ["-m", "matrix.workloads.prepare", file]
        tests = [f"{suites}/test_{suite}.py" for suite in sorted({cell.suite for cell in self.cells})]
        arguments = ["-m", "pytest", *tests, "-c", f"{suites}/pytest.ini", "--rootdir", suites, "-q"]
        plugins = ["-p", "pytest_benchmark.plugin", "-p", "matrix.plugin"]
        return [*arguments, *plugins, f"--benchmark-json={self.folders.out}/{BENCHMARK}", "--matrix-job", file]


class Event(Strict):
    """One line of progress, written by a process in the image and shown by the host. Times are seconds, widths relative."""

    stage: str
    detail: str = ""
    done: int | None = None
    total: int | None = None
    samples: int | None = None
    width: float | None = None


BENCHMARK: Final = "benchmark.json"
"""The file in a launch's folder that holds pytest-benchmark's own JSON."""

EVENTS: Final = "events.jsonl"
"""The file in a process' folder that holds its events, one JSON line each."""

EVENTS_DESCRIPTOR: Final = "MATRIX_EVENTS"
"""The variable that gives the number of a descriptor which takes the events instead of the file."""

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Order:
    """One process to run for a target: its job, its variables, the folder that it fills, and how long it may take.

    `cache` is where this machine keeps what is made once.
    """

    target: Target
    job: Job
    variables: Mapping[str, str]
    folder: Path
    cache: Path
    timeout_s: float


@dataclass(frozen=True)
class End:
    """How a process ended; a negative exit code is the signal that killed it. `why` is what the executor knows of it."""

    exit_code: int
    timed_out: bool
    seconds: float
    why: str | None = None

    @property
    def story(self) -> str:
        """How it ended, for people."""
        if self.timed_out:
            return f"it was stopped after {self.seconds:.0f} s, its time limit"
        if self.why:
            return self.why
        if self.exit_code < 0:
            return f"it was killed by signal {-self.exit_code}"
        return f"it ended with exit code {self.exit_code}"
