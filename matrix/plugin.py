"""The pytest plug-in of every image: hands the planned cells to the suites and tells what became of each.

Loads no framework. Refuses to lose a cell: one that raised, or was never reached, is in `outcomes.jsonl` with its reason,
where pytest-benchmark's JSON alone would drop it in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from matrix import definitions, host
from matrix.cell import Cell
from matrix.confined import confinement
from matrix.job import Event, Job
from matrix.sample import FALLBACKS, FELL_BACK, OUTCOMES, PROCESS, Fallback, Outcome, ProcessFacts, fallback_in
from matrix.strict import parse_json
from matrix.workloads import canary, clock
from matrix.workloads.launch import Launch, Measurement, pinned

_LONGEST_ERROR: Final = 4_000

_LAUNCH = pytest.StashKey[Launch]()
_NUMBERS = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option: the job."""
    parser.getgroup("matrix").addoption(
        "--matrix-job", metavar="FILE", help="the launch's orders, as `matrix run` writes them"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the job, ask the canaries, test the clock, and say what this process runs on."""
    config.addinivalue_line("markers", "cells(suite, mode): the planned cells that this test measures")
    path = config.getoption("--matrix-job")
    if path is None:
        return
    launch = Launch(parse_json(Job, Path(path).read_bytes(), path))
    if definitions.suite_digest() != launch.job.suite_sha256:
        raise pytest.UsageError("the suites here are not those that `matrix run` planned: build the image again")
    config.stash[_LAUNCH] = launch
    config.stash[_NUMBERS] = {cell.id: number for number, cell in enumerate(launch.job.cells, start=1)}
    config.pluginmanager.register(Fallbacks(launch))
    # torch warns by UserWarning, which the suites' own settings ignore; the newest filter is asked first
    config.addinivalue_line("filterwarnings", f"always:.*{FELL_BACK}:UserWarning")
    launch.append(PROCESS, _facts(launch))


def _facts(launch: Launch) -> ProcessFacts:
    """What this process says of itself; the canaries are asked first, before it holds anything of the device.

    A client of functions has no torch to ask: what answers is in their containers.
    """
    return ProcessFacts(
        battery=None if launch.job.emulates else canary.ask(launch.job.device),
        clock=clock.check(launch.job.device),
        environment=host.environment(),
        host=host.host_class(),
        confinement=confinement(),
        nonce=launch.job.nonce,
    )


class Fallbacks:
    """Files each warning that an operator of a cell ran on the CPU instead of the device."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """A warning that pytest caught, whenever it was."""
        if text := fallback_in(str(warning_message.message)):
            self.launch.append(FALLBACKS, Fallback(text=text))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the launch holds open."""
    if launch := config.stash.get(_LAUNCH, None):
        launch.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test item a planned cell; the parameter is its identifier, so that pytest-benchmark's JSON stays small."""
    mark = metafunc.definition.get_closest_marker("cells")
    if mark is None:
        return
    launch = metafunc.config.stash.get(_LAUNCH, None)
    cells = launch.job.cells if launch else ()
    wanted = [cell.id for cell in cells if all(getattr(cell, key) == value for key, value in mark.kwargs.items())]
    metafunc.parametrize("cell_id", wanted)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the cells in the job's order, across the suites' files."""
    numbers = config.stash.get(_NUMBERS, {})
    planned = [item for item in items if _cell_id(item) in numbers]
    config.hook.pytest_deselected(
        items=[item for item in items if _cell_id(item) not in numbers]
    )  # a suite without a cell
    items[:] = sorted(planned, key=lambda item: numbers[_cell_id(item) or ""])


def _cell_id(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    found: str | None = call.params.get("cell_id") if call else None
    return found


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say which cell begins."""
    launch, cell = item.config.stash.get(_LAUNCH, None), _cell_id(item)
    if launch and cell:
        numbers = item.config.stash[_NUMBERS]
        launch.tell(Event(stage="cell", detail=cell, done=numbers[cell], total=len(numbers)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """File what became of a cell as soon as it is known, so that a crash in the next one loses nothing."""
    report = yield
    launch, cell = item.config.stash.get(_LAUNCH, None), _cell_id(item)
    if launch and cell and (call.when == "call" or report.failed or report.skipped):
        told = report.longreprtext if report.failed else str(report.longrepr) if report.skipped else None
        error = host.without_paths(told)[-_LONGEST_ERROR:] if told else None
        launch.append(
            OUTCOMES, Outcome(cell=cell, state="failed" if error else "measured", error=error, seconds=call.duration)
        )
    return report


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keep the machine's name out of evidence that is published."""
    machine_info["node"] = host.host_instance()[:12]


@pytest.fixture
def launch(pytestconfig: pytest.Config) -> Launch:
    """The launch that this process is."""
    return pytestconfig.stash[_LAUNCH]


@pytest.fixture
def cell(launch: Launch, cell_id: str) -> Cell:
    """The planned cell that this test measures."""
    return next(cell for cell in launch.job.cells if cell.id == cell_id)


@pytest.fixture
def measure(benchmark: Any, cell: Cell, launch: Launch) -> Iterator[Measurement]:  # noqa: ANN401 - pytest-benchmark's fixture
    """Times calls of this cell, on as many pinned cores as its threads, and files its evidence."""
    threads = launch.job.profile.inference_threads if cell.suite == "inference_latency" else launch.job.threads
    measurement = Measurement(benchmark, cell, launch, threads=threads)
    with pinned(threads):
        yield measurement
    measurement.file()
