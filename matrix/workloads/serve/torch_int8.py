"""PyTorch's own dynamic INT8: linear layers in INT8, all else eager in fp32."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from matrix.errors import DataError
from matrix.workloads.serve import Predict, pytorch, unreadable
from matrix.workloads.torch_dynamic import quantised


def load(model: Path, *, device: str, threads: int) -> Predict:
    """Serve the quantised weights in the file `model`.

    Raises:
        DataError: the device is not the CPU, or the file holds other weights than its configuration asks for.
    """
    if device != "cpu":
        raise DataError(f"torch.ao has no INT8 kernels for {device}", remedy="measure it on a CPU target")
    torch.set_num_threads(threads)
    try:
        empty = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(model.parent))
        network = quantised(empty)
        with warnings.catch_warnings():
            # torch 2.13 says it of its own quantised tensors
            warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
            network.load_state_dict(torch.load(model, weights_only=True))
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise unreadable(model, f"PyTorch {torch.__version__}", error) from error
    return pytorch.served(network.eval(), device)
