"""Products by the INT8 schemes of LLM.int8() (Dettmers et al., NeurIPS 2022): only rounding to int8 loses anything.

Codes are real int8 values. Their products are summed exactly, whatever the order: a factor is a code less its zero point, so a
product is below 2^16, and float64 holds every integer below 2^53: 2^37 products (fp32 would end at 256, and torch has no fast
product of int32 on CPUs). Scales are float64, so that a scheme's error is its own and not a scale's.

Refuses to be fast: it says what a scheme costs in accuracy, never in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

LARGEST: Final = 127
"""Codes lie in [-127, 127], zero-point's too (the paper's equations 1 and 4)."""

OUTLIER: Final = 6.0
"""A feature with a value of at least this magnitude is taken out by decomposition (the paper's alpha, section 3.2)."""

_MATRIX: Final = (-2, -1)
_ROW: Final = (-1,)


@dataclass(frozen=True)
class Scheme:
    """What has a scale of its own, whether codes are shifted (zero-point), and whether outlier features are taken out.

    `by_row`: each token of the activations, else their whole matrix. `by_output`: each output of the weights (with `by_row` the
    paper's "vector-wise"), else their whole matrix.
    """

    shifted: bool = False
    by_row: bool = False
    by_output: bool = False
    decomposed: bool = False


SCHEMES: Final[dict[str, Scheme]] = {
    "absmax": Scheme(),
    "zeropoint": Scheme(shifted=True),
    "absmax_row_wise": Scheme(by_row=True),
    "absmax_vector_wise": Scheme(by_row=True, by_output=True),
    "zeropoint_vector_wise": Scheme(shifted=True, by_row=True, by_output=True),
    "absmax_row_wise_decomposed": Scheme(by_row=True, decomposed=True),
    "llm_int8": Scheme(by_row=True, by_output=True, decomposed=True),
    "llm_int8_zeropoint": Scheme(shifted=True, by_row=True, by_output=True, decomposed=True),
}
"""By variant, in the order of the paper's table 1."""


class Codes(NamedTuple):
    """`values` are about `scale * (codes - zero)`; codes are int8, `scale` and `zero` float64 and broadcast over them."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor


def quantise(values: torch.Tensor, over: tuple[int, ...], *, shifted: bool) -> Codes:
    """The codes of `values`, of which those along the dimensions `over` share a scale.

    Absmax maps the largest magnitude to 127. Zero-point maps [lowest, highest] to [-127, 127]; both ends are stretched to zero
    where it lies outside, so that zero has a code of its own (Jacob et al., CVPR 2018, section 2.1).
    """
    exact = values.double()
    if shifted:
        low, high = exact.amin(over, keepdim=True).clamp(max=0), exact.amax(over, keepdim=True).clamp(min=0)
        scale = _no_zero((high - low) / (2 * LARGEST))
        zero = -LARGEST - torch.round(low / scale)
    else:
        scale = _no_zero(exact.abs().amax(over, keepdim=True) / LARGEST)
        zero = torch.zeros_like(scale)
    # two roundings of a shifted value may miss the end of the range by one
    codes = (torch.round(exact / scale) + zero).clamp(-LARGEST, LARGEST)
    return Codes(codes.to(torch.int8), scale, zero)


def _no_zero(scale: torch.Tensor) -> torch.Tensor:
    """What is zero throughout has any scale."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def integers(values: Codes) -> torch.Tensor:
    """`codes - zero`, the paper's 16-bit factors (equation 5), as float64."""
    found: torch.Tensor = values.codes.double() - values.zero
    return found


def outliers(x: torch.Tensor) -> torch.Tensor:
    """Which features (... x 1 x features) reach `OUTLIER` in any token of their matrix."""
    return (x.abs() >= OUTLIER).any(-2, keepdim=True)


class Product:
    """`x @ weight.T` by one scheme; the weights (outputs x features, fp32) are quantised once, all of them, as bitsandbytes does.

    Leading dimensions of `x` are matrices of their own: of a batch (examples x tokens x features) each example has its own
    scales and its own outlier features, so no answer depends on the examples beside it.
    """

    def __init__(self, scheme: Scheme, weight: torch.Tensor) -> None:
        self.scheme = scheme
        codes = quantise(weight, _ROW if scheme.by_output else _MATRIX, shifted=scheme.shifted)
        self._integers, self._scale = integers(codes).mT, codes.scale.mT
        self._half = weight.half().float().mT

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The product, fp32: ... x tokens x features to ... x tokens x outputs.

        Outlier features are multiplied in fp16 with sums in fp32, as tensor cores do; the others' int8 product sees zeros there.
        """
        taken = outliers(x) if self.scheme.decomposed else None
        if taken is None or not taken.any():
            return self._int8(x).float()
        outer = x.masked_fill(~taken, 0.0).half().float() @ self._half
        return (self._int8(x.masked_fill(taken, 0.0)) + outer.double()).float()

    def _int8(self, x: torch.Tensor) -> torch.Tensor:
        codes = quantise(x, _ROW if self.scheme.by_row else _MATRIX, shifted=self.scheme.shifted)
        return (integers(codes) @ self._integers) * codes.scale * self._scale
