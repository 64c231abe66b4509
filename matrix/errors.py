"""Every way in which the matrix can refuse, each with its exit code and its remedy.

An error names what is wrong, where, and what to do about it. Nothing here is caught and forgotten: `matrix.__main__`
prints the sentence and ends with the code.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's end means to the shell, to tox and to CI."""

    PASS = 0
    FAIL = 1
    USAGE = 2
    UNDECIDED = 3
    INVALID_EVIDENCE = 4
    CANNOT_RUN = 5
    INCOMPLETE = 6
    INTERRUPTED = 130


class MatrixError(Exception):
    """A refusal: `what` is wrong and the `remedy`, two clauses of one sentence."""

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, what: str, *, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


class UsageError(MatrixError):
    """The command, or a file that it was given, says something that cannot be meant."""


class DataError(MatrixError):
    """A data set, a model or a definition file cannot be used as it is."""


class EvidenceError(MatrixError):
    """A bundle is torn, changed or contradicts itself: no verdict may rest on it."""

    exit_code = ExitCode.INVALID_EVIDENCE


class HostError(MatrixError):
    """This host cannot run the target; another may."""

    exit_code = ExitCode.CANNOT_RUN


class IncompleteError(MatrixError):
    """A run ended before its plan did; what it finished is kept."""

    exit_code = ExitCode.INCOMPLETE
