"""Matrices with planted outliers, and what a scheme loses on their product.

They imitate what the paper found in models of 6.7B parameters (Dettmers et al. 2022, section 4): six features, about one in a
thousand, in three quarters of the tokens, of magnitudes 20 to 60 beside ordinary values of about 1. A feature keeps its sign;
whether all have the same one is what zero-point's gain hangs on, so both are drawn. NumPy's generator draws alike on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

import numpy as np
import torch

from matrix.workloads.schemes import SCHEMES, Product

Signs = Literal["one", "either"]

TOKENS, FEATURES, OUTPUTS = 32, 4096, 64
PLANTED: Final = 6
AFFECTED: Final = 0.75
SMALLEST, LARGEST = 20.0, 60.0
WEIGHT: Final = 0.02
"""Standard deviation of the weights, as transformers are initialised."""

DRAWS: Final = 10
"""Pairs of matrices: ten agree by chance in 2 x 0.5^10 = 0.2 % of cases, few enough for nine claims at once."""

CASES: Final[dict[str, Signs | None]] = {"product_error": "one", "two_sided_error": "either", "plain_error": None}
"""The signs of the outliers by the name of the error; None for no outlier at all."""


class Pair(NamedTuple):
    """Activations (tokens x features) and weights (outputs x features), fp32."""

    x: torch.Tensor
    weight: torch.Tensor


def draw(seed: int, signs: Signs | None) -> Pair:
    """Gaussian activations and weights of this seed; whatever the signs, all else in them is the same."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((TOKENS, FEATURES))
    weight = WEIGHT * random.standard_normal((OUTPUTS, FEATURES))
    where = random.choice(FEATURES, PLANTED, replace=False)
    sizes = random.uniform(SMALLEST, LARGEST, (TOKENS, PLANTED))
    affected = random.random((TOKENS, PLANTED)) < AFFECTED
    halves = random.permutation(np.repeat([-1.0, 1.0], PLANTED // 2))
    if signs is not None:
        planted = sizes * (-1.0 if signs == "one" else halves)
        x[:, where] = np.where(affected, planted, x[:, where])
    return Pair(torch.from_numpy(x).float(), torch.from_numpy(weight).float())


def relative_error(pair: Pair, product: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Frobenius norm of the product's error by that of the product, which is taken in float64."""
    exact = pair.x.double() @ pair.weight.double().mT
    return float(torch.linalg.norm(product(pair.x).double() - exact) / torch.linalg.norm(exact))


def _by(variant: str, pair: Pair) -> Callable[[torch.Tensor], torch.Tensor]:
    """The product as a variant takes it; a name that is no scheme's is fp32's."""
    if variant in SCHEMES:
        return Product(SCHEMES[variant], pair.weight)
    return lambda x: x @ pair.weight.mT


def errors(variant: str) -> Iterator[tuple[str, float]]:
    """Each case's errors: draw by draw as `case:number`, and their mean as `case`."""
    for case, signs in CASES.items():
        pairs = [draw(seed, signs) for seed in range(DRAWS)]
        found = [relative_error(pair, _by(variant, pair)) for pair in pairs]
        yield case, float(np.mean(found))
        yield from ((f"{case}:{number}", error) for number, error in enumerate(found))
