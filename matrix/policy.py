"""A policy: which evidence counts, for how long, with which margins, and the gates that must hold before production.

Refuses to be empty: a policy without a gate would pass on nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matrix.canonical import digest
from matrix.cell import Suite, Workload
from matrix.strict import Strict, parse_toml


class Margins(Strict):
    """How alike two devices' numbers must be before one confirms the other. Points are fractions here: 0.002 is 0.2 points.

    `tensor_factor` times the authority's RMSE (`tensor_factor_small` below `tensor_small` elements) and a tenth of the
    tolerance is the bound of a tensor's own; `tensor_contradiction` times that bound contradicts.
    """

    accuracy: float = Field(gt=0)
    flip_rate: float = Field(gt=0)
    export_delta: float = Field(gt=0)
    ratio: float = Field(gt=1)
    ratio_contradiction: float = Field(gt=1)
    min_examples: int = Field(ge=1)
    min_pairs: int = Field(ge=2)
    trained_accuracy: float = Field(gt=0)
    first_losses: float = Field(gt=0)
    min_seeds: int = Field(ge=2)
    tensor_factor: float = Field(ge=1)
    tensor_factor_small: float = Field(ge=1)
    tensor_small: int = Field(ge=1)
    tensor_contradiction: float = Field(gt=1)
    min_batches: int = Field(ge=1)
    min_shapes: int = Field(ge=1)


class Evidencing(Strict):
    """Which evidence counts: accepted profiles, age in days for gates and for display, and the least number of launches."""

    profiles: tuple[str, ...] = Field(min_length=1)
    gate_days: float = Field(gt=0)
    display_days: float = Field(gt=0)
    min_launches: int = Field(ge=1)


class Gate(Strict):
    """One requirement. It names every cell that must be there; `at_most` and `at_least` are SI values of the metric."""

    id: str
    why: str
    targets: tuple[str, ...] = Field(min_length=1)
    suite: Suite
    workload: Workload = "intent"
    variants: tuple[str, ...] = Field(min_length=1)
    metric: str
    at_most: float | None = None
    at_least: float | None = None
    mode: Literal["warm", "cold"] | None = None
    lengths: tuple[int | Literal["data"], ...] | None = None
    memory_mb: tuple[int, ...] | None = None

    @property
    def limit(self) -> float:
        """The value that the bound must not cross."""
        found = self.at_most if self.at_most is not None else self.at_least
        if found is None:
            raise ValueError(f"gate {self.id} has no limit")
        return found


class Policy(Strict):
    """All of it."""

    name: str
    evidence: Evidencing
    margins: Margins
    gate: tuple[Gate, ...]

    @property
    def sha256(self) -> str:
        """Digest of the policy as it was understood."""
        return digest(self.model_dump(mode="json"))


def parse_policy(text: str, where: str = "gates.toml") -> Policy:
    """The policy that `text` (TOML) declares. Whether its gates select anything is for the gate to say (matrix.gates).

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Policy, text, where)
