"""A process of this Python that does one order, for the commands that are no measurement."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

from matrix import processes
from matrix.console import Live
from matrix.distillation import NOTE, refusal_in
from matrix.errors import ExitCode, HostError, IncompleteError, MatrixError
from matrix.job import Event
from matrix.strict import Strict


def need(packages: tuple[str, ...], doing: str) -> None:
    """Refuse a Python that lacks a package.

    Raises:
        HostError: with what to install.
    """
    if absent := [name for name in packages if find_spec(name) is None]:
        raise HostError(
            f"{doing} needs {' and '.join(absent)} in this Python",
            remedy="install distill-matrix[cpu], distill-matrix[cuda] or distill-matrix[mps]",
        )


def obeyed(module: str, order: Strict, folder: Path, live: Live, unfinished: tuple[str, str]) -> None:
    """Run `python -m module` on the order to its end; `folder` is its own, for its order, events and log.

    `unfinished` says what an end before its time leaves undone, and the remedy.

    Raises:
        MatrixError: the process refused, with its own sentence and exit code.
        IncompleteError: it ended before its work did.
    """

    def watch(event: Event) -> None:
        if event.stage == NOTE:
            live.say(event.detail)
        else:
            live.event(event)

    file = folder / "order.json"
    file.write_text(order.model_dump_json(), encoding="utf-8")
    end = processes.call(["-m", module, str(file)], folder, watch, variables={}, timeout_s=math.inf)
    if not end.exit_code:
        return
    log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
    if refused := refusal_in(log):
        what, _, remedy = refused.partition("; ")
        error = MatrixError(what, remedy=remedy)
        error.exit_code = ExitCode(end.exit_code)
        raise error
    what, remedy = unfinished
    raise IncompleteError(f"{what}, {end.story}", remedy=f"{remedy} ({log[-2_000:] or 'it said nothing'})")
