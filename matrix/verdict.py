"""What judgement says: numbers with their intervals, their states with reasons, and the answers of gates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import Field

from matrix.cell import Cell
from matrix.provenance import Head, Signer
from matrix.strict import Moment, Strict
from matrix.target import Kind

Badge = Literal[
    "revoked",
    "invalid",
    "contradicted",
    "stale",
    "estimate",
    "emulated",
    "degraded",
    "inconclusive",
    "unconfirmed",
    "confirmed",
    "trusted",
]

PRECEDENCE: tuple[Badge, ...] = Badge.__args__  # type: ignore[attr-defined]
"""The badge shown is the first that holds."""

BELIEVED: frozenset[Badge] = frozenset({"confirmed", "trusted"})
"""The only badges with which a number may make a gate pass."""


class Reason(Strict):
    """Why a state holds: the rule, the number that it looked at, the threshold, and what would change it."""

    rule: str
    number: str
    threshold: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.number} ({self.threshold}); {self.remedy}"


class Doubt(NamedTuple):
    """Something wrong with how one launch measured one cell, and the kinds of number that it touches."""

    reason: Reason
    kinds: frozenset[Kind]
    fatal: bool = False


@dataclass(frozen=True)
class Finding:
    """One number of one bundle: the estimate, its two-sided interval, and one-sided bounds for gates (all SI; None: none).

    `samples` is the smallest number of samples in a launch (examples, for quality); `launches` that of launches, or of pairs of
    them for a comparison. `confidence` is that of the bounds. A cell that no launch measured has no `workload_id`.
    """

    target: str
    cell: Cell
    metric: str
    kind: Kind
    unit: str
    value: float | None
    low: float | None
    high: float | None
    bound_low: float | None
    bound_high: float | None
    confidence: float
    launches: int
    samples: int
    workload_id: str | None
    bundle: str
    created: str
    profile: str
    subject: str
    doubts: tuple[Reason, ...] = ()
    faults: tuple[Reason, ...] = ()
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """Target, cell and metric."""
        return self.target, self.cell.id, self.metric


Trust = Literal["trusted", "confirmed", "unconfirmed", "inconclusive", "contradicted"]


class State(Strict):
    """What may be thought of a number today, with every reason.

    `accepted` says whether those who signed it, and what confirmed it, are whom the policy asks for.
    """

    badge: Badge
    origin: Literal["estimate", "emulated", "measured"]
    validity: Literal["valid", "degraded", "invalid"]
    trust: Trust
    freshness: Literal["fresh", "stale"]
    revoked: bool = False
    accepted: bool = True
    reasons: tuple[Reason, ...] = ()

    @property
    def believed(self) -> bool:
        """Whether a gate may rest on the number."""
        return self.badge in BELIEVED and self.accepted


@dataclass(frozen=True)
class Judged:
    """A finding and its state."""

    finding: Finding
    state: State


Answer = Literal["pass", "fail", "undecided"]


class GateResult(Strict):
    """One gate on one cell: the answer, the bound it was judged on, the limit, and why. A missing cell has no bound.

    A waiver (its name) lets the verdict pass over an answer; the answer stays what it is.
    """

    gate: str
    target: str
    cell: str
    metric: str
    unit: str
    answer: Answer
    bound: float | None
    limit: float
    badge: Badge | None
    why: str
    bundle: str | None = None
    waived_by: str | None = None


class WaiverNote(Strict):
    """A waiver as a verdict prints it: who signed it, until when it holds, and why. `used` is how many answers it passes over."""

    name: str
    signers: tuple[Signer, ...]
    expires: str
    why: str
    used: int


class Verdict(Strict):
    """A policy's answer: pass only when every gate passes or is waived, and never without a gate.

    `subject` says which student on which examples it is about (`Prepared.subject`): that of the newest evidence. `judged` is
    the date of the judgement, `heads` the ends of the chains that it saw: the same inputs give the same bytes.
    """

    judged: Moment
    policy: str
    policy_sha256: str
    subject: str | None
    answer: Answer
    results: tuple[GateResult, ...]
    invalid: tuple[str, ...]
    waivers: tuple[WaiverNote, ...] = ()
    bundles: tuple[str, ...]
    heads: dict[str, Head] = Field(default_factory=dict)
