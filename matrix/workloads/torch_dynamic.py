"""PyTorch's dynamic quantisation, for the format that is made by it and the runtime that loads it."""

from __future__ import annotations

import warnings

import torch
from torch.ao.quantization import quantize_dynamic


def quantised(network: torch.nn.Module) -> torch.nn.Module:
    """A copy with weights of linear layers in INT8, one scale a layer; activations are quantised at each call, in seven bits.

    Seven, as torch.ao asks of its kernels: right on CPUs without VNNI too.
    """
    with warnings.catch_warnings():
        # torch 2.13 says that all of torch.ao.quantization goes in 2.10
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        made: torch.nn.Module = quantize_dynamic(network, {torch.nn.Linear}, dtype=torch.qint8)
    return made
