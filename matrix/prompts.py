"""Reads the prompts that a teacher is to answer: a .jsonl of conversations, or a .txt of one prompt a line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from matrix.errors import DataError, UsageError
from matrix.label import Message
from matrix.strict import Strict, parse, parse_json


class Prompt(NamedTuple):
    """A conversation that waits for its answer, and the line of the file that says it."""

    line: int
    messages: tuple[Message, ...]


class _Line(Strict):
    """A line of a .jsonl: a prompt, or a whole conversation."""

    prompt: str | None = Field(default=None, min_length=1)
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError('give either "prompt" or "messages"')
        return self

    def conversation(self) -> tuple[Message, ...]:
        return self.messages or (Message(role="user", content=str(self.prompt)),)


def _text_line(line: bytes, place: str) -> _Line:
    try:
        return parse(_Line, {"prompt": line.decode().strip()}, place)
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8", remedy=f"save the file as UTF-8 ({error})") from None


def _with_system(messages: tuple[Message, ...], system: str, place: str) -> tuple[Message, ...]:
    if any(message.role == "system" for message in messages):
        raise DataError(f"{place} has a system message of its own", remedy="leave --system out, or take it away there")
    return (Message(role="system", content=system), *messages)


def read_prompts(path: Path, system: str | None = None) -> list[Prompt]:
    """The prompts of `path` in order, each after the `system` message if one is given; blank lines say nothing.

    Raises:
        UsageError: the file is neither .jsonl nor .txt.
        DataError: a line is no prompt, with its number; or no line is one.
    """
    if path.suffix not in {".jsonl", ".txt"}:
        raise UsageError(f"{path} is neither .jsonl nor .txt", remedy="give one prompt a line: JSON, or plain text")
    found = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{path}:{number}"
                read = _text_line(line, place) if path.suffix == ".txt" else parse_json(_Line, line, place)
                messages = read.conversation()
                found.append(Prompt(number, _with_system(messages, system, place) if system else messages))
    if not found:
        raise DataError(f"{path} asks nothing", remedy="give at least one prompt")
    return found
