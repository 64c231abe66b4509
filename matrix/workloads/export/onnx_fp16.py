"""ONNX in fp16, inputs and logits aside: half the bytes. A CPU computes it in fp32 behind casts, so it is no faster there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

MODEL = "model.onnx"
NEEDS: tuple[str, ...] = ("onnx_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Convert the fp32 graph's weights and operators."""
    model = onnx.load(made["onnx_fp32"] / "model.onnx")
    onnx.save(convert_float_to_float16(model, keep_io_types=True), out / MODEL)
