"""What `matrix export` asks of the process that exports, and what stands beside the model that it made."""

from __future__ import annotations

from typing import Final, Literal

from matrix.strict import Strict

MANIFEST: Final = "manifest.json"
"""The file beside an exported model that says what it is."""

Format = Literal["onnx", "onnx-int8"]
"""What users may ask for: fused fp32, and dynamic INT8 from it."""


class Export(Strict):
    """One process' orders: the student, a folder or hub id, and the folder that the export appears in, whole."""

    student: str
    format: Format
    out: str
    threads: int


class ExportedFile(Strict):
    """One file of an export."""

    bytes: int
    sha256: str


class Manifest(Strict):
    """What an exported model is.

    `made_by` is the matrix' name of the format, `fp32_max_dlogit` the largest difference of a logit between the fp32 graph that
    it is made from and the checkpoint, on random ids with and without padding; `inputs` are int64, batch x length.
    """

    format: Format
    made_by: str
    model: str
    inputs: tuple[str, ...]
    classes: tuple[str, ...]
    longest: int
    student_sha256: str
    fp32_max_dlogit: float
    packages: dict[str, str | None]
    files: dict[str, ExportedFile]
