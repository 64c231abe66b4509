"""A cell: suite x workload x variant x parameters. A planned cell is measured or explained; any other is excluded with a reason."""

from __future__ import annotations

from typing import Final, Literal

from matrix.strict import Strict

Suite = Literal[
    "training_step",
    "training_quality",
    "export_accuracy",
    "quantization_schemes",
    "response_quality",
    "inference_latency",
    "generation",
    "concurrent_load",
    "packaging",
]
Workload = Literal["intent", "response"]
Mode = Literal["warm", "cold", "prefill", "prefix", "decode", "latency", "throughput"]

TRAINING: Final[tuple[Suite, ...]] = ("training_step", "training_quality")
"""The suites whose variants are training stacks."""

ANSWERING: Final[tuple[Suite, ...]] = ("export_accuracy", "quantization_schemes")
"""The suites whose cells answer every evaluation example: their numbers are over examples, paired with the reference's."""

LANGUAGE: Final[tuple[Suite, ...]] = ("response_quality", "generation", "concurrent_load")
"""The suites whose cells of the response workload export and serve a trained student."""

STUDIES: Final[tuple[Suite, ...]] = ("quantization_schemes",)
"""The suites of which nothing ships: they explain, and no gate may rest on them."""


class Cell(Strict):
    """What is measured, apart from where. `length` is in tokens; "data" means each example's own.

    A generation reads a prompt from nothing ("prefill") or behind a kept prefix ("prefix"), or writes ("decode").
    Under load one worker has every thread ("latency") or each thread is one ("throughput"); so many `clients` each wait for their
    answer, or requests arrive at `load` percent of what the workers can answer.

    A function's cells say more: its memory (which sets its share of a CPU), whether its `init` ran at the full CPU or
    throttled, and the time from one call's start to the next (`every_ms`; 0 calls again at once, a closed loop).
    `examples` limits an evaluation to the first so many.
    """

    suite: Suite
    workload: Workload
    variant: str
    batch: int | None = None
    length: int | Literal["data"] | None = None
    mode: Mode | None = None
    memory_mb: int | None = None
    init: Literal["full", "throttled"] | None = None
    every_ms: int | None = None
    examples: int | None = None
    clients: int | None = None
    load: int | None = None

    @property
    def parameters(self) -> dict[str, int | str]:
        """The parameters that this cell has, in the order of its identifier."""
        return {
            key: value
            for key in ("mode", "batch", "length", "memory_mb", "init", "every_ms", "examples", "clients", "load")
            if (value := getattr(self, key)) is not None
        }

    @property
    def trains(self) -> bool:
        """Whether a training stack is at work in it."""
        return self.suite in TRAINING

    @property
    def id(self) -> str:
        """`suite/workload/variant[key=value,...]`: the same on every host."""
        inner = ",".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.suite}/{self.workload}/{self.variant}" + (f"[{inner}]" if inner else "")


class Exclusion(Strict):
    """A cell that the matrix could have, and why it is not planned here."""

    cell: Cell
    reason: str


class Plan(Strict):
    """Every cell of one target at one profile: planned, or excluded with its reason."""

    target: str
    profile: str
    planned: tuple[Cell, ...]
    excluded: tuple[Exclusion, ...]
