"""PyTorch eager in fp32: the reference runtime."""

from __future__ import annotations

from pathlib import Path

import torch

from matrix.workloads.serve import Predict, pytorch


def load(model: Path, *, device: str, threads: int) -> Predict:
    """Serve the checkpoint whose weights are the file `model`.

    Raises:
        DataError: it is no classifier's checkpoint.
    """
    torch.set_num_threads(threads)
    return pytorch.served(pytorch.network(model).to(device), device)
