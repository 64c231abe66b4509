"""ONNX in fp32 by optimum: what most teams ship first (seed, section 2.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification

MODEL = "model.onnx"
NEEDS: tuple[str, ...] = ("torch_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Export with dynamic batch and length. optimum-onnx validates nothing here (modeling.py): `export_accuracy` does."""
    model = ORTModelForSequenceClassification.from_pretrained(
        made["torch_fp32"], export=True, provider="CPUExecutionProvider"
    )
    model.save_pretrained(out)
