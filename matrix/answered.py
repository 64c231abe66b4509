"""The file of answers while it is written: one writer, whole lines, and a record of what is being asked.

An answer counts once its line is on the disk. A kill can tear the last line only: the next writer cuts it off. Requests in
flight have a mark of their own beside the file, so that the next writer knows what a kill may have cost.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

from matrix.errors import DataError, UsageError
from matrix.label import Answer, answers_of
from matrix.strict import parse_json

_BEGINS: Final = b'{"key":"'
"""How every line begins: an end that begins otherwise was not written here, and is nobody's to cut off."""


class AnswerFile:
    """The answers in `path`, which `stream` appends to. Made by `writing`; its methods may be called from several threads.

    `known` has each answered question's key, with why its answer was refused (None for one that may teach). `cost` is what the
    answers cost together, `unpriced` how many do not say. `notes` are sentences about what a kill left.
    """

    def __init__(self, path: Path, stream: FileIO) -> None:
        self.path, self._stream, self._lock = path, stream, threading.Lock()
        self._asking = path.with_name(f".{path.name}.asking")
        self.known: dict[str, str | None] = {}
        self.cost, self.unpriced = 0.0, 0
        self.notes: list[str] = []
        self._read()
        self._sweep()

    def _read(self) -> None:
        tail = b""

        def whole(lines: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal tail
            for line in lines:
                if line.endswith(b"\n"):
                    yield line
                else:
                    tail = line

        with self.path.open("rb") as lines:
            for answer in answers_of(whole(iter(lines)), str(self.path)):
                self._know(answer)
        if tail:
            self._mend(tail)

    def _mend(self, tail: bytes) -> None:
        """Finish a last line that lacks its end alone; cut off half a line."""
        place = f"the last line of {self.path}"
        if not (tail.startswith(_BEGINS) or _BEGINS.startswith(tail)):
            raise DataError(f"{place} is no answer", remedy="give --out a file of answers, or a new one")
        try:
            json.loads(tail)
        except ValueError:
            os.ftruncate(self._stream.fileno(), self._size() - len(tail))
            os.fsync(self._stream.fileno())
            self.notes.append(f"{place} was torn when a run was killed: it is cut off, and asked again")
        else:
            self._know(parse_json(Answer, tail, place))
            self._write(b"\n")

    def _sweep(self) -> None:
        """Read and remove the marks that a kill left."""
        marks = list(self._asking.iterdir()) if self._asking.exists() else []
        if lost := sum(mark.name not in self.known for mark in marks):
            self.notes.append(f"{lost} requests were in flight when a run was killed: they may have been paid for")
        for mark in marks:
            mark.unlink()

    def _size(self) -> int:
        return os.fstat(self._stream.fileno()).st_size

    def _know(self, answer: Answer) -> None:
        self.known[answer.key] = answer.refusal
        self.cost, self.unpriced = self.cost + (answer.cost or 0.0), self.unpriced + (answer.cost is None)

    def _write(self, data: bytes) -> None:
        """Append `data` to the disk, or nothing of it."""
        before, left = self._size(), data
        try:
            while left:
                left = left[self._stream.write(left) :]
            os.fsync(self._stream.fileno())
        except OSError:
            os.ftruncate(self._stream.fileno(), before)
            raise

    def asking(self, key: str) -> None:
        """Note that a request is being sent for this question."""
        self._asking.mkdir(exist_ok=True)
        (self._asking / key).touch()

    def asked(self, key: str) -> None:
        """Note that nothing is in flight for this question any more."""
        (self._asking / key).unlink(missing_ok=True)

    def append(self, answer: Answer) -> None:
        """Write an answer to the disk; from here on it is never asked for again.

        Raises:
            OSError: the disk does not take it (full, for instance); the file is as it was.
        """
        with self._lock:
            self._write(answer.model_dump_json().encode() + b"\n")
            self._know(answer)

    def close(self) -> None:
        """Leave nothing beside the file, unless a mark still says that something may have been paid for."""
        if self._asking.exists() and not any(self._asking.iterdir()):
            self._asking.rmdir()


@contextmanager
def writing(path: Path) -> Iterator[AnswerFile]:
    """The answers in `path`, mended where a kill tore them, for one writer at a time; a new file where there is none.

    Raises:
        UsageError: another process writes it.
        DataError: it holds a line that is no answer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go when the process dies
        except OSError:
            raise UsageError(f"another process is writing {path}", remedy="wait until it ends") from None
        file = AnswerFile(path, stream)
        try:
            yield file
        finally:
            file.close()
