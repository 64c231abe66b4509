"""What crosses the border between the host and a process in an image: jobs in, events and prepared identities out.

Refuses paths of a machine in anything that a bundle keeps: only `Job` and `Folders` hold paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from matrix.canonical import digest
from matrix.cell import Cell
from matrix.profile import Profile
from matrix.strict import Strict


class WorkloadSpec(Strict):
    """Which data and models the user asked for: "embedded", a path or a hub id; models default to their configuration."""

    data: str = "embedded"
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
    """How the student came to be. Accuracies are on the validation split (the teacher's on its first 1,000 examples)."""

    teacher_accuracy: float | None
    student_accuracy: float
    seconds: float


class Artifact(Strict):
    """One exported format."""

    format: str
    model: str
    bytes: int
    sha256: str
    seconds: float


class Prepared(Strict):
    """All identities of a workload, once its student is trained and exported.

    `student`, `exports` and `examples` are keys of the cache; `reused` says that the student was found there.
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

    @property
    def subject(self) -> str:
        """What a sign-off is about: digest of the student's weights and the examples that it is judged on."""
        return digest([self.student_model.weights_sha256, self.data.evaluation.sha256])


class Folders(Strict):
    """Where a process may read and write: absolute paths, on the machine that it runs on."""

    cache: str
    out: str


class Job(Strict):
    """One process' orders: prepare the workload (`launch` is None) or run one launch of `cells`, in this order."""

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


class Event(Strict):
    """One line of progress, written by a process in the image and shown by the host. Times are seconds, widths relative."""

    stage: str
    detail: str = ""
    done: int | None = None
    total: int | None = None
    samples: int | None = None
    width: float | None = None


EVENTS: Final = "events.jsonl"
"""The file in a process' folder that holds its events, one JSON line each."""

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Order:
    """One process to run: its Python arguments, its variables, the folder that it writes, and how long it may take."""

    arguments: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    timeout_s: float


@dataclass(frozen=True)
class End:
    """How a process ended; a negative exit code is the signal that killed it."""

    exit_code: int
    timed_out: bool
    seconds: float

    @property
    def story(self) -> str:
        """How it ended, for people."""
        if self.timed_out:
            return f"it was stopped after {self.seconds:.0f} s, its time limit"
        if self.exit_code < 0:
            return f"it was killed by signal {-self.exit_code}"
        return f"it ended with exit code {self.exit_code}"
