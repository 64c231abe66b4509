"""ONNX with dynamic INT8: weights quantised now, activations at each call (seed, section 2.6).

U8 activations and S8 weights without `reduce_range`: right on CPUs with VNNI. On plain AVX2 the sums may saturate
(onnxruntime #6004), which is why the ISA class is recorded beside every delta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

MODEL = "model_quantized.onnx"
NEEDS: tuple[str, ...] = ("onnx_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Quantise the fp32 graph; optimum's default operators include the embeddings."""
    quantizer = ORTQuantizer.from_pretrained(made["onnx_fp32"], file_name="model.onnx")
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
    quantizer.quantize(save_dir=out, quantization_config=config)
