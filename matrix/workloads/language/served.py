"""A GGUF file at work in llama.cpp, through llama-cpp-python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matrix.errors import DataError, UsageError
from matrix.workloads.language.gguf import told

if TYPE_CHECKING:
    from llama_cpp import Llama

Floats = npt.NDArray[np.float32]


def load(model: Path, *, threads: int, context: int, exact: bool = False, every: bool = False) -> Llama:
    """The file in memory, on the CPU. `exact` keeps keys and values in fp32 instead of f16; `every` tells the logits of each token.

    Raises:
        UsageError: llama-cpp-python is not installed.
        DataError: llama.cpp cannot read the file.
    """
    try:
        import llama_cpp  # noqa: PLC0415 - an optional package
    except ImportError:
        raise UsageError(
            "llama-cpp-python is not installed",
            remedy="pip install 'distill-matrix[llama]': it is built from source, which takes a C++ compiler and minutes",
        ) from None
    kept: dict[str, Any] = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32} if exact else {}
    with told() as lines:
        try:
            return llama_cpp.Llama(
                model_path=str(model),
                n_ctx=context,
                n_batch=context,
                n_threads=threads,
                n_threads_batch=threads,
                n_gpu_layers=0,
                logits_all=every,
                verbose=False,
                **kept,
            )
        except ValueError as error:
            said = [line.strip() for line in lines if "error" in line.lower() or "invalid" in line.lower()]
            raise DataError(
                f"llama.cpp cannot read {model.name}: {'; '.join(said)[-300:] or error}",
                remedy="the file is torn or of something else: export the student again",
            ) from None


def logits(llama: Llama, ids: Sequence[int]) -> Floats:
    """What follows each of `ids`, by itself (tokens x vocabulary): nothing of an earlier text is left."""
    llama.reset()
    llama.eval(ids)
    found: Floats = llama.scores[: len(ids)].copy()
    return found
