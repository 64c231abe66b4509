"""Executors: one module a way to run a process of a target, a Protocol and one dict."""

from __future__ import annotations

from typing import Final, Protocol

from matrix.executors import docker, emulator, native
from matrix.job import End, Order, Watch
from matrix.sample import Confinement
from matrix.target import Executor as Name
from matrix.target import Target


class Executor(Protocol):
    """What an executor's module offers."""

    def missing(self, target: Target) -> str | None:
        """What this host lacks to run the target this way, a clause; None when it can."""

    def unready(self, target: Target) -> str | None:
        """What `matrix provide` has to make first, a clause; None when processes can start."""

    def cores(self, target: Target) -> int:
        """CPUs that a process of the target may use."""

    def asked(self, target: Target) -> Confinement | None:
        """The limits that a launch's process is started with; None where it has none."""

    def execute(self, order: Order, watch: Watch) -> End:
        """Run the process to its end, passing its events on; nothing of it is left running."""


EXECUTORS: Final[dict[Name, Executor]] = {"docker": docker, "emulator": emulator, "native": native}
"""Every executor; a target names those that it may run by, in the order in which they are preferred."""
