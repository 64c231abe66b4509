"""The workload's identity: two numbers may meet only if it is equal. Nothing of the device or the host enters it."""

from __future__ import annotations

from typing import Any, Final

from matrix.canonical import digest
from matrix.cell import LANGUAGE, Cell
from matrix.errors import EvidenceError
from matrix.job import Prepared
from matrix.profile import Profile

PROTOCOL: Final = 1
"""Version of the timing protocol: raise it whenever sampling changes what a number means."""


def _subject(cell: Cell, prepared: Prepared) -> dict[str, Any]:
    """What the cell works on: configurations for a training step, the trained student's own weights for all else.

    Raises:
        EvidenceError: the cell is of the response workload, which was not prepared.
    """
    if cell.workload == "response":
        if prepared.response is None:
            raise EvidenceError(f"no conversations were prepared for {cell.id}", remedy="prepare the workload again")
        subject = {"tokenizer": prepared.response.tokenizer_sha256, "examples": prepared.response.sha256}
        return subject | ({"student_weights": prepared.response.weights_sha256} if cell.suite in LANGUAGE else {})
    if cell.trains:
        return {
            "tokenizer": prepared.tokenizer_sha256,
            "teacher": prepared.teacher_model.config_sha256,
            "teacher_weights": prepared.teacher_model.weights_sha256,
            "student": prepared.student_model.config_sha256,
            "examples": prepared.data.train.sha256,
        }
    return {
        "tokenizer": prepared.tokenizer_sha256,
        "student": prepared.student_model.config_sha256,
        "student_weights": prepared.student_model.weights_sha256,
        "examples": prepared.data.evaluation.sha256,
    }


_CHOICES: Final = ("suites", "stacks", "exports", "runtimes")
"""What a profile plans: it decides which numbers there are, not what one of them means."""


def sizes(profile: Profile, *, seeded: bool = True) -> dict[str, Any]:
    """What of a profile decides a number's meaning, with its seed or without; what it leaves at its default is left out."""
    left: dict[str, Any] = dict.fromkeys(_CHOICES, True) | ({} if seeded else {"recipe": {"seed"}})
    return profile.model_dump(mode="json", exclude=left, exclude_defaults=True)


def workload_id(cell: Cell, profile: Profile, prepared: Prepared, *, suite_sha256: str, dtype: str) -> str:
    """Digest of everything that decides what the cell's number means, apart from where it was measured.

    `suite_sha256` is of the cell's own suite. What a cell or profile leaves at its default is left out: a parameter that other
    suites gain later changes nothing that was measured before.
    """
    return digest(
        {
            "protocol": PROTOCOL,
            "suites": suite_sha256,
            "cell": cell.model_dump(mode="json", exclude_defaults=True),
            "profile": sizes(profile),
            "dtype": dtype,
            **_subject(cell, prepared),
        }
    )
