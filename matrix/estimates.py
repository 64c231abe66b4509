"""Planning estimates of the design note beside what was measured: hit, miss and by how much, not comparable and why. Pure.

An estimate is never promoted: it stands beside a number and never in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import Field, model_validator

from matrix.catalog import METRICS
from matrix.cell import Mode, Suite, Workload
from matrix.floors import Floor, Peak, seconds
from matrix.profile import Profile
from matrix.strict import Strict, parse_toml
from matrix.verdict import Judged


class Place(Strict):
    """Where in the matrix an estimate would be measured; parameters that it does not name are free."""

    target: str
    suite: Suite
    workload: Workload = "intent"
    variant: str
    metric: str
    batch: int | None = None
    length: int | Literal["data"] | None = None
    mode: Mode | None = None
    memory_mb: int | None = None
    init: Literal["full", "throttled"] | None = None
    every_ms: int | None = None
    clients: int | None = None


class Estimate(Strict):
    """One planning number: its range (SI), where the note says it, and what it assumes.

    `incomparable` says why a measurement of the same name would not be the same thing; `place` is None where the matrix has
    no cell for it, and then `incomparable` says why.
    """

    what: str
    section: str
    low: float
    high: float
    unit: str
    assumption: str
    place: Place | None = None
    incomparable: str | None = None
    floor: Floor | None = None


class Estimates(Strict):
    """Every estimate, in the note's order, and the published peaks that their floors are counted at."""

    peak: dict[str, Peak]
    estimate: tuple[Estimate, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _floors_have_peaks(self) -> Self:
        for one in self.estimate:
            if one.floor and (one.floor.peak not in self.peak or one.unit not in {"s", "per_s"}):
                raise ValueError(
                    f"{one.what}: a floor is of a time or a rate, at one of the peaks {', '.join(self.peak)}"
                )
        return self


Status = Literal["hit", "miss", "not comparable", "not measured"]


@dataclass(frozen=True)
class Comparison:
    """An estimate beside its measurement, and beside its floor where that can be counted: in the estimate's unit."""

    estimate: Estimate
    status: Status
    judged: Judged | None
    why: str
    floor: float | None = None

    @property
    def above_floor(self) -> tuple[float, float] | None:
        """How many times the floor's time the range takes."""
        if self.floor is None:
            return None
        low, high = self.estimate.low / self.floor, self.estimate.high / self.floor
        return (low, high) if self.estimate.unit == "s" else (1 / high, 1 / low)


def parse_estimates(text: str, where: str = "estimates.toml") -> Estimates:
    """The estimates that `text` (TOML) declares.

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Estimates, text, where)


_FREE = ("batch", "length", "mode", "memory_mb", "init", "every_ms", "clients")


def _names(place: Place, judged: Judged) -> bool:
    cell, finding = judged.finding.cell, judged.finding
    return (finding.target, cell.suite, cell.workload, cell.variant, finding.metric) == (
        place.target,
        place.suite,
        place.workload,
        place.variant,
        place.metric,
    )


def _differs(place: Place, judged: Judged) -> list[str]:
    """Parameters in which a measurement differs from what the estimate assumes."""
    cell = judged.finding.cell
    asked = {key: getattr(place, key) for key in _FREE if getattr(place, key) is not None}
    return [f"{key} {getattr(cell, key)}, not {value}" for key, value in asked.items() if getattr(cell, key) != value]


def _verdict(estimate: Estimate, judged: Judged) -> tuple[Status, str]:
    """Hit when the measured interval touches the estimate's range; else by how much it was missed."""
    finding = judged.finding
    if judged.state.validity == "invalid":
        return "not comparable", f"the evidence is invalid: {judged.state.reasons[0]}"
    value = finding.value
    if value is None:
        return "not comparable", "the measurement has no value"
    low, high = finding.low if finding.low is not None else value, finding.high if finding.high is not None else value
    if low <= estimate.high and high >= estimate.low:
        return "hit", "the interval and the range overlap"
    near = estimate.high if value > estimate.high else estimate.low
    side = "above" if value > near else "below"
    if METRICS[finding.metric].unit == "points" or near == 0:
        return "miss", f"{100 * abs(value - near):.2f} points {side} the range"
    return "miss", f"{max(value / near, near / value):.2f} times {side} the range"


def compare(estimate: Estimate, judged: Sequence[Judged]) -> Comparison:
    """`estimate` beside the newest measurement of its place (`judged` is in order of age)."""
    place = estimate.place
    if place is None:
        return Comparison(estimate, "not comparable", None, estimate.incomparable or "the matrix has no cell for it")
    named = [one for one in judged if _names(place, one)]
    if not named:
        return Comparison(estimate, "not measured", None, f"no bundle of {place.target} holds it")
    same = [one for one in named if not _differs(place, one)]
    if not same:
        return Comparison(estimate, "not comparable", named[-1], "measured at " + ", ".join(_differs(place, named[-1])))
    if estimate.incomparable:
        return Comparison(estimate, "not comparable", same[-1], estimate.incomparable)
    status, why = _verdict(estimate, same[-1])
    return Comparison(estimate, status, same[-1], why)


def _floor(estimate: Estimate, peaks: Mapping[str, Peak], profile: Profile) -> float | None:
    """The shortest time or the highest rate that the estimate's work allows."""
    if estimate.floor is None:
        return None
    least = seconds(estimate.floor, peaks[estimate.floor.peak], profile)
    return least if estimate.unit == "s" else estimate.floor.examples / least


def beside(estimates: Estimates, judged: Sequence[Judged], profile: Profile) -> list[Comparison]:
    """Every estimate beside its measurement and its floor; `profile` has the shapes that the note plans with (full)."""
    return [replace(compare(one, judged), floor=_floor(one, estimates.peak, profile)) for one in estimates.estimate]
