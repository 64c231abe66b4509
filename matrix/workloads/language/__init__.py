"""The response student as it is exported and served: trained on half of the answered questions, judged on the other half."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from matrix.errors import EvidenceError
from matrix.workloads.launch import Launch

REFERENCE: Final = "torch_fp32"
"""The checkpoint itself, which the files are compared with."""

PLAIN: Final = "gguf_f32"
"""What is written here and proven to answer as the checkpoint does; it does not ship."""

TYPES: Final[Mapping[str, str]] = {
    "gguf_f16": "LLAMA_FTYPE_MOSTLY_F16",
    "gguf_q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "gguf_q6_k": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "gguf_q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
}
"""What ships, by llama.cpp's names of the types, from fine to coarse."""

MODEL: Final = "model.gguf"


class Student(NamedTuple):
    """The student that a launch was given: the folder of its checkpoint, and that of its files, a folder a variant."""

    checkpoint: Path
    files: Path

    def file(self, variant: str) -> Path:
        """The file that ships as `variant`; of the reference its weights.

        Raises:
            EvidenceError: it was not made.
        """
        place = self.checkpoint / "model.safetensors" if variant == REFERENCE else self.files / variant / MODEL
        if not place.is_file():
            raise EvidenceError(
                f"no {variant} was made of the response student: llama-cpp-python is not installed here",
                remedy="pip install 'distill-matrix[llama]': it is built from source, which takes a C++ compiler and minutes",
            )
        return place


def prepared(launch: Launch) -> Student:
    """The response student of a launch.

    Raises:
        EvidenceError: none was prepared.
    """
    response = launch.prepared.response
    if response is None or response.student is None or response.files is None:
        raise EvidenceError("no response student was prepared", remedy="prepare the workload again")
    return Student(launch.cache.folder("language", response.student), launch.cache.folder("language", response.files))
