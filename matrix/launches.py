"""Reads what a launch's process left behind and says what became of every cell, also when the process did not live to tell."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from matrix.job import BENCHMARK, End, Job
from matrix.sample import FALLBACKS, OUTCOMES, PROCESS, Confinement, Fallback, LaunchRecord, Outcome, ProcessFacts
from matrix.strict import parse_json


def _lines(path: Path) -> list[bytes]:
    """Whole lines of a file: a process that was killed while writing leaves half a line, which says nothing."""
    return (
        [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    )


def _sampled(folder: Path) -> set[str]:
    """Cells whose samples pytest-benchmark wrote; it writes its file once, at the end of the session.

    A file that was cut off is put aside: it is no evidence, and a bundle must not hold it.
    """
    path = folder / BENCHMARK
    if not path.exists():
        return set()
    try:
        return {entry["params"]["cell_id"] for entry in json.loads(path.read_bytes())["benchmarks"]}
    except ValueError:
        path.rename(path.with_suffix(".torn"))
        return set()


def _outcomes(folder: Path, job: Job, end: End) -> tuple[Outcome, ...]:
    told: dict[str, Outcome] = {}
    for line in _lines(folder / OUTCOMES):
        outcome = parse_json(Outcome, line, OUTCOMES)
        if (
            outcome.cell not in told or told[outcome.cell].state == "measured"
        ):  # a failure in teardown follows a success
            told[outcome.cell] = outcome
    sampled = _sampled(folder)
    found = []
    for cell in job.cells:
        unreached = Outcome(cell=cell.id, state="unreached", error=f"the launch did not come to it: {end.story}")
        outcome = told.get(cell.id, unreached)
        if outcome.state == "measured" and cell.id not in sampled:
            outcome = Outcome(cell=cell.id, state="failed", error=f"its samples were lost with the launch: {end.story}")
        found.append(outcome)
    return tuple(found)


def _fallbacks(folder: Path) -> tuple[str, ...]:
    """Every different warning that an operator ran on the CPU instead."""
    told = [parse_json(Fallback, line, FALLBACKS).text for line in _lines(folder / FALLBACKS)]
    return tuple(dict.fromkeys(told))


def record_of(
    folder: Path,
    job: Job,
    end: End,
    started: datetime,
    asked: Confinement | None = None,
    foreign_gpu: tuple[str, ...] | None = None,
) -> LaunchRecord:
    """The record of the launch whose process wrote `folder` and ended so.

    `asked` are the limits that it was given, `foreign_gpu` the processes that were on its GPU before it.
    """
    facts = _lines(folder / PROCESS)
    process = parse_json(ProcessFacts, facts[0], PROCESS) if facts else None
    return LaunchRecord(
        index=job.launch or 0,
        seed=job.seed,
        order=tuple(cell.id for cell in job.cells),
        outcomes=_outcomes(folder, job, end),
        clock=process.clock if process else None,
        environment=process.environment if process else None,
        host=process.host if process else None,
        started=started.astimezone(UTC).isoformat(timespec="seconds"),
        seconds=end.seconds,
        exit_code=end.exit_code,
        story=end.story,
        image=job.image.id if job.image else None,
        asked=asked,
        confinement=process.confinement if process else None,
        battery=process.battery if process else None,
        nonce=process.nonce if process else "",
        foreign_gpu=foreign_gpu,
        fallbacks=_fallbacks(folder),
    )
