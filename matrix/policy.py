"""A policy: which evidence counts, for how long, with which margins, and the gates that must hold before production.

Refuses to be empty: a policy without a gate would pass on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field

from matrix.canonical import digest
from matrix.cell import Cell, Suite, Workload
from matrix.provenance import Signer
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


class Signed(Strict):
    """Who must have signed something: at least `threshold` keys, each trusted in one of these roles."""

    roles: tuple[str, ...] = Field(min_length=1)
    threshold: int = Field(default=1, ge=1)

    def accepts(self, signers: Sequence[Signer]) -> bool:
        """Whether these keys are enough."""
        return len({signer.key for signer in signers if signer.role in self.roles}) >= self.threshold

    def __str__(self) -> str:
        roles = " or ".join(self.roles)
        return roles if self.threshold == 1 else f"{self.threshold} of {roles}"


class Signatures(Strict):
    """Whose word counts before production. `bundle` is by target (patterns): the first that matches."""

    bundle: dict[str, Signed]
    revocation: Signed
    waiver: Signed
    signoff: Signed

    def of(self, target: str) -> Signed | None:
        """Who must have signed a bundle of `target`; None: nobody can."""
        return next((signed for pattern, signed in self.bundle.items() if fnmatchcase(target, pattern)), None)


Parameter = Literal["mode", "batch", "length", "memory_mb", "init", "every_ms", "examples", "clients", "load"]
"""What a cell has beside its suite, workload and variant."""


class Gate(Strict):
    """One requirement. It names every cell that must be there; `at_most` and `at_least` are SI values of the metric.

    `targets` and `variants` are patterns, `where` the values that each parameter may have (any, where it is not named). The
    bound holds with `confidence`, one-sided; `min_launches` and `min_examples` ask for more than the policy does.
    """

    id: str
    why: str
    targets: tuple[str, ...] = Field(min_length=1)
    suite: Suite
    workload: Workload = "intent"
    variants: tuple[str, ...] = Field(min_length=1)
    where: dict[Parameter, tuple[int | str, ...]] = Field(default_factory=dict)
    metric: str
    at_most: float | None = None
    at_least: float | None = None
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    min_launches: int | None = Field(default=None, ge=1)
    min_examples: int | None = Field(default=None, ge=1)

    @property
    def limit(self) -> float:
        """The value that the bound must not cross."""
        found = self.at_most if self.at_most is not None else self.at_least
        if found is None:
            raise ValueError(f"gate {self.id} has no limit")
        return found

    def selects(self, cell: Cell) -> bool:
        """Whether the gate is about this cell."""
        return (
            (cell.suite, cell.workload) == (self.suite, self.workload)
            and any(fnmatchcase(cell.variant, pattern) for pattern in self.variants)
            and all(getattr(cell, name) in values for name, values in self.where.items())
        )


class Policy(Strict):
    """All of it. `deployment` says of a CPU target which instruction set production has (`HostClass.isa`)."""

    name: str
    evidence: Evidencing
    margins: Margins
    signatures: Signatures
    deployment: dict[str, str] = Field(default_factory=dict)
    gate: tuple[Gate, ...]

    @property
    def sha256(self) -> str:
        """Digest of the policy as it was understood."""
        return digest(self.model_dump(mode="json"))


def parse_policy(text: str, where: str = "gates.toml") -> Policy:
    """The policy that `text` (TOML) declares. Whether it can mean what it says is for `matrix policy check` (matrix.gates).

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Policy, text, where)
