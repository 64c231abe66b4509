"""Export formats: one module a format and a Protocol. The module is the plug-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast


class Exporter(Protocol):
    """What a format's module offers. `MODEL` is the file that a runtime loads; `NEEDS` names formats made before it."""

    MODEL: str
    NEEDS: tuple[str, ...]

    def export(self, made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:
        """Write the format into the empty folder `out`.

        Args:
            made: folder of each format in NEEDS; "torch_fp32" is the trained checkpoint.
            out: an empty folder.
            calibration: encoded training examples (input_ids, token_type_ids, attention_mask), unpadded.
        """


_FORMATS: Final = (
    "torch_fp32",
    "torch_int8",
    "onnx_fp32",
    "onnx_int8",
    "onnx_fp16",
    "onnx_static_int8",
    "onnx_static_int8_percentile",
    "onnx_static_int8_entropy",
    "onnx_fused",
    "onnx_int8_fused",
    "openvino_fp32",
    "openvino_int8",
    "openvino_int8_weights",
)
"""Modules of this package, each after those that it needs."""

EXACT: Final = frozenset({"torch_fp32", "onnx_fp32", "onnx_fused", "openvino_fp32"})
"""Formats that answer as the checkpoint does, to rounding: proven before anything is made from them."""


def exporter(name: str) -> Exporter:
    """The module of format `name`; its frameworks are imported on this call."""
    return cast("Exporter", import_module(f"{__name__}.{name}"))


def formats() -> tuple[str, ...]:
    """Every format, in an order in which each comes after those it needs."""
    return _FORMATS


def artifact_bytes(folder: Path, model: str) -> int:
    """Bytes that a deployment of the model ships: the model file and the weights beside it, no configuration or tokenizer."""
    beside = {model, f"{model}.data", str(Path(model).with_suffix(".bin"))}
    return sum((folder / name).stat().st_size for name in beside if (folder / name).exists())
