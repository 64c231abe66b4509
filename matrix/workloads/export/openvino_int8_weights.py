"""OpenVINO IR with INT8 weights by NNCF; activations and products stay in fp32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optimum.intel import OVModelForSequenceClassification, OVWeightQuantizationConfig

MODEL = "openvino_model.xml"
NEEDS: tuple[str, ...] = ("openvino_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Compress the fp32 IR's weights."""
    model = OVModelForSequenceClassification.from_pretrained(
        made["openvino_fp32"], compile=False, quantization_config=OVWeightQuantizationConfig(bits=8)
    )
    model.save_pretrained(out)
