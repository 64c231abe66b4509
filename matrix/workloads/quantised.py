"""The checkpoint with every product of its encoder taken by a scheme.

As in the paper, those are the projections of attention and feed-forward (six a layer). The pooler and the classifier stay in fp32:
one token of each example passes them, and bitsandbytes leaves a model's head alone too. Attention's own products (queries with
keys, weights with values) are no layer of the model, and no scheme touches them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from matrix.workloads.schemes import SCHEMES, Product, Scheme, outliers
from matrix.workloads.serve import Inputs, Predict


class SchemeLinear(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """A linear layer whose product is a scheme's; it counts the features that decomposition takes out."""

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        super().__init__()
        self.product, self.bias = Product(scheme, linear.weight.detach()), linear.bias
        self.taken = self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Examples x tokens x features to examples x tokens x outputs."""
        if self.product.scheme.decomposed:
            taken = outliers(x)
            self.taken += int(taken.sum())
            self.seen += taken.numel()
        found = self.product(x)
        return found if self.bias is None else found + self.bias


class Quantised(NamedTuple):
    """A checkpoint that answers by a scheme, and its layers."""

    predict: Predict
    layers: tuple[SchemeLinear, ...]

    def outlier_share(self) -> float | None:
        """Share of the features, over examples and layers, that were taken out so far; None where none ever is."""
        seen = sum(layer.seen for layer in self.layers)
        return sum(layer.taken for layer in self.layers) / seen if seen else None


def load(variant: str, model: Path, *, threads: int) -> Quantised:
    """The checkpoint whose weights are the file `model`, by the scheme `variant`; as it is where that is none (fp32)."""
    torch.set_num_threads(threads)
    network = AutoModelForSequenceClassification.from_pretrained(model.parent, torch_dtype=torch.float32).eval()
    layers = _replace(network.base_model.encoder, SCHEMES[variant]) if variant in SCHEMES else ()

    def predict(inputs: Inputs) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            logits: npt.NDArray[np.float32] = network(**tensors).logits.numpy()
        return logits

    return Quantised(predict, layers)


def _replace(encoder: nn.Module, scheme: Scheme) -> tuple[SchemeLinear, ...]:
    """Put a scheme in the place of each linear layer below `encoder`."""
    places = [(name, one) for name, one in encoder.named_modules() if isinstance(one, nn.Linear)]
    layers = tuple(SchemeLinear(one, scheme) for _, one in places)
    for (name, _), layer in zip(places, layers, strict=True):
        encoder.set_submodule(name, layer)
    return layers
