"""Serving runtimes: one module a runtime, a Protocol and one dict. Every runtime keeps one contract, so that times compare.

A call takes what a tokenizer gives (NumPy int64, batch x length) and returns logits (NumPy float32, batch x classes) on the
host: conversions and copies are inside the clock, because a service pays for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from matrix.errors import DataError

Inputs = Mapping[str, npt.NDArray[np.int64]]
Predict = Callable[[Inputs], npt.NDArray[np.float32]]

INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")


class Runtime(Protocol):
    """What a runtime's module offers."""

    def load(self, model: Path, *, device: str, threads: int) -> Predict:
        """Load the model file (or its checkpoint folder) and return the function that serves it."""


class Serving(NamedTuple):
    """A variant of inference: the export format that it loads and the module that runs it."""

    format: str
    module: str


SERVINGS: Final[dict[str, Serving]] = {
    "torch_eager": Serving("torch_fp32", "torch_eager"),
    "torch_compiled": Serving("torch_fp32", "torch_compiled"),
    "torch_int8": Serving("torch_int8", "torch_int8"),
    "ort_fp32": Serving("onnx_fp32", "onnx_runtime"),
    "ort_int8": Serving("onnx_int8", "onnx_runtime"),
    "ort_fp16": Serving("onnx_fp16", "onnx_runtime"),
    "ort_static_int8": Serving("onnx_static_int8", "onnx_runtime"),
    "ort_fused": Serving("onnx_fused", "onnx_runtime"),
    "ort_int8_fused": Serving("onnx_int8_fused", "onnx_runtime"),
    "openvino_fp32": Serving("openvino_fp32", "openvino_cpu"),
    "openvino_int8": Serving("openvino_int8", "openvino_cpu"),
    "openvino_int8_weights": Serving("openvino_int8_weights", "openvino_cpu"),
}

_ANSWERED: Final[dict[str, str]] = {
    "onnx_static_int8_percentile": "onnx_runtime",
    "onnx_static_int8_entropy": "onnx_runtime",
}
"""Modules that answer for formats without a latency of their own: their graph is another format's, with other scales."""


def unreadable(model: Path, version: str, error: Exception) -> DataError:
    """What a user is told of a file that a runtime refuses: torn, of another opset, or no model at all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = (lines[-1] if lines else type(error).__name__).replace(str(model), model.name)
    return DataError(f"{model.name} is no model that {version} can serve", remedy=f"export it again ({told[-300:]})")


def check_inputs(model: Path, names: Sequence[str]) -> None:
    """Refuse a model of something else.

    Raises:
        DataError: it asks for what no tokenizer gives.
    """
    foreign = [name for name in names if name not in INPUTS]
    if foreign or not names:
        raise DataError(
            f"{model.name} asks for {', '.join(foreign) or 'no input'}",
            remedy=f"give a classifier of token ids, whose inputs are among {', '.join(INPUTS)}",
        )


def runtime(variant: str) -> Runtime:
    """The module that serves `variant`; its framework is imported on this call."""
    return _module(SERVINGS[variant].module)


def runtime_of(export_format: str) -> Runtime:
    """The module that answers for an export format: that of the first variant that serves it, where one does."""
    serving = (serving.module for serving in SERVINGS.values() if serving.format == export_format)
    return _module(next(serving, None) or _ANSWERED[export_format])


def _module(name: str) -> Runtime:
    return cast("Runtime", import_module(f"{__name__}.{name}"))
