"""What became of every cell is told, also when the process did not live to tell."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from matrix.cell import Cell
from matrix.job import BENCHMARK, End, Folders, Job, WorkloadSpec
from matrix.launches import record_of
from matrix.sample import FALLBACKS, OUTCOMES, PROCESS, Battery, Canary, Environment, Fallback, Outcome, ProcessFacts
from tests.making import EAGER, HOST, ORT, RIGHT_CLOCK, TORCH, prepared, profiles


def told(
    folder: Path, end: End, *outcomes: Outcome, sampled: tuple[Cell, ...] = ()
) -> dict[str, tuple[str, str | None]]:
    """State and error of each cell of a launch that left these outcomes and samples."""
    (folder / OUTCOMES).write_text("".join(outcome.model_dump_json() + "\n" for outcome in outcomes), encoding="utf-8")
    if sampled:
        benchmarks = [{"params": {"cell_id": cell.id}} for cell in sampled]
        (folder / BENCHMARK).write_text(json.dumps({"benchmarks": benchmarks}), encoding="utf-8")
    return told_again(folder, end)


def told_again(folder: Path, end: End) -> dict[str, tuple[str, str | None]]:
    """State and error of each cell of a launch that left these files."""
    record = record_of(folder, job(), end, datetime.now(UTC))
    return {outcome.cell: (outcome.state, outcome.error) for outcome in record.outcomes}


def job() -> Job:
    """A launch of three cells."""
    return Job(
        target="cpu-openvino",
        device="cpu",
        profile=profiles().of("quick"),
        spec=WorkloadSpec(),
        suite_sha256="s",
        cells=(EAGER, ORT, TORCH),
        folders=Folders(cache="c", out="o"),
        threads=1,
        launch=1,
        prepared=prepared(),
    )


def test_measured_failed_and_unreached_are_three_things(tmp_path: Path) -> None:
    """A cell that raised keeps its error; one that was never begun says so."""
    found = told(
        tmp_path,
        End(exit_code=1, timed_out=False, seconds=1.0),
        Outcome(cell=EAGER.id, state="measured"),
        Outcome(cell=ORT.id, state="failed", error="boom"),
        sampled=(EAGER,),
    )
    assert found == {
        EAGER.id: ("measured", None),
        ORT.id: ("failed", "boom"),
        TORCH.id: ("unreached", "the launch did not come to it: it ended with exit code 1"),
    }


def test_samples_lost_in_a_crash_are_not_measured(tmp_path: Path) -> None:
    """pytest-benchmark writes at the end: a cell that passed before a crash has no samples, and is not called measured."""
    found = told(tmp_path, End(exit_code=-11, timed_out=False, seconds=1.0), Outcome(cell=EAGER.id, state="measured"))
    assert found[EAGER.id] == ("failed", "its samples were lost with the launch: it was killed by signal 11")
    assert found[ORT.id][0] == "unreached"


def test_a_time_limit_is_told_as_one(tmp_path: Path) -> None:
    """What stopped the launch is the reason of each cell that it did not reach."""
    found = told(tmp_path, End(exit_code=124, timed_out=True, seconds=900.0))
    assert found[EAGER.id] == ("unreached", "the launch did not come to it: it was stopped after 900 s, its time limit")


def test_a_failure_in_teardown_is_not_hidden_by_the_success_before_it(tmp_path: Path) -> None:
    """The fixture files the evidence in its teardown: if that raised, there is none."""
    end = End(exit_code=1, timed_out=False, seconds=1.0)
    first, second = Outcome(cell=EAGER.id, state="measured"), Outcome(cell=EAGER.id, state="failed", error="teardown")
    assert told(tmp_path, end, first, second, sampled=(EAGER,))[EAGER.id] == ("failed", "teardown")


def test_what_was_cut_off_is_not_read(tmp_path: Path) -> None:
    """Half a line and half a JSON file are put aside; the cells before them are told as lost."""
    end = End(exit_code=-9, timed_out=False, seconds=1.0)
    (tmp_path / BENCHMARK).write_text('{"benchmarks": [', encoding="utf-8")
    found = told(tmp_path, end, Outcome(cell=EAGER.id, state="measured"))
    assert found[EAGER.id] == ("failed", "its samples were lost with the launch: it was killed by signal 9")
    assert not (tmp_path / BENCHMARK).exists()
    with (tmp_path / OUTCOMES).open("a", encoding="utf-8") as stream:
        stream.write('{"cell": "x", "sta')
    assert told_again(tmp_path, end)[EAGER.id][0] == "failed"


def test_what_a_process_said_of_itself_is_in_its_record(tmp_path: Path) -> None:
    """Its canaries and the nonce that it was given; and who was on its GPU, which it cannot know."""
    battery = Battery(device="cpu", canaries=(Canary(name="argmax", error=0.0, limit=0.0),))
    software = Environment(python="3.11", system="Linux", packages={}, packages_sha256="p", variables={})
    facts = ProcessFacts(clock=RIGHT_CLOCK, environment=software, host=HOST, battery=battery, nonce="n")
    (tmp_path / PROCESS).write_text(facts.model_dump_json() + "\n", encoding="utf-8")
    end = End(exit_code=0, timed_out=False, seconds=1.0)
    record = record_of(tmp_path, job(), end, datetime.now(UTC), foreign_gpu=("python",))
    assert (record.battery, record.nonce, record.foreign_gpu) == (battery, "n", ("python",))


def test_a_launch_that_did_not_live_asked_nothing_and_gave_nothing_back(tmp_path: Path) -> None:
    """No battery, and no nonce: absence is not a pass."""
    record = record_of(tmp_path, job(), End(exit_code=-9, timed_out=False, seconds=1.0), datetime.now(UTC))
    assert (record.battery, record.nonce, record.foreign_gpu, record.fallbacks) == (None, "", None, ())


def test_each_fallback_is_told_once(tmp_path: Path) -> None:
    """In the order in which they were first seen; half a line is not read."""
    lines = [Fallback(text=text).model_dump_json() + "\n" for text in ("b fell", "a fell", "b fell")]
    (tmp_path / FALLBACKS).write_text("".join(lines) + '{"text": "c', encoding="utf-8")
    record = record_of(tmp_path, job(), End(exit_code=0, timed_out=False, seconds=1.0), datetime.now(UTC))
    assert record.fallbacks == ("b fell", "a fell")
