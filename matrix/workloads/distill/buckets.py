"""Which examples a batch holds, and where they lie: equal lengths together, so that nothing is padded and nothing masked.

In each epoch every example is drawn once, in batches of the reference's size and number. Within a length the order is random;
what does not fill a batch of its own length is padded with its neighbours' lengths, under a mask; then the batches are
shuffled. So a batch is a random draw among examples of one length, not among all: the reference, which sorts windows of 50
batches by length, does nearly the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from matrix.workloads.train import Encoded

Rows = npt.NDArray[np.int64]


class Shape(NamedTuple):
    """What decides which kernels a step runs: examples, tokens of the longest, and whether a mask hides padding."""

    batch: int
    length: int
    masked: bool


class Draw(NamedTuple):
    """One batch: which examples, and their shape."""

    rows: Rows
    shape: Shape


def draws(lengths: Rows, size: int, rng: np.random.Generator, *, buckets: bool) -> list[Draw]:
    """The batches of one epoch, `ceil(examples / size)` of them: by length, or (without `buckets`) just as they are drawn."""
    order = rng.permutation(len(lengths))
    if not buckets:
        return [_draw(order[at : at + size], lengths) for at in range(0, len(order), size)]
    order = order[np.argsort(lengths[order], kind="stable")]
    of_a_length = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    full = [part[: len(part) // size * size] for part in of_a_length]
    left = np.concatenate([part[len(whole) :] for part, whole in zip(of_a_length, full, strict=True)])
    parts = [part[at : at + size] for part in (*full, left) for at in range(0, len(part), size)]
    found = [_draw(part, lengths) for part in parts]
    return [found[index] for index in rng.permutation(len(found))]


def _draw(rows: Rows, lengths: Rows) -> Draw:
    longest = int(lengths[rows].max())
    return Draw(rows, Shape(len(rows), longest, masked=bool((lengths[rows] != longest).any())))


class Table(NamedTuple):
    """All examples on the device: a batch is one `index_select` of each. 8 bytes a token, the longest's for every example.

    `ids` (examples x longest) count in `vocabulary`, the tokenizer's ids that occur, ascending, of which the first is the
    padding's; `lengths` and `labels` an example, `soft` the teacher's logits, examples x classes.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    soft: torch.Tensor
    vocabulary: torch.Tensor

    def batch(self, rows: torch.Tensor, shape: Shape) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask (True where a token is no padding; None where all are) of the examples `rows`."""
        ids = self.ids[:, : shape.length].index_select(0, rows)
        if not shape.masked:
            return ids, None
        places = torch.arange(shape.length, device=rows.device)
        return ids, places < self.lengths.index_select(0, rows)[:, None]


def table(data: Encoded, soft: torch.Tensor, device: str) -> Table:
    """`data` and the teacher's logits on the device."""
    lengths = np.array([len(row) for row in data.ids])
    flat = np.concatenate([np.asarray(row) for row in data.ids])
    vocabulary = np.unique(np.append(flat, 0))
    ids = np.zeros((len(lengths), lengths.max()), dtype=np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.searchsorted(vocabulary, flat)
    parts = (torch.from_numpy(ids), torch.from_numpy(lengths), data.labels, soft, torch.from_numpy(vocabulary))
    return Table(*(part.to(device) for part in parts))
