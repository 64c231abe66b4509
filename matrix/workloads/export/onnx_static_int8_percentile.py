"""ONNX with static INT8 whose activation ranges leave out the outermost hundred-thousandth of the values that calibration shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxruntime.quantization.calibrate import CalibrationMethod

from matrix.workloads.export import static_int8

MODEL = "model_quantized.onnx"
NEEDS: tuple[str, ...] = ("onnx_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:
    """The percentile, bins and two-sided ranges that optimum asks for; onnxruntime alone would make every range symmetric."""
    static_int8.export(
        made["onnx_fp32"],
        out,
        calibration,
        CalibrationMethod.Percentile,
        percentile=99.999,
        num_bins=2048,
        symmetric=False,
    )
