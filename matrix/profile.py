"""A profile: how much is trained, at which sizes it is measured, and when sampling may stop.

Part of every number's identity: numbers of two profiles never meet.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matrix.cell import Cell
from matrix.errors import UsageError
from matrix.strict import Strict, parse_toml


class TeacherShape(Strict):
    """A DistilBERT configuration; the defaults are the 66M-parameter teacher of the seed (section 1.1)."""

    layers: int = 6
    dim: int = 768
    heads: int = 12
    hidden: int = 3072


class StudentShape(Strict):
    """A BERT configuration; the defaults are TinyBERT 4L-312D, 14.5M parameters (seed, section 1.1)."""

    layers: int = 4
    dim: int = 312
    heads: int = 12
    hidden: int = 1200


class Recipe(Strict):
    """How the intent student is made; all of it is part of the student's identity.

    `data_seed` decides which examples are in which split, `seed` the weights and the order of training: students of several
    seeds are trained and judged on the same examples. The loss is `(1 - alpha) * CE + alpha * T^2 * KL(teacher_T || student_T)`
    (Hinton et al. 2015; seed, section 2.3).
    """

    vocabulary: int = 30_522
    teacher: TeacherShape = TeacherShape()
    student: StudentShape = StudentShape()
    train_examples: int = Field(gt=0)
    validation_examples: int = 3_000
    evaluation_examples: int = 10_000
    teacher_epochs: int = Field(gt=0)
    student_epochs: int = Field(gt=0)
    teacher_batch: int = 16
    student_batch: int = 32
    teacher_dropout: bool = False
    teacher_lr: float = 1e-4
    student_lr: float = 5e-4
    temperature: float = 4.0
    alpha: float = 0.7
    max_length: int = 128
    calibration_examples: int = 300
    data_seed: int = 20_261_122
    seed: int = 20_261_122


class Sampling(Strict):
    """When one cell's sampling stops. Widths are half-widths of the median's 95 % interval, relative to the median."""

    min_rounds: int = Field(ge=1)
    max_rounds: int = Field(ge=1)
    cap_s: float = Field(gt=0)
    width: float = Field(gt=0)
    doubt_width: float = Field(gt=0)
    warmup_calls: int = Field(ge=0)
    warmup_cap_s: float = Field(ge=0)
    steady: float = Field(gt=0)


class Profile(Strict):
    """One named size of a run."""

    name: str
    launches: int = Field(ge=1)
    quality_launches: int = Field(ge=1)
    training_batch: int
    training_length: int
    training_dtype: Literal["float32", "bfloat16"] = "float32"
    latency_lengths: tuple[int | Literal["data"], ...]
    inference_threads: int = 1
    launch_timeout_s: float = 3_600
    prepare_timeout_s: float = 6 * 3_600
    recipe: Recipe
    training: Sampling
    inference: Sampling

    def seeded(self, seed: int) -> Profile:
        """This profile with another seed: other weights, another order of training, the same examples."""
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"seed": seed})})

    def launches_of(self, cell: Cell) -> int:
        """How many launches run `cell`: outputs and an image repeat, so they need fewer than a time."""
        repeats = cell.suite == "export_accuracy" or (cell.suite, cell.variant) == ("packaging", "image")
        return min(self.launches, self.quality_launches) if repeats else self.launches


class Profiles(Strict):
    """Every profile, by name."""

    profile: dict[str, Profile]

    def of(self, name: str) -> Profile:
        """The profile called `name`.

        Raises:
            UsageError: there is none.
        """
        try:
            return self.profile[name]
        except KeyError:
            raise UsageError(
                f"no profile is called {name!r}", remedy=f"name one of {', '.join(self.profile)}"
            ) from None


def parse_profiles(text: str, where: str = "profiles.toml") -> Profiles:
    """The profiles that `text` (TOML) declares.

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Profiles, text, where)
