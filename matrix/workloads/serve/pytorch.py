"""What PyTorch's runtimes share: the checkpoint as a network, and the call of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from matrix.workloads.serve import Inputs, Predict, unreadable


def network(model: Path) -> torch.nn.Module:
    """The checkpoint in fp32 whose weights are the file `model`.

    Raises:
        DataError: it is no classifier's checkpoint.
    """
    try:
        loaded = AutoModelForSequenceClassification.from_pretrained(model.parent, torch_dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unreadable(model, f"transformers {transformers.__version__}", error) from error
    return loaded.eval()


def served(network: torch.nn.Module, device: str) -> Predict:
    """The function that answers by `network`, which lies on `device`."""

    def predict(inputs: Inputs) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
            logits: npt.NDArray[np.float32] = network(**tensors).logits.cpu().numpy()  # the copy waits for the device
        return logits

    return predict
