"""Proof that a full-precision export computes what the checkpoint computes, before anything is quantised from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from matrix.errors import DataError
from matrix.workloads.serve import Inputs, Predict

LIMIT: Final = 1e-4
"""Largest difference of a logit; the labels must be the same. Other sums of fp32 differ by a few 1e-6."""

_LENGTHS: Final = (2, 7, 16, 33, 128)
_BATCH: Final = 4


def probes(vocabulary: int, longest: int, seed: int = 0) -> Iterator[Inputs]:
    """Batches of random token ids of several lengths, with and without padding: whatever a tokenizer could give."""
    drawn = np.random.default_rng(seed)
    for length in (one for one in _LENGTHS if one <= longest):
        ids = drawn.integers(0, vocabulary, (_BATCH, length), dtype=np.int64)
        for padded in (False, True):
            mask = np.ones_like(ids)
            if padded:
                mask[:, max(1, length // 2) :] = 0
                mask[0] = 1
            yield {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def check(name: str, predict: Predict, reference: Predict, asked: Sequence[Inputs]) -> float:
    """The largest difference of a logit between an export and its checkpoint.

    Raises:
        DataError: it is larger than rounding, or a label differs.
    """
    apart = 0.0
    for inputs in asked:
        found, right = predict(inputs), reference(inputs)
        apart = max(apart, float(np.abs(found - right).max()))
        if not apart <= LIMIT or (found.argmax(1) != right.argmax(1)).any():
            raise DataError(
                f"{name} answers otherwise than its checkpoint: max |dlogit| {apart:.2e}, allowed {LIMIT:.0e} and equal labels",
                remedy="quantise nothing from it: this exporter does not know something in the model",
            )
    return apart


def alike(name: str, predict: Predict, reference: Predict, asked: Sequence[Inputs], least: float) -> None:
    """Refuse a quantised export whose logits do not follow its checkpoint's.

    Raises:
        DataError: they are not finite, or correlate by less than `least`.
    """
    found, right = (np.concatenate([answer(inputs).ravel() for inputs in asked]) for answer in (predict, reference))
    correlation = float(np.corrcoef(found, right)[0, 1]) if np.isfinite(found).all() else 0.0
    if not correlation >= least:
        raise DataError(
            f"{name} does not answer like its checkpoint: logits correlate by {correlation:.4f}",
            remedy=f"at least {least} is asked; ship the fp32 export, and look for outliers in the weights",
        )
