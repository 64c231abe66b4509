"""OpenVINO IR in fp32 by optimum-intel (seed, section 2.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optimum.intel import OVModelForSequenceClassification

MODEL = "openvino_model.xml"
NEEDS: tuple[str, ...] = ("torch_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Convert without compressing: `ov.save_model` alone would halve the weights to fp16, optimum-intel asks for fp32 here."""
    model = OVModelForSequenceClassification.from_pretrained(
        made["torch_fp32"], export=True, compile=False, load_in_8bit=False
    )
    model.save_pretrained(out)
