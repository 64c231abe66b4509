"""A profile: how much is trained, at which sizes it is measured, and when sampling may stop.

Part of every number's identity: numbers of two profiles never meet.
"""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from matrix.cell import ANSWERING, TRAINING, Cell, Suite, Workload
from matrix.errors import UsageError
from matrix.strict import Strict, parse_toml

K_BLOCK: Final = 256
"""Weights that a block of GGUF's K-quants holds (ggml's QK_K)."""


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


class Trial(Strict):
    """How each stack's student is tried: trained from the same weights on the same examples, then judged.

    Examples are padded to `length` tokens, so that every stack's batches have one shape; the rate is constant. `goal` is the
    accuracy whose time is told.
    """

    examples: int = Field(default=2_000, gt=0)
    epochs: int = Field(default=3, gt=0)
    batch: int = Field(default=16, gt=0)
    length: int = Field(default=24, gt=0)
    lr: float = Field(default=5e-4, gt=0)
    goal: float = Field(default=0.80, gt=0, lt=1)

    @property
    def steps(self) -> int:
        """Optimizer steps of one training."""
        return self.examples * self.epochs // self.batch

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.examples % self.batch:
            raise ValueError("a trial's examples are whole batches, so that every stack makes the same steps")
        return self


class LlamaShape(Strict):
    """A Llama configuration with its own output embeddings; the defaults are small enough for a CPU."""

    layers: int = 4
    dim: int = 192
    heads: int = 6
    kv_heads: int = 2
    hidden: int = 512
    vocabulary: int = 2_000


class Response(Strict):
    """The response workload: a causal student, a teacher of the same vocabulary, conversations of exactly `length` tokens.

    The last `answer` tokens of a conversation are its answer, which the loss looks at; on-policy, the student writes as many.
    `lora_rank` is None where all of the student is trained (its weights, gradients and AdamW's moments take 16 bytes a
    parameter); with a rank its weights are frozen in the training's precision and adapters of fp32 are trained.
    """

    student: LlamaShape = LlamaShape()
    teacher: LlamaShape = LlamaShape(layers=6, dim=256, heads=8, kv_heads=4, hidden=768)
    batch: int = Field(default=4, gt=0)
    length: int = Field(default=64, gt=0)
    answer: int = Field(default=16, gt=0)
    lora_rank: int | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.answer >= self.length:
            raise ValueError("an answer needs a prompt: answer is a part of length")
        return self


class Language(Strict):
    """The response student that is trained here and exported as GGUF; `context` is the longest text that it is asked, in tokens.

    Its speed is told for a `prompt` whose first `shared` tokens may be kept, and an `answer`, in tokens.
    GGUF's K-quants pack blocks of 256 weights: a row of another length silently gets another type (llama.cpp), so `dim` and
    `hidden` are multiples of it.
    """

    student: LlamaShape = LlamaShape(dim=256, heads=4, hidden=768)
    context: int = Field(default=512, gt=0)
    prompt: int = Field(default=256, gt=1)
    shared: int = Field(default=240, gt=0)
    answer: int = Field(default=64, gt=0)
    epochs: int = Field(default=12, gt=0)
    batch: int = Field(default=8, gt=0)
    lr: float = Field(default=1e-3, gt=0)
    seed: int = 20_261_126

    @model_validator(mode="after")
    def _packs(self) -> Self:
        if not self.shared < self.prompt <= self.context or self.answer >= self.context:
            raise ValueError("a shared prefix is part of the prompt, and prompt and answer fit the context")
        for name, size in (("dim", self.student.dim), ("hidden", self.student.hidden)):
            if size % K_BLOCK:
                raise ValueError(
                    f"the student's {name} of {size} is no multiple of {K_BLOCK}, which GGUF's K-quants pack"
                )
        return self


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
    """One named size of a run. `suites` are those that it plans.

    Under load a runtime has `clients` at once, then arrivals at `loads` percent of its capacity. `stacks` are the only ones that
    it trains with, `exports` and `runtimes` the only ones that it measures; None for all.
    """

    name: str
    launches: int = Field(ge=1)
    quality_launches: int = Field(ge=1)
    training_batch: int
    training_length: int
    training_dtype: Literal["float32", "bfloat16"] = "float32"
    latency_lengths: tuple[int | Literal["data"], ...]
    suites: tuple[Suite, ...] = ("training_step", "export_accuracy", "inference_latency", "packaging")
    stacks: tuple[str, ...] | None = None
    exports: tuple[str, ...] | None = None
    runtimes: tuple[str, ...] | None = None
    trial: Trial = Trial()
    response: Response = Response()
    language: Language = Language()
    inference_threads: int = 1
    clients: tuple[int, ...] = (1, 2, 4, 8)
    loads: tuple[int, ...] = (50, 80)
    launch_timeout_s: float = 3_600
    prepare_timeout_s: float = 6 * 3_600
    recipe: Recipe
    training: Sampling
    inference: Sampling

    def seeded(self, seed: int) -> Profile:
        """This profile with another seed: other weights, another order of training, the same examples."""
        return self.model_copy(update={"recipe": self.recipe.model_copy(update={"seed": seed})})

    def only(self, suites: tuple[Suite, ...]) -> Profile:
        """This profile with fewer suites: each number means what it means with all of them."""
        return self.model_copy(update={"suites": suites})

    def chosen(self, suite: Suite, workload: Workload) -> tuple[str, ...] | None:
        """The only variants of a suite and workload that the profile measures; None for all."""
        if suite in TRAINING:
            return self.stacks
        chosen = {
            "export_accuracy": self.exports,
            "inference_latency": self.runtimes,
            "concurrent_load": self.runtimes,
        }
        return chosen.get(suite) if workload == "intent" else None

    def launches_of(self, cell: Cell) -> int:
        """How many launches run `cell`: outputs and an image repeat, so they need fewer than a time."""
        repeats = cell.suite in (*ANSWERING, "response_quality") or (cell.suite, cell.variant) == ("packaging", "image")
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
