"""Three answers, judged on an interval."""

from __future__ import annotations

import numpy as np
import pytest

from matrix import compare, stats
from matrix.findings import findings_of
from matrix.quality import Outputs
from tests.making import EAGER, INT8, ORT, TORCH, evidence, logits, policy

MARGINS = policy().margins


def answered(wrong: set[int], n: int = 10_000) -> Outputs:
    """A model that is right but for the examples in `wrong`."""
    return Outputs(logits([1 if i in wrong else 0 for i in range(n)]).astype(np.float64), np.zeros(n, dtype=np.int64))


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.70, 0.80, "faster"),
        (0.70, 1.01, "ambiguous"),
        (1.20, 1.30, "slower"),
        (0.96, 1.04, "equivalent"),
        (0.985, 0.995, "equivalent"),  # significant, and too small to be called faster
        (0.94, 1.04, "ambiguous"),
        (0.5, 2.0, "ambiguous"),
        (None, None, "ambiguous"),
    ],
)
def test_a_call_needs_its_whole_interval(low: float | None, high: float | None, answer: str) -> None:
    """Faster only beyond the noise, equivalent only within the margin, else it cannot be told."""
    assert compare.call(low, high) == answer


def test_the_same_answers_confirm() -> None:
    """10,000 equal answers certify 0.2 points and 0.5 % flips."""
    assert compare.same_checkpoint(answered({1, 2}), answered({1, 2}), MARGINS).answer == "confirmed"


def test_too_few_examples_confirm_nothing() -> None:
    """500 equal answers prove no 0.2 points."""
    found = compare.same_checkpoint(answered(set(), 500), answered(set(), 500), MARGINS)
    assert (found.answer, found.reasons[0].number) == ("inconclusive", "500 examples")


def test_a_lower_accuracy_contradicts() -> None:
    """1 point less on 10,000 paired examples lies wholly outside 0.2 points."""
    assert compare.same_checkpoint(answered(set(range(100))), answered(set()), MARGINS).answer == "contradicted"


def test_flips_contradict_where_accuracy_agrees() -> None:
    """100 lost here and 100 lost there cancel in accuracy; 2 % of the answers differ all the same."""
    found = compare.same_checkpoint(answered(set(range(100))), answered(set(range(100, 200))), MARGINS)
    assert found.answer == "contradicted"
    assert found.reasons[1].number.startswith("2.00 %")


def test_between_proof_and_contradiction_nothing_is_said() -> None:
    """20 losses on 10,000: the interval straddles 0.2 points."""
    assert compare.same_checkpoint(answered(set(range(20))), answered(set()), MARGINS).answer == "inconclusive"


def test_export_deltas_confirm_when_both_are_small_and_alike() -> None:
    """The same 3 losses on both devices."""
    pair = (answered({1, 2, 3}), answered(set()))
    assert compare.export_delta(pair, pair, MARGINS).answer == "confirmed"


def test_export_deltas_of_opposite_sign_contradict() -> None:
    """Here the export loses 60, there it wins 60: both significant, opposite signs."""
    base, worse = answered(set(range(60))), answered(set(range(120)))
    better = answered(set())
    assert compare.export_delta((worse, base), (better, base), MARGINS).answer == "contradicted"


def test_a_large_export_delta_is_not_confirmed_by_an_equal_one() -> None:
    """Both lose 1 point: alike, and beyond what an export may cost."""
    pair = (answered(set(range(100))), answered(set()))
    assert compare.export_delta(pair, pair, MARGINS).answer == "inconclusive"


@pytest.mark.parametrize(
    ("ours", "theirs", "answer"),
    [
        ([0.50, 0.51, 0.49, 0.50, 0.50], [0.51, 0.50, 0.49, 0.50, 0.51], "confirmed"),
        ([0.50, 0.51, 0.49, 0.50, 0.50], [0.90, 0.91, 0.89, 0.90, 0.90], "contradicted"),
        ([0.05, 0.06, 0.04, 0.05, 0.05], [-0.05, -0.06, -0.04, -0.05, -0.05], "contradicted"),
        ([0.50, 0.90, 0.10, 0.40, 0.60], [0.50, 0.51, 0.49, 0.50, 0.50], "inconclusive"),
        ([0.50, 0.51, 0.49], [0.50, 0.51, 0.49], "inconclusive"),
        ([0.5] * 5, [0.5] * 5, "confirmed"),
    ],
)
def test_ratios_confirm_within_ten_percent(ours: list[float], theirs: list[float], answer: str) -> None:
    """Alike, different, of opposite sign, too noisy, too few, and without any spread."""
    assert compare.ratio_to_reference(ours, theirs, MARGINS).answer == answer


def test_a_difference_of_deltas_needs_enough_examples() -> None:
    """1,497 equal answers are the fewest that prove 0.2 points, exactly; a naive interval of none discordant has no width."""
    fewest = MARGINS.model_copy(update={"min_examples": 1})
    for n, answer in ((1_496, "inconclusive"), (1_497, "confirmed")):
        pair = (answered(set(), n), answered(set(), n))
        assert compare.export_delta(pair, pair, fewest).answer == answer


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [(set(), set(), 0.0415), ({1, 2}, {1, 2}, 0.0415), (set(range(40)), set(), 1.0)],
)
def test_a_comparisons_p_is_the_largest_of_its_parts(ours: set[int], theirs: set[int], p: float) -> None:
    """Of 1,500 equal answers the accuracy's is P(Z > sqrt(1500 d / (1 - d))), above the flips' 0.995^1500; 1 contradicts."""
    found = compare.same_checkpoint(answered(ours, 1_500), answered(theirs, 1_500), MARGINS)
    assert found.p == pytest.approx(p, abs=1e-4)


@pytest.mark.parametrize("wrong", range(0, 31, 2))
def test_confirmed_is_a_p_of_at_most_five_percent_and_an_interval_within_the_margin(wrong: int) -> None:
    """Counts across the border: the three rules of a 90 % interval, and p, say the same."""
    ours, base = answered(set(range(wrong))), answered(set())
    found = [
        compare.same_checkpoint(ours, base, MARGINS),
        compare.export_delta((ours, base), (base, base), MARGINS),
        compare.ratio_to_reference([wrong / 100 + e / 100 for e in range(5)], [e / 100 for e in range(5)], MARGINS),
    ]
    within = stats.tango_interval(wrong, 0, 10_000, 0.90).high < MARGINS.accuracy
    assert (found[0].answer == "confirmed") == within
    assert all((one.p <= 0.05) == (one.answer == "confirmed") for one in found)


def test_a_sign_that_only_one_device_is_sure_of_confirms_nothing() -> None:
    """The export loses 6 here, which is sure, and 2 there, which is not: alike, and not confirmed."""
    base = answered(set())
    found = compare.export_delta((answered(set(range(6))), base), (answered({1, 2}), base), MARGINS)
    assert (found.answer, found.p) == ("inconclusive", 1.0)


def test_a_ratio_whose_sign_flips_without_proof_is_inconclusive() -> None:
    """1 % faster here, 1 % slower there, neither beyond its spread: no contradiction, and no confirmation."""
    ours, theirs = [0.01, 0.03, -0.01, 0.02, 0.0], [-0.01, -0.03, 0.01, -0.02, 0.0]
    found = compare.ratio_to_reference(ours, theirs, MARGINS)
    assert (found.answer, found.p) == ("inconclusive", 1.0)


def test_a_confirmed_ratio_names_the_device_that_it_was_held_against() -> None:
    """A ratio is never confirmed for itself."""
    samples = {EAGER: [[0.010] * 60] * 5, ORT: [[0.005] * 60] * 5}
    ours, theirs = evidence(target="mps", samples=samples), evidence(target="cuda-a100", samples=samples)
    (finding,) = [one for one in findings_of(ours) if one.metric == "ratio"]
    found = compare.devices(finding, ours, theirs, MARGINS)
    assert found is not None
    assert found.reasons[0].number == "1.000 times that of cuda-a100, 90 % interval [1.000, 1.000]"


def test_a_sample_that_could_not_prove_the_margin_says_nothing() -> None:
    """1,400 examples and a policy that asks for one: even equal answers prove no 0.2 points, and 40 losses contradict none."""
    fewest = MARGINS.model_copy(update={"min_examples": 1})
    found = compare.same_checkpoint(answered(set(range(40)), 1_400), answered(set(), 1_400), fewest)
    assert (found.answer, found.reasons[0].threshold) == (
        "inconclusive",
        "so many that equal answers prove ±0.2 points",
    )


def test_logits_that_are_no_numbers_answer_nothing() -> None:
    """Not the class whose place they have: what one device cannot say differs from what the other says."""
    ours, theirs = answered(set()), answered(set())
    ours.logits[:100, 0] = np.nan
    assert (ours.answers[0], bool(ours.right[0])) == (-1, False)
    assert compare.same_checkpoint(ours, theirs, MARGINS).answer == "contradicted"


def test_only_ruled_metrics_are_compared() -> None:
    """No other device's bundle says anything about a time, a divergence or a size, however alike."""
    outputs = {TORCH: logits([0] * 2000), INT8: logits([0] * 2000)}
    one = evidence(samples={EAGER: [[0.01] * 60] * 5}, outputs=outputs, labels=np.zeros(2000, dtype=np.int64))
    found = {finding.metric for finding in findings_of(one) if compare.devices(finding, one, one, MARGINS)}
    assert found == {"accuracy", "accuracy_delta"}
