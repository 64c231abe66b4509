"""What `matrix distill` asks of the process that trains, and what stands beside the student that it made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

from matrix.job import WorkloadSpec
from matrix.profile import Recipe
from matrix.strict import Strict

STORY: Final = "training.json"
"""The file beside a student that says how it was made."""

NOTE: Final = "note"
"""The stage of an event whose detail is a line that stays."""


class Asked(Strict):
    """What a user asks for: all of a command line that decides the student. No device is the best one that is there."""

    spec: WorkloadSpec
    recipe: Recipe
    dropout: bool = False
    random_order: bool = False
    device: Literal["cpu", "cuda", "mps"] | None = None


class Distillation(Strict):
    """One process' orders. `out` appears whole when all is done; `working` keeps what a killed one goes on from."""

    asked: Asked
    out: str
    working: str
    cache: str
    threads: int
    every_s: float


class Deciding(Strict):
    """All that decides a student, by name, and the threads of the process that began it: rounding depends on them."""

    facts: dict[str, str]
    threads: int

    def differing(self, other: Deciding) -> list[str]:
        """Names of the facts that `other` has otherwise."""
        mine, theirs = self.facts, other.facts
        return sorted(name for name in mine | theirs if mine.get(name) != theirs.get(name))


class Distilled(Strict):
    """How a student came to be.

    The teacher is judged on the first 1,000 validation examples, the student on the evaluation split. `seconds` and
    `examples_per_s` are of the student's training alone, without what kills lost.
    """

    asked: Asked
    deciding: Deciding
    weights_sha256: str
    teacher_accuracy: float
    student_accuracy: float
    steps: int
    seconds: float
    examples_per_s: float


def working_folder(out: Path) -> Path:
    """Where a student that is to appear at `out` is made: beside it, so that it appears by one renaming."""
    return out.with_name(f".{out.name}.distilling")


def refusal_in(log: str) -> str | None:
    """The sentence with which a process refused, if that is how its log ends."""
    found = re.search(r"^matrix: (.+)\Z", log.strip(), re.MULTILINE)
    return found.group(1) if found else None
