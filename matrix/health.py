"""Turns what a launch recorded into doubts. Pure: thresholds are here with their reasons, and nothing is measured."""

from __future__ import annotations

from typing import Final, get_args

from matrix.bundle import Measured
from matrix.sample import ClockCheck, LaunchRecord, Load, Timing
from matrix.target import Kind
from matrix.verdict import Doubt, Reason

TIMED: Final[frozenset[Kind]] = frozenset({"time", "throughput", "ratio"})
EVERY: Final[frozenset[Kind]] = frozenset(get_args(Kind))

MAX_STEAL: Final = 0.02
"""Share of CPU time taken by the hypervisor. Two percent moves a median by about as much; a p95 by more."""

MAX_FOREIGN_CORES: Final = 0.25
"""Cores that other processes kept busy. A quarter of a core shares caches and clocks without owning a core of its own."""

MAX_THROTTLED: Final = 0.01
"""Share of the time in which a CPU quota stopped the process: a launch with more measures the quota, not the code."""

TOLERATED_LAUNCHES: Final = 0.2
"""Share of launches that may be doubtful: gates judge the largest launch, so one bad launch in five can only make it stricter."""

_FALLBACK: Final = "PYTORCH_ENABLE_MPS_FALLBACK"


def _timed(rule: str, number: str, threshold: str, remedy: str) -> Doubt:
    return Doubt(Reason(rule=rule, number=number, threshold=threshold, remedy=remedy), TIMED)


def _of_timing(timing: Timing) -> list[Doubt]:
    found = []
    if timing.rounds > 1 and (timing.width is None or timing.width > timing.doubt_width):
        seen = "no interval" if timing.width is None else f"median known to ±{100 * timing.width:.1f} %"
        allowed = f"at most ±{100 * timing.doubt_width:.0f} %"
        found.append(
            _timed("not_converged", seen, allowed, "run it on a quieter machine, or with a profile that samples longer")
        )
    if not timing.steady:
        found.append(
            _timed(
                "not_steady",
                f"{timing.warmup_calls} warm-up calls",
                "two neighbouring blocks agree",
                "raise warmup_cap_s",
            )
        )
    return found


def _of_load(load: Load) -> list[Doubt]:
    found = []
    if load.steal_share is not None and load.steal_share > MAX_STEAL:
        found.append(
            _timed(
                "cpu_steal",
                f"{100 * load.steal_share:.1f} % stolen",
                f"at most {100 * MAX_STEAL:.0f} %",
                "use a dedicated host",
            )
        )
    if load.foreign_cores is not None and load.foreign_cores > MAX_FOREIGN_CORES:
        seen = f"{load.foreign_cores:.2f} cores busy with other processes"
        found.append(_timed("foreign_load", seen, f"at most {MAX_FOREIGN_CORES}", "stop what else runs here"))
    if load.throttled_s is not None and load.throttled_s > MAX_THROTTLED * load.wall_s:
        found.append(
            _timed(
                "throttled",
                f"{load.throttled_s:.2f} s of {load.wall_s:.2f} s",
                f"at most {100 * MAX_THROTTLED:.0f} %",
                "raise the CPU quota",
            )
        )
    return found


def _of_clock(clock: ClockCheck | None) -> list[Doubt]:
    faults = ("it said nothing",) if clock is None else clock.faults
    reasons = [
        Reason(
            rule="clock",
            number=fault,
            threshold="see ClockCheck",
            remedy="no time of this launch counts; run it again on a quiet host",
        )
        for fault in faults
    ]
    return [Doubt(reason, TIMED, fatal=True) for reason in reasons]


def _of_limits(record: LaunchRecord) -> list[Doubt]:
    reasons = [
        Reason(
            rule="limits",
            number=fault,
            threshold="every limit as the target asks",
            remedy="no number of this launch counts; see what the engine refused",
        )
        for fault in record.broken
    ]
    return [Doubt(reason, EVERY, fatal=True) for reason in reasons]


def _fallbacks(record: LaunchRecord) -> tuple[str, ...]:
    """What says that operators ran on the CPU instead: warnings, or the variable that lets them, which warns only once."""
    told = (*record.fallbacks, *(record.battery.fallbacks if record.battery else ()))
    variables = record.environment.variables if record.environment else {}
    return (*told, f"{_FALLBACK}=1") if variables.get(_FALLBACK) == "1" else told


def _of_fallbacks(record: LaunchRecord) -> list[Doubt]:
    found = _fallbacks(record)
    if not found:
        return []
    reason = Reason(
        rule="mps_fallback",
        number=found[0] + (f" and {len(found) - 1} more" if len(found) > 1 else ""),
        threshold="every operator runs on the device",
        remedy=f"unset {_FALLBACK}; what then raises is not built for MPS",
    )
    return [Doubt(reason, TIMED, fatal=True), Doubt(reason, EVERY - TIMED)]


def doubts_of(measured: Measured, record: LaunchRecord) -> list[Doubt]:
    """Every doubt about one cell of one launch; `fatal` ones make its numbers of the doubt's kinds invalid."""
    timing = measured.evidence.timing
    found = [*(_of_timing(timing) if timing else ()), *_of_load(measured.evidence.load)]
    return [*found, *_of_clock(record.clock), *_of_limits(record), *_of_fallbacks(record)]
