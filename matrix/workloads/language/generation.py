"""How fast an exported student reads and writes: the calls that llama-bench times, and the first token behind a kept prefix.

llama-cpp-python's `generate` keeps what it has evaluated and goes on from the longest prefix that the next prompt shares with it;
`reset` forgets it. So prefix caching on and off are two calls of one function.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.profile import Language
from matrix.workloads.language import Student, served
from matrix.workloads.language.student import held_out
from matrix.workloads.sampling import Arguments

if TYPE_CHECKING:
    from llama_cpp import Llama

Prompt = Sequence[int]


def prompts(student: Student, recipe: Language) -> tuple[Prompt, Prompt]:
    """Two prompts of the recipe's length that begin with the same `shared` tokens of held-out conversations."""
    told = list(itertools.chain.from_iterable(held_out(student.checkpoint).ids))
    ours = list(itertools.islice(itertools.cycle(told), 2 * recipe.prompt))
    ends = recipe.prompt - recipe.shared
    first, others = ours[: recipe.prompt], ours[recipe.prompt :]
    second = next(token for token in others if token != first[recipe.shared])  # they part at once
    return first, [*first[: recipe.shared], second, *others[: ends - 1]]


class Generation:
    """One file at work as its cell asks: `call` is what is timed, with one of `arrivals`."""

    def __init__(self, cell: Cell, student: Student, recipe: Language, threads: int) -> None:
        self.cell, self._written = cell, cell.length if isinstance(cell.length, int) else 0
        self._prompts = prompts(student, recipe)
        started = time.perf_counter()
        self.llama: Llama = served.load(student.file(cell.variant), threads=threads, context=recipe.context)
        self._load_s, self._bytes = time.perf_counter() - started, student.file(cell.variant).stat().st_size
        self.call: Callable[[Prompt], int] = {"prefill": self._anew, "prefix": self._first, "decode": self._write}[
            cell.mode or ""
        ]

    def _first(self, prompt: Prompt) -> int:
        """The most probable token behind `prompt`; of what it shares with the last one nothing is computed again."""
        return next(self._generated(prompt))

    def _anew(self, prompt: Prompt) -> int:
        """The same, from nothing."""
        self.llama.reset()
        return self._first(prompt)

    def _write(self, prompt: Prompt) -> int:
        """As many tokens as the cell asks, one by one behind the first of `prompt`; the last of them."""
        self.llama.reset()
        return list(itertools.islice(self._generated(prompt[:1]), self._written))[-1]

    def _generated(self, prompt: Prompt) -> Iterator[int]:
        generated: Iterator[int] = self.llama.generate(prompt, temp=0.0, repeat_penalty=1.0)
        return generated

    def arrivals(self) -> Iterator[Arguments]:
        """The prompts in turn: each shares with the one before it what is shared, and no more."""
        return itertools.cycle(((prompt,), {}) for prompt in self._prompts)

    def agree(self) -> None:
        """What is kept changes no answer.

        Raises:
            EvidenceError: a prompt is answered otherwise behind a kept prefix.
        """
        anew = [self._anew(prompt) for prompt in self._prompts]
        kept = [self._first(prompt) for prompt in self._prompts]
        if anew != kept:
            raise EvidenceError(
                f"{self.cell.variant} answers {kept} behind a kept prefix, and {anew} without",
                remedy="prefix caching is broken here: measure nothing with it",
            )

    def facts(self) -> dict[str, float]:
        """What the clock does not tell, by metric name."""
        return {"load_s": self._load_s, "artifact_bytes": float(self._bytes)}
