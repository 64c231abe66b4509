"""PyTorch's own dynamic INT8 of the linear layers; embeddings stay in fp32, and with them most of the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from matrix.workloads.torch_dynamic import quantised

MODEL = "model_quantized.pt"
NEEDS: tuple[str, ...] = ("torch_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Quantise the checkpoint and save its weights beside its configuration."""
    network = AutoModelForSequenceClassification.from_pretrained(made["torch_fp32"], torch_dtype=torch.float32)
    torch.save(quantised(network.eval()).state_dict(), out / MODEL)
    network.config.save_pretrained(out)
