"""Tensors of the first steps beside an authority's, and students of several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from matrix.compare import devices
from matrix.findings import findings_of
from matrix.sample import Tensor
from matrix.steps import Seeded, tensors, trained
from tests.making import RAW, evidence, policy, with_battery

MARGINS = policy().margins
PLACES = [(shape, batch) for shape in ((16, 32), (8, 64)) for batch in range(3)]


def tensor(shape: tuple[int, ...] = (16, 32), batch: int = 0, **changes: object) -> Tensor:
    """Logits with an RMSE of 1e-6 and a tolerance of 1e-5: bound 2e-6 + 1e-6, or 4e-6 below 1,000 elements."""
    fields = {"rmse": 1e-6, "tolerance": 1e-5, "corrupted_rows": 0, "rerun": 0.0, "elements": 5_000}
    return Tensor(name="logits", shape=shape, batch=batch, **(fields | changes))


def battery(**changes: object) -> list[Tensor]:
    """Three batches of two shapes, the last of which is changed."""
    return [*(tensor(*place) for place in PLACES[:-1]), tensor(*PLACES[-1], **changes)]


def test_tensors_as_exact_as_the_authoritys_confirm() -> None:
    """Deterministic: p is 0."""
    found = tensors(battery(), battery(), MARGINS)
    assert (found.answer, found.p) == ("confirmed", 0.0)
    assert [reason.number for reason in found.reasons] == [
        "logits of batch 0: 0.33 times its bound, the most of 6",
        "0 rows in 0 tensors",
        "0 of 6 tensors change when the step is done again",
    ]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"rmse": 3.0e-6}, "confirmed"),
        ({"rmse": 3.1e-6}, "inconclusive"),
        ({"rmse": 8.9e-6}, "inconclusive"),
        ({"rmse": 9.1e-6}, "contradicted"),
        ({"rmse": None}, "contradicted"),
        ({"corrupted_rows": 1}, "contradicted"),
        ({"rerun": 1e-6}, "confirmed"),
        ({"rerun": 1.1e-6}, "inconclusive"),
        ({"rerun": None}, "inconclusive"),
    ],
)
def test_a_tensors_bound_is_twice_the_authoritys_and_a_tenth_of_the_tolerance(
    change: dict[str, object], answer: str
) -> None:
    """3e-6 here; three times that contradicts, as one corrupted row does and what is not a number."""
    found = tensors(battery(**change), battery(), MARGINS)
    assert (found.answer, found.p) == (answer, 0.0 if answer == "confirmed" else 1.0)


def test_a_small_tensor_may_err_three_times_as_much() -> None:
    """Below 1,000 elements the bound is 3e-6 + 1e-6."""
    ours, theirs = battery(rmse=3.9e-6, elements=999), battery(elements=999)
    assert tensors(ours, theirs, MARGINS).answer == "confirmed"


@pytest.mark.parametrize("fault", [{"rmse": None}, {"corrupted_rows": 2}])
def test_an_authority_that_errs_says_nothing(fault: dict[str, object]) -> None:
    """Neither for nor against: it has its own canary."""
    for ours in (battery(), battery(corrupted_rows=1)):
        found = tensors(ours, battery(**fault), MARGINS)
        assert (found.answer, found.reasons[0].number) == (
            "inconclusive",
            "1 of the authority's tensors are corrupted",
        )


def test_errors_of_shape_and_history_need_several_batches_of_several_shapes() -> None:
    """Two batches of one of two shapes prove nothing; one corrupted row among them is one all the same."""
    few = [tensor(*place) for place in PLACES[:-1]]
    found = tensors(few, few, MARGINS)
    assert (found.answer, found.reasons[0].number) == ("inconclusive", "1 shapes of 3 batches each")
    assert tensors([*few, tensor(*PLACES[0], corrupted_rows=1)], few, MARGINS).answer == "contradicted"
    assert tensors([], battery(), MARGINS).answer == "inconclusive"


def test_a_tensor_that_only_one_side_has_is_not_passed_over() -> None:
    """Else the tensor that errs could be left out."""
    more = [*battery(), Tensor.model_validate(tensor().model_dump() | {"name": "loss"})]
    for ours, theirs in ((battery(), more), (more, battery())):
        found = tensors(ours, theirs, MARGINS)
        assert (found.answer, found.reasons[0].number) == ("inconclusive", "1 tensors are only on one side")


def test_every_launchs_battery_counts() -> None:
    """A row that the third launch corrupted is not undone by the first, in which all was well."""
    plain = evidence(samples={RAW: [[0.5] * 8] * 3})
    theirs, well = with_battery(plain, *battery()), with_battery(plain, *battery(), launches=(1, 2))
    torn = with_battery(well, *battery(corrupted_rows=1), launches=(3,))
    (finding,) = [one for one in findings_of(well) if one.metric == "tensor_rmse"]
    for ours, answer in ((well, "confirmed"), (torn, "contradicted")):
        found = devices(finding, ours, theirs, MARGINS)
        assert found is not None
        assert found.answer == answer
    assert devices(finding, well, plain, MARGINS) is None


LOSSES = tuple(2.0 - 0.05 * step for step in range(10))


def students(accuracies: Sequence[float], *, seeds: int = 0, apart: float = 0.0) -> list[Seeded]:
    """Students of consecutive seeds; the last of their first losses is `apart` from the others', relatively."""
    losses = (*LOSSES[:-1], LOSSES[-1] * (1 + apart))
    return [Seeded(seeds + i, accuracy, losses) for i, accuracy in enumerate(accuracies)]


NEAR, SAME = (0.890, 0.891, 0.889, 0.890, 0.890), (0.891, 0.890, 0.889, 0.891, 0.890)


def test_students_of_five_seeds_confirm_half_a_point() -> None:
    """Means 0.02 points apart with a spread of 0.07: p is Welch's, far below 5 %."""
    found = trained(students(NEAR), students(SAME, apart=5e-5), MARGINS)
    assert found.answer == "confirmed"
    assert found.p < 1e-4
    assert [reason.number for reason in found.reasons] == [
        "-0.02 [-0.11, +0.07] points",
        "of 5 pairs of one seed: at most 5.0e-05 apart",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        (students((0.80, 0.80, 0.81, 0.80, 0.80)), students(SAME), "contradicted"),  # ten points below
        (students((0.87, 0.91, 0.86, 0.90, 0.89)), students(SAME), "inconclusive"),  # too wide a spread
        (students(NEAR[:4]), students(SAME), "inconclusive"),
        (students(NEAR[:4]) * 2, students(SAME), "inconclusive"),  # a seed counts once
        (students(NEAR, seeds=100), students(SAME), "inconclusive"),  # no seed in common
        (students(NEAR, apart=2e-4), students(SAME), "inconclusive"),  # between rounding and a wrong operator
        (students(NEAR, apart=4e-4), students(SAME), "contradicted"),
        (students(NEAR[:1], apart=4e-4), students(SAME), "contradicted"),  # certain, whatever its count
        (students(NEAR, apart=math.nan), students(SAME), "contradicted"),
        (students(NEAR), students(SAME, apart=math.nan), "inconclusive"),  # the authority's own fault
        ([one._replace(first_losses=()) for one in students(NEAR)], students(SAME), "inconclusive"),
        (students((math.nan, *NEAR[1:])), students(SAME), "inconclusive"),
    ],
)
def test_accuracy_over_seeds_and_early_losses_must_both_agree(
    ours: list[Seeded], theirs: list[Seeded], answer: str
) -> None:
    """Either alone confirms nothing; either alone may contradict."""
    found = trained(ours, theirs, MARGINS)
    assert found.answer == answer
    assert found.p > 0.05


def test_one_untold_pair_of_losses_withholds_the_confirmation() -> None:
    """Four seeds agree; of the fifth nothing is known."""
    ours = students(NEAR)
    ours[4] = ours[4]._replace(first_losses=LOSSES[:9])
    found = trained(ours, students(SAME), MARGINS)
    assert (found.answer, found.reasons[1].number) == (
        "inconclusive",
        "of 5 pairs of one seed: at most 0.0e+00 apart, 1 untold",
    )
