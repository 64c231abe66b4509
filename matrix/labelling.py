"""Has every question answered once: several at a time, within a budget, each answer on the disk before it counts.

Whatever ends a run (Ctrl-C, a refused key, a spent budget), the requests in flight are awaited, for they are paid for.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Final, NamedTuple

from matrix.answered import AnswerFile
from matrix.endpoint import Endpoint, FailedError, Prices, StoppedError
from matrix.errors import ExitCode, IncompleteError, MatrixError, UsageError
from matrix.label import Answer, Question
from matrix.units import DASH

_HOPELESS: Final = 10
"""So many failures with no answer between them, and the endpoint is at fault, not the questions."""


class Asked(NamedTuple):
    """A question, and the line of the prompts that first asks it."""

    line: int
    question: Question
    key: str


def distinct(asked: Iterable[tuple[int, Question]]) -> list[Asked]:
    """Each question once, at its first line, in order."""
    found: dict[str, Asked] = {}
    for line, question in asked:
        key = question.key
        found.setdefault(key, Asked(line, question, key))
    return list(found.values())


@dataclass
class Tally:
    """What became of a run's questions. `refused` counts the reasons of this run's and of reused answers alike."""

    answered: int = 0
    reused: int = 0
    failed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    cost: float | None = None

    def take(self, answer: Answer) -> None:
        """Count a new answer; `uncounted` is one whose tokens the server does not tell."""
        self.answered += 1
        self.refuse(answer.refusal)
        self.prompt_tokens += answer.prompt_tokens or 0
        self.completion_tokens += answer.completion_tokens or 0
        self.uncounted += answer.completion_tokens is None
        if answer.cost is not None:
            self.cost = (self.cost or 0.0) + answer.cost

    def reuse(self, refusal: str | None) -> None:
        """Count an answer of an earlier run."""
        self.reused += 1
        self.refuse(refusal)

    def refuse(self, refusal: str | None) -> None:
        """Count an answer that must not teach, by its reason."""
        if refusal is not None:
            self.refused[refusal] += 1

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.refused.items()))
        parts = [
            f"{self.answered} answered, {self.reused} reused, {self.failed} failed",
            f"{self.refused.total()} of the answers refused" + (f" ({reasons})" if reasons else ""),
            f"{self.prompt_tokens} + {self.completion_tokens} tokens"
            + (f" ({self.uncounted} answers do not tell theirs)" if self.uncounted else ""),
            f"cost {DASH if self.cost is None else f'{self.cost:.6g}'}",
        ]
        return "; ".join(parts)


class Budget:
    """What all answers of the file may cost together; a request is let through only if its dearest answer still fits in.

    Refuses to be kept where a cost is not known: `check` after each answer.
    """

    def __init__(self, limit: float, file: AnswerFile, prices: Prices) -> None:
        self.limit, self._file, self._prices = limit, file, prices
        self.check()

    def check(self) -> None:
        """Raise where an answer has no cost."""
        if self._file.unpriced:
            raise UsageError(
                f"{self._file.unpriced} answers in {self._file.path} have no cost, so no budget can be kept",
                remedy="leave --budget out, or use another file, with prices and a server that counts tokens",
            )

    def allows(self, question: Question, in_flight: Iterable[Question]) -> bool:
        """Whether it may be asked beside those in flight."""
        return self._file.cost + sum(map(self._prices.most, (*in_flight, question))) <= self.limit


class Labelling:
    """One run: has the answers of `work` added to `file`, `concurrency` at a time, and counts them in `tally`.

    `say` prints a line that stays, `progress` is called with each count of questions done.
    """

    def __init__(self, file: AnswerFile, endpoint: Endpoint, concurrency: int, budget: Budget | None = None) -> None:
        self._file, self._endpoint, self._concurrency, self._budget = file, endpoint, concurrency, budget
        self.tally = Tally()
        self._stop, self._in_a_row = Event(), 0
        self._pending: dict[Future[Answer], Asked] = {}

    def run(self, work: Iterable[Asked], say: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
        """Ask what the file does not know yet.

        Raises:
            MatrixError: the endpoint answers nobody (key, model, quota), or the budget is spent; what is answered is kept.
            KeyboardInterrupt: after the requests in flight were answered.
        """
        todo: deque[Asked] = deque()
        for asked in work:
            if asked.key in self._file.known:
                self.tally.reuse(self._file.known[asked.key])
            else:
                todo.append(asked)
        total = len(todo)
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                while todo or self._pending:
                    self._begin(pool, todo)
                    done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._end(future, say)
                    progress(total - len(todo) - len(self._pending), total)
            except BaseException:
                self._leave(say)
                raise

    def _begin(self, pool: ThreadPoolExecutor, todo: deque[Asked]) -> None:
        """Start as many requests as may be."""
        while todo and len(self._pending) < self._concurrency:
            if self._budget and not self._budget.allows(
                todo[0].question, (asked.question for asked in self._pending.values())
            ):
                if self._pending:
                    return  # they will cost less than they could
                raise IncompleteError(
                    f"the next of {len(todo)} questions could cost more than is left of the budget of {self._budget.limit:g}",
                    remedy="raise --budget, and run again: what is answered is kept",
                )
            asked = todo.popleft()
            self._pending[pool.submit(self._ask, asked)] = asked

    def _ask(self, asked: Asked) -> Answer:
        """In a thread: an answer, which is on the disk. The thread writes it, for Ctrl-C breaks into the main one anywhere."""
        try:
            answer = self._endpoint.ask(asked.question, self._stop, lambda: self._file.asking(asked.key))
        except BaseException:
            self._file.asked(asked.key)
            raise
        self._file.append(answer)
        self._file.asked(asked.key)
        return answer

    def _end(self, future: Future[Answer], say: Callable[[str], None]) -> None:
        """Count what became of a question; raises where it ends the run."""
        asked = self._pending.pop(future)
        try:
            self.tally.take(future.result())
            self._in_a_row = 0
        except StoppedError:
            return
        except FailedError as error:
            self.tally.failed += 1
            self._in_a_row += 1
            say(f"line {asked.line} of the prompts has no answer: {error}")
            if self._in_a_row == _HOPELESS:
                what = f"the last {_HOPELESS} questions have no answer"
                raise IncompleteError(
                    what, remedy="see to the endpoint, and run again: what is answered is kept"
                ) from None
        if self._budget:
            self._budget.check()

    def _leave(self, say: Callable[[str], None]) -> None:
        """Await what is in flight, and start nothing any more. A second Ctrl-C leaves at once, as a kill would."""
        self._stop.set()
        if self._pending:
            say(f"waiting for {len(self._pending)} requests in flight: they are paid for")
        try:
            wait(self._pending)
        except KeyboardInterrupt:
            os._exit(ExitCode.INTERRUPTED)
        for future in list(self._pending):
            try:
                self._end(future, say)
            except (MatrixError, OSError) as error:
                say(f"and: {error}")
