"""The workload's examples as arrays: made once by `prepare`, read by every suite without a framework.

`probes` are what latency is measured on, with the reference's logits beside them, so that a runtime proves that it answers
right before its clock starts. A probe of fixed length is real utterances one after another, cut to exactly that many
tokens: no padding, no mask, no random ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from matrix.workloads.serve import Inputs, Predict

FILE = "examples.npz"
PROBES = 64
OWN_LENGTHS = 100

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]
Length = int | Literal["data"]


def windows(ids: Sequence[Sequence[int]], length: int, count: int) -> Int:
    """`count` x `length` token ids: utterances' inner tokens in a row, framed by the first utterance's [CLS] and [SEP]."""
    inner = [token for row in ids for token in row[1:-1]]
    width = length - 2
    repeats = -(-count * width // len(inner))
    stream = np.resize(np.array(inner * repeats), (count, width))
    first, last = ids[0][0], ids[0][-1]
    return np.hstack([np.full((count, 1), first), stream, np.full((count, 1), last)]).astype(np.int64)


def inputs_of(ids: Int) -> Inputs:
    """What a model takes for unpadded `ids` (batch x length)."""
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@dataclass(frozen=True)
class Examples:
    """Encoded evaluation, training and validation examples, flat, with the start of each, and the labels of each.

    `texts` are those of the probes of their own lengths; `checkpoint` holds the checkpoint's logits of every evaluation example.
    """

    evaluation: Int
    evaluation_starts: Int
    labels: Int
    train: Int
    train_starts: Int
    train_labels: Int
    validation: Int
    validation_starts: Int
    validation_labels: Int
    texts: npt.NDArray[np.str_]
    checkpoint: Float
    reference: dict[str, Float]

    @classmethod
    def read(cls, folder: Path) -> Examples:
        """The examples that `prepare` left in `folder`."""
        with np.load(folder / FILE, allow_pickle=False) as data:
            reference = {name.removeprefix("logits_"): data[name] for name in data.files if name.startswith("logits_")}
            others = [name for name in data.files if not name.startswith("logits_")]
            return cls(**{name: data[name] for name in others}, reference=reference)

    def evaluation_ids(self) -> list[Int]:
        """Each evaluation example's ids."""
        return np.split(self.evaluation, self.evaluation_starts[1:])

    def train_ids(self) -> list[Int]:
        """Each training example's ids."""
        return np.split(self.train, self.train_starts[1:])

    def validation_ids(self) -> list[Int]:
        """Each validation example's ids."""
        return np.split(self.validation, self.validation_starts[1:])

    def probes(self, length: Length) -> list[Inputs]:
        """Batch-1 inputs of `length` tokens; "data" gives evaluation examples at their own lengths."""
        ids = self.evaluation_ids()
        if length == "data":
            return [inputs_of(row[None, :]) for row in ids[:OWN_LENGTHS]]
        return [inputs_of(row[None, :]) for row in windows([list(row) for row in ids[:2000]], length, PROBES)]


def write(folder: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """Write what `Examples.read` reads."""
    np.savez(folder / FILE, allow_pickle=False, **arrays)


def flat(ids: Sequence[Sequence[int]]) -> tuple[Int, Int]:
    """Rows of ids as one array and the start of each row."""
    starts = np.cumsum([0, *(len(row) for row in ids[:-1])])
    return np.concatenate([np.asarray(row, dtype=np.int64) for row in ids]), starts.astype(np.int64)


def equal_length_batches(ids: Sequence[Int], size: int) -> Iterator[tuple[Int, Int]]:
    """Indices and ids (batch x length) in batches of at most `size` examples of equal length: nothing is padded."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(ids):
        by_length.setdefault(len(row), []).append(index)
    for _, members in sorted(by_length.items()):
        for start in range(0, len(members), size):
            rows = members[start : start + size]
            yield np.array(rows), np.stack([ids[row] for row in rows])


def predict_all(predict: Predict, ids: Sequence[Int], size: int, classes: int) -> Float:
    """Logits of every example in the data's order, float32, examples x classes."""
    out = np.empty((len(ids), classes), dtype=np.float32)
    for rows, batch in equal_length_batches(ids, size):
        out[rows] = predict(inputs_of(batch))
    return out


def rerun_difference(predict: Predict, ids: Sequence[Int], size: int, logits: Float, *, batches: int = 20) -> float:
    """Largest difference of a logit when the first batches are predicted once more: 0 for a deterministic runtime."""
    found = [
        float(np.abs(predict(inputs_of(batch)) - logits[rows]).max())
        for (rows, batch), _ in zip(equal_length_batches(ids, size), range(batches), strict=False)
    ]
    return max(found)
