"""A teacher's answers from the file that `matrix label` wrote: those that may teach, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matrix.errors import DataError
from matrix.label import Message, answers_of


class Taught(NamedTuple):
    """A conversation whose last message is the user's, and the teacher's answer to it."""

    messages: tuple[Message, ...]
    answer: str


def read_answers(path: Path) -> list[Taught]:
    """Every whole answer of the file in its order; those that were cut off, filtered or empty are left out.

    Raises:
        DataError: the file cannot be read, a line is torn, changed or no answer, one question is answered in two ways, or no
            answer is left to learn from.
    """
    try:
        with path.open("rb") as lines:
            found = list(answers_of(lines, str(path)))
    except OSError as error:
        raise DataError(f"{path} cannot be read", remedy=f"give the file that `matrix label` wrote ({error})") from None
    taught = [Taught(one.question.messages, one.answer) for one in found if one.refusal is None]
    if not taught:
        raise DataError(
            f"none of the {len(found)} answers in {path} may teach",
            remedy="ask again with `matrix label` and a larger --max-tokens, or another model",
        )
    return taught
