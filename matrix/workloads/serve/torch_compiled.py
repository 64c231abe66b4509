"""PyTorch compiled by Inductor, in fp32: the first call compiles, which takes a C++ compiler and tens of seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch._inductor import config

from matrix.errors import DataError
from matrix.workloads.inductor import compiler
from matrix.workloads.serve import Predict, pytorch


def load(model: Path, *, device: str, threads: int) -> Predict:
    """Serve the checkpoint whose weights are the file `model`, compiled once for every length.

    Raises:
        DataError: Inductor cannot compile here, or it is no classifier's checkpoint.
    """
    if compiler(device) != "inductor":
        raise DataError(
            "torch.compile cannot compile here: it finds no compiler, or no headers of Python or torch",
            remedy="install g++ (on CUDA gcc and triton) and Python's headers, or measure torch_eager",
        )
    torch.set_num_threads(threads)
    config.compile_threads = 1  # torch 2.13 leaves a pool of idle compiling processes beside what is timed
    network = pytorch.network(model).to(device)
    # dynamic from the first call: a second length would compile anew, in the middle of a measurement
    return pytorch.served(torch.compile(network, dynamic=True, fullgraph=True), device)
