"""OpenVINO IR with full post-training INT8 by NNCF: weights and activations, calibrated on training utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from optimum.intel import OVConfig, OVModelForSequenceClassification, OVQuantizationConfig, OVQuantizer

MODEL = "openvino_model.xml"
NEEDS: tuple[str, ...] = ("openvino_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:
    """Quantise the fp32 IR. Calibration keeps each utterance's own length: padding would widen the activation ranges."""
    model = OVModelForSequenceClassification.from_pretrained(made["openvino_fp32"], compile=False)
    rows = Dataset.from_list([dict(row) for row in calibration])
    config = OVConfig(quantization_config=OVQuantizationConfig(bits=8, num_samples=len(calibration)))
    OVQuantizer.from_pretrained(model).quantize(
        ov_config=config, calibration_dataset=rows, save_directory=out, batch_size=1
    )
