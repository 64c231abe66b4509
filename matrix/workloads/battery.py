"""Asks a device every canary and compares its tensors: a raised error and a number that is none are answers, and wrong ones."""

from __future__ import annotations

import math
import warnings
from typing import Final

import torch

from matrix.sample import Battery, Canary, Tensor, fallback_in
from matrix.workloads import step
from matrix.workloads.inductor import compiler
from matrix.workloads.questions import CANARIES

_LONGEST_DETAIL: Final = 300


def answer(name: str, device: str) -> Canary:
    """What the device answers to the canary called `name`; one that raises has failed, and says why."""
    try:
        error, limit, detail = CANARIES[name](device)
    except Exception as raised:  # noqa: BLE001 - whatever a device raises is its answer
        return _raised(name, raised)
    if not math.isfinite(error):
        return Canary(name=name, error=None, limit=limit, detail=f"the error is {error}")
    return Canary(name=name, error=error, limit=limit, detail=detail)


def _raised(name: str, error: Exception) -> Canary:
    line = (str(error).strip().splitlines() or [""])[0]
    return Canary(name=name, error=None, limit=0.0, detail=f"{type(error).__name__}: {line}"[:_LONGEST_DETAIL])


def _tensors(device: str) -> tuple[tuple[Tensor, ...], tuple[Canary, ...]]:
    """The tensors, or the failed canary that tells why there are none."""
    try:
        return tuple(step.tensors(device)), ()
    except Exception as raised:  # noqa: BLE001 - likewise
        return (), (_raised("tensors", raised),)


def battery(device: str) -> Battery:
    """Every canary asked, every tensor compared, and what fell back meanwhile."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        canaries = tuple(answer(name, device) for name in CANARIES)
        tensors, lost = _tensors(device)
    fallen = (fallback_in(str(warning.message)) for warning in heard)
    return Battery(
        device=device,
        canaries=(*canaries, *lost),
        tensors=tensors,
        fallbacks=tuple(dict.fromkeys(text for text in fallen if text)),
        # the mode that the suites run with, which set none: no limit above is widened for it
        tf32=torch.backends.cuda.matmul.allow_tf32 if device == "cuda" else None,
        compiler=compiler(device),
    )
