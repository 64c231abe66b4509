"""The student's shape as an ONNX INT8 file, with random weights: a latency does not depend on their values."""

from __future__ import annotations

from pathlib import Path

import torch

from matrix.profile import Recipe
from matrix.workloads.export import onnx_fp32, onnx_int8
from matrix.workloads.models import build_student


def student_int8(folder: Path) -> Path:
    """Build, export and quantise TinyBERT 4L-312D under `folder`; the model file."""
    torch.manual_seed(0)
    made = {name: folder / name for name in ("torch_fp32", "onnx_fp32", "onnx_int8")}
    recipe = Recipe(train_examples=1, teacher_epochs=1, student_epochs=1)
    build_student(recipe, tuple(f"class {i}" for i in range(10))).save_pretrained(made["torch_fp32"])
    onnx_fp32.export(made, made["onnx_fp32"], [])
    onnx_int8.export(made, made["onnx_int8"], [])
    return made["onnx_int8"] / onnx_int8.MODEL
