"""What an exported student says of the held-out answers, token by token, beside the checkpoint.

The statistics are those of llama.cpp's perplexity tool (tools/perplexity, `--kl-divergence`), from logits in fp64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM

from matrix.errors import DataError
from matrix.workloads.language import REFERENCE, Student, served
from matrix.workloads.language.student import HeldOut, held_out

Floats = npt.NDArray[np.float32]
Logits = Callable[[Sequence[int]], Floats]
"""What follows each of some tokens (tokens x vocabulary)."""

_EXACT: Final = 1e-4
"""Largest difference of a logit that fp32 may show, relative to the largest logit: the order of sums, nothing more."""
_COMPARED: Final = 8


def checkpoint(student: Path) -> Logits:
    """The student itself, in PyTorch and fp32."""
    model = AutoModelForCausalLM.from_pretrained(student).float().eval()

    def answer(ids: Sequence[int]) -> Floats:
        with torch.inference_mode():
            found: Floats = model(torch.tensor([list(ids)])).logits[0].numpy()
        return found

    return answer


def answering(variant: str, student: Student, *, threads: int, context: int) -> Logits:
    """A variant of the student, by llama.cpp; the reference is the checkpoint itself."""
    if variant == REFERENCE:
        return checkpoint(student.checkpoint)
    llama = served.load(student.file(variant), threads=threads, context=context, every=True)
    return lambda ids: served.logits(llama, ids)


def prove(student: Path, model: Path, *, context: int) -> None:
    """An fp32 file answers as the checkpoint does: same logits but for rounding, same first tokens.

    Raises:
        DataError: it does not.
    """
    llama, reference = served.load(model, threads=1, context=context, exact=True, every=True), checkpoint(student)
    for ids in held_out(student).ids[:_COMPARED]:
        ours, theirs = served.logits(llama, ids), reference(ids)
        apart, largest = float(np.abs(ours - theirs).max()), float(np.abs(theirs).max())
        if not apart <= _EXACT * max(1.0, largest) or not np.array_equal(ours.argmax(1), theirs.argmax(1)):
            raise DataError(
                f"{model.name} answers otherwise than the checkpoint: logits differ by {apart:.2e}",
                remedy=f"allowed is {_EXACT * max(1.0, largest):.2e} and no other first token: the conversion is wrong",
            )


def token_by_token(
    ours: Logits, theirs: Logits, held: HeldOut
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """A row for each token of an answer, and the number of its conversation.

    Columns: log probability of the token that follows, by `ours` and by `theirs`; the divergence
    `sum p (log p - log q)` in nats of `ours` (q) from `theirs` (p); 1 where both put the same token first.
    """
    rows, conversations = [], []
    for number, (ids, prompt) in enumerate(zip(held.ids, held.prompts, strict=True)):
        answered = slice(prompt - 1, len(ids) - 1)
        q, p = (torch.from_numpy(model(ids)[answered]).double().log_softmax(1).numpy() for model in (ours, theirs))
        follows, at = np.array(ids[prompt:]), np.arange(len(ids) - prompt)
        divergence = (np.exp(p) * (p - q)).sum(axis=1)
        rows.append(np.stack([q[at, follows], p[at, follows], divergence, q.argmax(1) == p.argmax(1)], axis=1))
        conversations.append(np.full(len(at), number, dtype=np.int64))
    return np.concatenate(rows), np.concatenate(conversations)
