"""What `torch.compile` can compile with here."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch


def compiler(device: str) -> str:
    """The backend of `torch.compile`: inductor where it finds all that it needs, else the graph alone.

    Inductor needs a C++ compiler, torch's and Python's headers (images have none of them); on CUDA triton and a C compiler.
    """
    on_cuda = device == "cuda"
    asked = [
        os.environ.get("CC" if on_cuda else "CXX", ""),
        *(("cc", "gcc", "clang") if on_cuda else ("g++", "clang++")),
    ]
    headers = [Path(sysconfig.get_path("include")) / "Python.h"]
    if not on_cuda:
        headers.append(Path(torch.__file__).parent / "include")
    found = any(name and shutil.which(name) for name in asked) and all(path.exists() for path in headers)
    return "inductor" if found and not (on_cuda and find_spec("triton") is None) else "aot_eager"
