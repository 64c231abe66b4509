"""A training step that every CPU can do in fp64 within milliseconds: what a device's own step is compared with.

The operators and their order are those of transformers' BERT under distillation. transformers itself is not asked: its
import takes 4 s (version 4.57.6), and this runs before each launch. Seeds are fixed, so that two devices have one reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.sample import Tensor

Weights = Mapping[str, torch.Tensor]

LAYERS: Final = 2
WIDTH: Final = 64
HIDDEN: Final = 128
SHAPES: Final = ((5, 17), (8, 40))
"""(batch, length): neither length is a multiple of 32, where vectorised and tiled kernels have their remainders."""
BATCHES: Final = (1, 2, 3)

_HEADS, _CLASSES, _VOCABULARY, _LONGEST = 4, 10, 200, 64
_TEMPERATURE, _ALPHA = 2.0, 0.5


class Batch(NamedTuple):
    """Token ids (batch x length), which of them are no padding (None: all), labels and the teacher's logits."""

    ids: torch.Tensor
    mask: torch.Tensor | None
    labels: torch.Tensor
    taught: torch.Tensor

    def on(self, device: str, dtype: torch.dtype = torch.float32) -> Batch:
        """The batch on a device; `dtype` is that of the teacher's logits."""
        mask = None if self.mask is None else self.mask.to(device)
        return Batch(self.ids.to(device), mask, self.labels.to(device), self.taught.to(device, dtype))


class Step(NamedTuple):
    """What one step computed; gradients by the weight's name."""

    logits: torch.Tensor
    gradients: dict[str, torch.Tensor]

    @property
    def gradient(self) -> torch.Tensor:
        """All gradients as one vector."""
        return torch.cat([gradient.flatten() for gradient in self.gradients.values()])


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Normal numbers, fp32, drawn on the CPU: equal for equal seeds, whatever device they go to."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from {"words": (_VOCABULARY, WIDTH), "places": (_LONGEST, WIDTH)}.items()
    yield from {"norm": (WIDTH,), "norm_bias": (WIDTH,)}.items()
    for layer in range(LAYERS):
        for name in ("query", "value", "output"):
            yield from {f"{name}{layer}": (WIDTH, WIDTH), f"{name}_bias{layer}": (WIDTH,)}.items()
        yield (
            f"key{layer}",
            (WIDTH, WIDTH),
        )  # without a bias: softmax cancels it, so that its gradient is noise around 0
        yield from {f"up{layer}": (HIDDEN, WIDTH), f"up_bias{layer}": (HIDDEN,)}.items()
        yield from {f"down{layer}": (WIDTH, HIDDEN), f"down_bias{layer}": (WIDTH,)}.items()
        for name in ("attended", "ended"):
            yield from {f"{name}{layer}": (WIDTH,), f"{name}_bias{layer}": (WIDTH,)}.items()
    yield from {"head": (_CLASSES, WIDTH), "head_bias": (_CLASSES,)}.items()


def weights(device: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The classifier's weights as leaves on a device: fp32 numbers, also where `dtype` is wider."""
    made = {}
    for seed, (name, shape) in enumerate(_shapes()):
        drawn = normal(*shape, seed=seed) / math.sqrt(shape[-1])
        made[name] = drawn.to(device, dtype, copy=True).requires_grad_()
    return made


def batch(size: int, length: int, *, seed: int, padded: bool = False) -> Batch:
    """A batch on the CPU, equal for equal arguments; where `padded`, row n is a quarter shorter than row n - 1."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(_VOCABULARY, (size, length), generator=generator)
    labels = torch.randint(_CLASSES, (size,), generator=generator)
    lengths = torch.tensor([int(length * 0.75**row) for row in range(size)])
    mask = torch.arange(length)[None] < lengths[:, None] if padded else None
    return Batch(ids, mask, labels, 3 * normal(size, _CLASSES, seed=seed))


def _norm(x: torch.Tensor, w: Weights, name: str, layer: object = "") -> torch.Tensor:
    # around 1, as gains are: the drawn weights are small numbers around 0
    return F.layer_norm(x, (WIDTH,), 1 + w[f"{name}{layer}"], w[f"{name}_bias{layer}"])


def _attended(x: torch.Tensor, w: Weights, layer: int, mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    def heads(name: str) -> torch.Tensor:
        made = F.linear(x, w[f"{name}{layer}"], w.get(f"{name}_bias{layer}"))
        return made.view(*x.shape[:2], _HEADS, -1).transpose(1, 2)

    seen = None if mask is None else mask[:, None, None]
    found = F.scaled_dot_product_attention(
        heads("query"), heads("key"), heads("value"), attn_mask=seen, dropout_p=dropout
    )
    return F.linear(found.transpose(1, 2).reshape(x.shape), w[f"output{layer}"], w[f"output_bias{layer}"])


def _block(x: torch.Tensor, w: Weights, layer: int, mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    x = _norm(x + F.dropout(_attended(x, w, layer, mask, dropout), dropout), w, "attended", layer)
    up = F.gelu(F.linear(x, w[f"up{layer}"], w[f"up_bias{layer}"]))
    down = F.linear(up, w[f"down{layer}"], w[f"down_bias{layer}"])
    return _norm(x + F.dropout(down, dropout), w, "ended", layer)


def logits(w: Weights, given: Batch, dropout: float = 0.0) -> torch.Tensor:
    """Logits (batch x classes) of the classifier with these weights."""
    x = F.embedding(given.ids, w["words"]) + w["places"][: given.ids.shape[1]]
    x = F.dropout(_norm(x, w, "norm"), dropout)
    for layer in range(LAYERS):
        x = _block(x, w, layer, given.mask, dropout)
    return F.linear(x[:, 0], w["head"], w["head_bias"])


def _loss(student: torch.Tensor, given: Batch) -> torch.Tensor:
    """The distillation loss: T^2 KL to the teacher, and the labels' cross entropy."""
    softened = F.log_softmax(student / _TEMPERATURE, -1), F.softmax(given.taught / _TEMPERATURE, -1)
    taught = _TEMPERATURE**2 * F.kl_div(*softened, reduction="batchmean")
    return _ALPHA * taught + (1 - _ALPHA) * F.cross_entropy(student, given.labels)


def step(w: Weights, given: Batch, dropout: float = 0.0) -> Step:
    """One forward and backward pass; gradients that the weights had before are forgotten."""
    for weight in w.values():
        weight.grad = None
    found = logits(w, given, dropout)
    _loss(found, given).backward()
    return Step(found.detach(), {name: weight.grad for name, weight in w.items() if weight.grad is not None})


def reference(given: Batch) -> Step:
    """The step in fp64 on the CPU."""
    return step(weights("cpu", torch.float64), given.on("cpu", torch.float64))


def rounding(dtype: torch.dtype, terms: int = 1) -> float:
    """The relative error that a sum of `terms` products in `dtype` may have: four times the walk of its rounding errors.

    They add like a random walk, sqrt(terms) eps (Higham, Accuracy and Stability of Numerical Algorithms, section 2.8);
    four times that leaves room for another order of summation. A wrong kernel is off by the values themselves: by about 1.
    """
    return float(4 * math.sqrt(terms) * torch.finfo(dtype).eps)


def _rows(gradients: Mapping[str, torch.Tensor] | torch.Tensor) -> Iterator[torch.Tensor]:
    """Every tensor as a matrix of its last dimension's rows."""
    found = [gradients] if isinstance(gradients, torch.Tensor) else list(gradients.values())
    return (tensor.detach().cpu().double().reshape(-1, tensor.shape[-1]) for tensor in found)


def _number(value: torch.Tensor) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


def _compared(
    name: str,
    taken: tuple[int, Batch],
    three: tuple[Mapping[str, torch.Tensor] | torch.Tensor, ...],
) -> Tensor:
    """One tensor of a device's step and of its rerun beside the reference's."""
    found, again, right = (list(_rows(one)) for one in three)
    flat = [torch.cat([part.flatten() for part in one]) for one in (found, again, right)]
    # the deepest sums: a hidden layer's, over every layer, forward
    tolerance = rounding(torch.float32, HIDDEN * LAYERS) * float(flat[2].abs().max())
    bad = sum(
        int((~((a - b).abs() <= 10 * tolerance)).any(-1).sum()) for a, b in zip(found, right, strict=True)
    )  # so asked, a row with a NaN is a bad one
    number, given = taken
    return Tensor(
        name=name,
        shape=tuple(given.ids.shape),
        batch=number,
        elements=flat[2].numel(),
        rmse=_number((flat[0] - flat[2]).square().mean().sqrt()),
        tolerance=tolerance,
        corrupted_rows=bad,
        rerun=_number((flat[0] - flat[1]).abs().max()),
    )


def tensors(device: str) -> Iterator[Tensor]:
    """Logits and gradient of three batches of two shapes on this device, each beside its fp64 reference."""
    w = weights(device)
    for number in BATCHES:
        for size, length in SHAPES:
            given = batch(size, length, seed=1000 * number + length)
            found, again, right = step(w, given.on(device)), step(w, given.on(device)), reference(given)
            yield _compared("logits", (number, given), (found.logits, again.logits, right.logits))
            yield _compared("gradient", (number, given), (found.gradients, again.gradients, right.gradients))
