"""ONNX with static INT8 whose activation ranges lose least of the values' distribution (KL divergence, as TensorRT calibrates).

onnxruntime 1.31 and optimum 2.1 ask for as many bins as there are levels (128), of which the whole range is the only choice:
their "entropy" is MinMax, were it not for utterances wider than the first. Four times as many leave a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxruntime.quantization.calibrate import CalibrationMethod

from matrix.workloads.export import static_int8

MODEL = "model_quantized.onnx"
NEEDS: tuple[str, ...] = ("onnx_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:
    """Bins are as wide as the first utterance's range asks, and become more where a later one is wider."""
    static_int8.export(
        made["onnx_fp32"], out, calibration, CalibrationMethod.Entropy, num_bins=512, num_quantized_bins=128
    )
