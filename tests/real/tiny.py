"""A profile small enough for tests: tiny models that are really trained, few samples that are really taken."""

from __future__ import annotations

from pathlib import Path

from matrix import definitions
from matrix.cell import Cell
from matrix.job import Event, WorkloadSpec
from matrix.keys import Keys
from matrix.ledger import Ledgers, Notary
from matrix.profile import Profile, Recipe, Sampling, StudentShape, TeacherShape
from matrix.provenance import DEVELOPMENT
from matrix.run import Request
from matrix.store import Store
from matrix.target import Executor, Targets, parse_targets

FEW = Sampling(
    min_rounds=6, max_rounds=10, cap_s=0.05, width=0.5, doubt_width=1.0, warmup_calls=2, warmup_cap_s=0.2, steady=0.5
)

PROFILE = Profile(
    name="tiny",
    launches=2,
    quality_launches=1,
    training_batch=4,
    training_length=16,
    latency_lengths=(16, "data"),
    stacks=("raw_torch", "hf_trainer"),  # every stack at work is test_stacks.py's, and one run's of test_containers.py
    exports=("torch_fp32", "onnx_fp32", "onnx_int8", "openvino_fp32", "openvino_int8"),  # the others: test_exports.py
    runtimes=("torch_eager", "ort_fp32", "ort_int8", "openvino_fp32", "openvino_int8"),
    launch_timeout_s=900,  # for what hangs, not for what is slow: a loaded machine takes five times as long
    prepare_timeout_s=900,
    recipe=Recipe(
        vocabulary=2_000,
        teacher=TeacherShape(layers=1, dim=64, heads=2, hidden=128),
        student=StudentShape(layers=1, dim=32, heads=2, hidden=64),
        train_examples=3_000,
        validation_examples=100,
        evaluation_examples=600,
        teacher_epochs=4,
        student_epochs=6,
        student_batch=16,
        teacher_lr=2e-3,
        student_lr=2e-3,
        calibration_examples=32,
    ),
    training=FEW,
    inference=FEW,
)


def targets() -> Targets:
    """The project's targets."""
    return parse_targets(definitions.text("targets.toml"))


def request(
    root: Path,
    *,
    target: str = "cpu",
    executor: Executor = "native",
    cache: Path | None = None,
    resume: bool = False,
    **changes: object,
) -> Request:
    """A run of a target at the tiny profile, below `root`, signed by a development key that lies there too."""
    profile, keys = PROFILE.model_copy(update=changes), Keys(root / "home")
    mine = keys.signing(DEVELOPMENT)
    notary = Notary(Ledgers(root / "reports", keys.keyring()), (mine,))
    store, kept = Store(root / "reports"), cache or root / "cache"
    return Request(target, profile, WorkloadSpec(), store, kept, resume, executor, notary)


class Silent:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.events: list[Event] = []

    def say(self, text: str) -> None:
        """A line that stays."""
        self.said.append(text)

    def expect(self, launches: list[list[Cell]]) -> None:
        """The cells of every launch that is to come."""

    def launch(self, index: int) -> None:
        """The next expected launch begins."""
        self.said.append(f"launch {index}")

    def event(self, event: Event) -> None:
        """Progress."""
        self.events.append(event)
