"""Each scheme is its definition: by hand, beside another formulation, and on a student that a run really trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from matrix.findings import findings_of
from matrix.run import failures, run
from matrix.schemes import PERPLEXITIES
from matrix.store import load
from matrix.workloads import planted, quantised
from matrix.workloads.examples import inputs_of
from matrix.workloads.models import build_student
from matrix.workloads.schemes import SCHEMES, Codes, Product, Scheme, integers, quantise
from tests.real.conftest import Finished
from tests.real.tiny import PROFILE, Silent, request, targets

pytestmark = pytest.mark.frameworks
Floats = npt.NDArray[np.float64]


def matrices(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (5 x 12) with an outlier feature and a weight (7 x 12) that is not centred."""
    random = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(5, 12, generator=random), torch.randn(7, 12, generator=random) + 0.5
    x[:4, 3] += 20
    return x, weight


def rounded(values: Floats, *, shifted: bool) -> Floats:
    """What one scale lets values be: multiples of a step, 254 of which span the range or twice the largest magnitude."""
    low, high = (min(values.min(), 0.0), max(values.max(), 0.0)) if shifted else (0.0, 2 * np.abs(values).max())
    step = (high - low) / 254
    return np.asarray(np.round(values / step) * step)


def by_definition(scheme: Scheme, x: Floats, weight: Floats) -> Floats:
    """The scheme in floating point throughout: what is rounded, multiplied; what is taken out, in fp16."""
    taken = (np.abs(x) >= 6.0).any(axis=0) & scheme.decomposed
    inner = np.where(taken, 0.0, x)
    ours = [rounded(row, shifted=scheme.shifted) for row in (inner if scheme.by_row else [inner])]
    theirs = [rounded(row, shifted=scheme.shifted) for row in (weight if scheme.by_output else [weight])]
    outer = np.where(taken, x, 0.0).astype(np.float16).astype(np.float64) @ weight.astype(np.float16).T
    return np.vstack(ours) @ np.vstack(theirs).T + outer


def test_the_lectures_example() -> None:
    """15, 0.1, 0.02, 1.0 and 0.01 become 127, 1, 0, 8 and 0: half a step is 0.059, and all below it is lost."""
    codes = quantise(torch.tensor([[15, 0.1, 0.02, 1.0, 0.01]]), (-1,), shifted=False)
    assert codes.codes.dtype == torch.int8
    assert codes.codes.tolist() == [[127, 1, 0, 8, 0]]
    assert codes.scale.item() == 15 / 127


def test_a_zero_point_uses_the_whole_range() -> None:
    """-1 to 1.54 in steps of 0.01: -127 to 127, zero at -27; of positive values zero is the lowest."""
    codes = quantise(torch.tensor([[-1.0, 0.0, 1.54]], dtype=torch.float64), (-1,), shifted=True)
    assert (codes.codes.tolist(), codes.zero.item()) == ([[-127, -27, 127]], -27)
    above = quantise(torch.tensor([[1.27, 2.54]], dtype=torch.float64), (-1,), shifted=True)
    assert (above.codes.tolist(), above.zero.item()) == ([[0, 127]], -127)
    assert quantise(torch.zeros(1, 3), (-1,), shifted=True).codes.tolist() == [[-127] * 3]


def test_sums_of_codes_are_exact() -> None:
    """4,096 products, as Python's integers say by the sum of codes and its three corrections: fp32 would have rounded them."""
    random, n = np.random.default_rng(3), 4096
    row, column = (random.integers(100, 128, n) for _ in range(2))
    ours, theirs = (
        integers(Codes(torch.from_numpy(codes).to(torch.int8), torch.ones(1).double(), torch.tensor([zero]).double()))
        for codes, zero in ((row, -127), (column, -126))
    )
    summed = sum(int(a) * int(b) for a, b in zip(row, column, strict=True))
    expected = summed + 127 * int(column.sum()) + 126 * int(row.sum()) + n * 127 * 126
    assert (ours @ theirs).item() == expected
    assert (ours.float() @ theirs.float()).item() != expected


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_is_its_definition(name: str) -> None:
    """In integers as in floating point with rounded values; a batch is as many matrices."""
    x, weight = matrices()
    other, _ = matrices(2)
    expected = [by_definition(SCHEMES[name], one.double().numpy(), weight.double().numpy()) for one in (x, other)]
    found = Product(SCHEMES[name], weight)(torch.stack([x, other]))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=2e-6, atol=2e-6)


def test_decomposition_ends_in_either_product() -> None:
    """Where every feature is an outlier it is fp16's, where none is the vector-wise one, bit for bit."""
    x, weight = matrices()
    every, none = 6 + x.abs(), x.clamp(-5.9, 5.9)
    whole = every.half().float() @ weight.half().float().mT
    for name, plain in (("llm_int8", "absmax_vector_wise"), ("llm_int8_zeropoint", "zeropoint_vector_wise")):
        assert torch.equal(Product(SCHEMES[name], weight)(every), whole)
        assert torch.equal(Product(SCHEMES[name], weight)(none), Product(SCHEMES[plain], weight)(none))


def test_planted_outliers_cost_what_the_lecture_says_and_why() -> None:
    """Finer scales lose less and decomposition least; zero-point halves one-sided outliers' error and no other's."""
    error = {
        (name, signs): planted.relative_error(pair, Product(scheme, pair.weight))
        for signs in ("one", "either", None)
        for pair in [planted.draw(0, signs)]
        for name, scheme in SCHEMES.items()
    }
    one = {name: value for (name, signs), value in error.items() if signs == "one"}
    assert one["llm_int8"] < one["absmax_row_wise_decomposed"] < one["absmax_row_wise"] < one["absmax"]
    assert error["absmax_vector_wise", None] < error["absmax_row_wise", None]
    assert one["llm_int8"] < 0.5 * min(value for name, value in one.items() if not SCHEMES[name].decomposed)
    assert error["zeropoint", "one"] < 0.7 * error["absmax", "one"]
    assert error["zeropoint", "either"] > 0.85 * error["absmax", "either"]
    assert error["llm_int8", None] == error["absmax_vector_wise", None]


def test_only_the_encoder_is_quantised(tmp_path: Path) -> None:
    """Six products a layer; the answers move with the scheme, and only decomposition says what it took out."""
    student = build_student(PROFILE.recipe, ("a", "b", "c"))
    for weights in student.parameters():
        weights.data.mul_(8)  # large enough for outliers
    student.save_pretrained(tmp_path)
    asked = inputs_of(np.random.default_rng(1).integers(5, 2000, (3, 9)))
    made = {name: quantised.load(name, tmp_path / "model.safetensors", threads=1) for name in PERPLEXITIES}
    answers = {name: one.predict(asked).tobytes() for name, one in made.items()}
    assert len(set(answers.values())) == len(PERPLEXITIES)
    for name, scheme in SCHEMES.items():
        assert len(made[name].layers) == 6 * PROFILE.recipe.student.layers
        assert (made[name].outlier_share() is not None) == scheme.decomposed
    assert 0 < (made["llm_int8"].outlier_share() or 0) < 1
    assert (made["fp32"].layers, made["fp32"].outlier_share()) == ((), None)


def test_a_run_studies_every_scheme(finished: Finished) -> None:
    """Nothing is lost; each loses something beside fp32 on planted matrices, and the student answers nearly as it does."""
    asked = request(finished.root, launches=1, suites=("quantization_schemes",))
    evidence = load(run(asked, targets(), Silent()))
    assert failures(evidence.bundle.launches) == 0
    found = {(one.cell.variant, one.metric): one.value for one in findings_of(evidence)}
    assert {variant for variant, metric in found if metric == "accuracy"} == set(PERPLEXITIES)
    assert {variant for variant, metric in found if metric == "mean_kl"} == set(SCHEMES)
    for name, scheme in SCHEMES.items():
        assert (found["fp32", "product_error"] or 1.0) < (found[name, "product_error"] or 0.0) < 0.3
        assert (found[name, "flip_rate"] or 0.0) <= 0.05
        assert ((name, "outlier_share") in found) == scheme.decomposed
