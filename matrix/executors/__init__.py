"""Executors: one module a way to run a process of a target, a Protocol and one dict."""

from __future__ import annotations

from typing import Final, Protocol

from matrix.executors import native
from matrix.job import End, Order, Watch


class Executor(Protocol):
    """What an executor's module offers."""

    def missing(self, device: str) -> str | None:
        """What this host lacks to run processes on `device` this way; None when it can."""

    def execute(self, order: Order, watch: Watch) -> End:
        """Run the process to its end, passing its events on; nothing of it is left running."""


EXECUTORS: Final[dict[str, Executor]] = {"native": native}
"""Every executor that is built; a target may name others, which `matrix doctor` then calls not built."""
