"""The trained checkpoint itself: the reference that every export is compared with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

MODEL = "model.safetensors"
NEEDS: tuple[str, ...] = ("torch_fp32",)


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Copy the checkpoint, so that every format lies in the same place."""
    shutil.copytree(made["torch_fp32"], out, dirs_exist_ok=True)
