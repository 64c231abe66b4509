"""What `matrix label` writes, one JSON line an answer, and how its lines are read back.

Refuses a line that is torn, one whose key is not its question's, and two answers to one question; each by the line's number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from matrix.canonical import digest
from matrix.errors import DataError
from matrix.strict import Moment, Strict, parse_json

_Count = Annotated[int, Field(ge=0)]


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Question(Strict):
    """Everything that decides an answer, and no more: neither where it is asked nor with whose key.

    `max_tokens`, `temperature` and `seed` are None where the server's own defaults hold.
    """

    model: str = Field(min_length=1)
    messages: tuple[Message, ...] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    seed: int | None = None

    @model_validator(mode="after")
    def _is_asked(self) -> Self:
        if self.messages[-1].role != "user":
            raise ValueError("the last message is not the user's: leave out what the teacher is to answer")
        return self

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON of what is set: equal questions are asked once."""
        return digest(self.model_dump(mode="json", exclude_none=True))


class Answer(Strict):
    """One line: a question and what the server answered to it, also where that is of no use.

    `model` is the name that the server gives itself, the token counts are its own, `cost` is in the currency of the prices;
    each is None where nothing tells it. `attempts` are the requests sent for it, `when` is the time of its end.
    """

    key: str
    question: Question
    answer: str
    model: str | None
    finish_reason: str
    prompt_tokens: _Count | None
    completion_tokens: _Count | None
    cost: float | None = Field(ge=0)
    when: Moment
    attempts: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_of_its_question(self) -> Self:
        if self.key != self.question.key:
            raise ValueError("the key is not the question's: the line was changed after it was written")
        return self

    @property
    def refusal(self) -> str | None:
        """Why it must not teach: 'empty', or how the server says that it ended; None for a whole answer."""
        if self.finish_reason != "stop":
            return self.finish_reason
        return None if self.answer.strip() else "empty"


def answers_of(lines: Iterable[bytes], where: str) -> Iterator[Answer]:
    """The answers of a file's `lines` (with their ends), refused ones too, each question once.

    Raises:
        DataError: a line is torn or no answer, or it answers otherwise than an earlier one; with its number.
    """
    seen: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, 1):
        place = f"{where}:{number}"
        if not line.endswith(b"\n"):
            raise DataError(f"{place} is torn", remedy="run `matrix label` again: it mends the end of its file")
        answer = parse_json(Answer, line, place)
        first, text = seen.setdefault(answer.key, (number, answer.answer))
        if text != answer.answer:
            raise DataError(f"{place} answers the question of line {first} otherwise", remedy="keep one of the two")
        if first == number:
            yield answer
