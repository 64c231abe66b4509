"""Turns what launches recorded into doubts. Pure: thresholds are here with their reasons, and nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, get_args

import numpy as np

from matrix.bundle import Evidence, Measured
from matrix.cell import Cell
from matrix.sample import ClockCheck, LaunchRecord, Load, Timing
from matrix.target import Kind
from matrix.verdict import Doubt, Reason

Reasons = tuple[tuple[Reason, ...], tuple[Reason, ...]]
"""Doubts and faults."""

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

RERUN: Final = "rerun_max_dlogit"
_RERUN_TOLERANCE: Final = 1e-4
"""A logit may move by rounding where a runtime sums in another order the second time; the fp32 parity bound."""

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


def _merged(doubts: Mapping[int, Sequence[Doubt]], kind: Kind, launches: int) -> tuple[list[Reason], list[Reason]]:
    """Doubts and faults about one kind of number: a doubt counts when more launches share it than may be bad by chance."""
    found: dict[str, list[Doubt]] = {}
    for several in doubts.values():
        for doubt in {d.reason.rule: d for d in several if kind in d.kinds}.values():
            found.setdefault(doubt.reason.rule, []).append(doubt)
    counted: list[Reason] = []
    fatal: list[Reason] = []
    for several in found.values():
        number = f"{several[0].reason.number} (in {len(several)} of {launches} launches)"
        reason = several[0].reason.model_copy(update={"number": number})
        if any(doubt.fatal for doubt in several):
            fatal.append(reason)
        elif len(several) > TOLERATED_LAUNCHES * launches:
            counted.append(reason)
    return counted, fatal


def _lost(evidence: Evidence, cell: Cell, measured: int) -> list[Reason]:
    planned = sum(cell.id in launch.order for launch in evidence.bundle.launches)
    if measured == planned:
        return []
    remedy = "see the bundle's launches for each error"
    return [
        Reason(
            rule="launch_lost", number=f"measured in {measured} of {planned} launches", threshold="all", remedy=remedy
        )
    ]


def _unstable(evidence: Evidence, launches: Sequence[Measured]) -> list[Reason]:
    """An export whose answers differ between launches, or within one, is no property of the checkpoint."""
    strays = max((one.evidence.facts.get(RERUN, 0.0) for one in launches), default=0.0)
    if strays > _RERUN_TOLERANCE:
        number = f"a second run moves a logit by {strays:.1e}"
        return [
            Reason(
                rule="not_deterministic",
                number=number,
                threshold=f"at most {_RERUN_TOLERANCE:.0e}",
                remedy="find what is random",
            )
        ]
    names = {one.evidence.outputs for one in launches if one.evidence.outputs}
    answers = [np.argmax(evidence.arrays[name], axis=1) for name in sorted(names)]
    flips = max((int((other != answers[0]).sum()) for other in answers[1:]), default=0)
    if not flips:
        return []
    return [
        Reason(
            rule="not_deterministic",
            number=f"{flips} answers differ between launches",
            threshold="none",
            remedy="find what is random",
        )
    ]


def doubts_about(evidence: Evidence, cell: Cell, kind: Kind) -> Reasons:
    """Doubts and faults about numbers of this kind that rest on this cell."""
    launches = evidence.launches_of(cell.id)
    records = {record.index: record for record in evidence.bundle.launches}
    doubts = {index: doubts_of(one, records[index]) for index, one in launches.items()}
    counted, fatal = _merged(doubts, kind, len(launches))
    every = list(launches.values())
    another = cell.suite in (
        "training_quality",
        "concurrent_load",
    )  # each launch has a student, or latencies, of its own
    strays = [] if another else _unstable(evidence, every)
    return (*_lost(evidence, cell, len(every)), *strays, *counted), tuple(fatal)
