"""ONNX with static INT8: activation ranges from calibration utterances (MinMax), quantise and dequantise nodes in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxruntime.quantization.calibrate import CalibrationMethod

from matrix.workloads.export import static_int8

MODEL = "model_quantized.onnx"
NEEDS: tuple[str, ...] = ("onnx_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:
    """Every value that calibration shows is in range: one outlier widens it for all."""
    static_int8.export(made["onnx_fp32"], out, calibration, CalibrationMethod.MinMax)
