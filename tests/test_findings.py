"""What a bundle says, worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from matrix.bundle import Bundle
from matrix.findings import family, findings_of
from matrix.job import Training
from matrix.sample import ClockCheck, Tensor
from matrix.verdict import Finding
from tests.making import (
    EAGER,
    INT8,
    ORT,
    QUIET,
    RAW,
    SETTLED,
    TORCH,
    TRAINER,
    evidence,
    logits,
    suites,
    with_battery,
    with_training,
)


def by_metric(found: list[Finding], cell: str) -> dict[str, Finding]:
    """A cell's findings by metric."""
    return {finding.metric: finding for finding in found if finding.cell.id == cell}


def test_launches_are_never_pooled() -> None:
    """Value: geometric mean of the launches' medians. Bound: the worst launch's. One slow launch is not averaged away."""
    fast, slow = [0.010] * 100, [0.020] * 100
    found = by_metric(findings_of(evidence(samples={EAGER: [fast, fast, fast, fast, slow]})), EAGER.id)
    assert found["p50_s"].value == pytest.approx(0.010 * 2 ** (1 / 5))
    assert found["p50_s"].bound_high == 0.020
    assert found["p50_s"].confidence == 0.96875
    assert found["p95_s"].bound_high == 0.020


def test_a_tail_without_a_bound_has_no_value() -> None:
    """From 100 samples the p99 is only the largest sample under another name: no number is published."""
    found = by_metric(findings_of(evidence(samples={EAGER: [[0.01] * 100] * 5})), EAGER.id)
    assert (found["p99_s"].value, found["p99_s"].bound_high) == (None, None)
    assert found["p95_s"].value == 0.01


def test_the_ratio_is_paired_within_a_launch() -> None:
    """A drift that slows both variants alike leaves the ratio, and its interval, untouched."""
    drift = [1.0, 1.5, 2.0, 2.5, 3.0]
    samples = {EAGER: [[0.010 * d] * 60 for d in drift], ORT: [[0.005 * d] * 60 for d in drift]}
    ratio = by_metric(findings_of(evidence(samples=samples)), ORT.id)["ratio"]
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert "ratio" not in by_metric(findings_of(evidence(samples=samples)), EAGER.id)


def test_a_training_step_is_read_against_the_measured_peak() -> None:
    """0.5 s for 10 GFLOP at a peak of 100 GFLOP/s is a fifth of it; 16 samples in 0.5 s are 32 a second."""
    facts = {RAW: {"step_flop": 1e10, "matmul_flop_per_s": 1e11}}
    found = by_metric(
        findings_of(evidence(samples={RAW: [[0.5] * 8] * 5, TRAINER: [[0.6] * 8] * 5}, facts=facts)), RAW.id
    )
    assert found["peak_fraction"].value == pytest.approx(0.2)
    assert found["samples_per_s"].value == pytest.approx(32.0)


def test_an_export_is_compared_example_by_example() -> None:
    """Of 1000 examples the export loses 3 and wins 1: a delta of -0.2 points, 4 flips, exact McNemar p = 0.625."""
    labels = np.zeros(1000, dtype=np.int64)
    right = [0] * 1000
    reference, export = list(right), list(right)
    reference[10] = 1
    export[20], export[21], export[22] = 2, 2, 2
    found = by_metric(
        findings_of(evidence(outputs={TORCH: logits(reference), INT8: logits(export)}, labels=labels)), INT8.id
    )
    assert found["accuracy"].value == pytest.approx(0.997)
    assert found["accuracy_delta"].value == pytest.approx(-0.002)
    assert found["accuracy_delta"].notes == {"won": 1, "lost": 3, "mcnemar_p": 0.625}
    assert found["flip_rate"].value == pytest.approx(0.004)
    assert found["max_dlogit"].value == 5.0


def test_kl_divergence_worked_by_hand() -> None:
    """With p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2 nats."""
    labels = np.zeros(2, dtype=np.int64)
    p, q = np.log(np.array([[3.0, 1.0]] * 2, dtype=np.float32)), np.zeros((2, 2), dtype=np.float32)
    found = by_metric(findings_of(evidence(outputs={TORCH: p, INT8: q}, labels=labels)), INT8.id)
    assert found["mean_kl"].value == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-7)


def test_one_noisy_launch_in_five_is_tolerated_and_two_are_not() -> None:
    """Gates judge the worst launch, so one disturbed launch can only make them stricter; two degrade the number."""
    one = evidence(samples={EAGER: [[0.01] * 60] * 5})
    noisy = QUIET.model_copy(update={"foreign_cores": 0.9})

    def disturbed(count: int) -> Finding:
        measured = {
            (cell, launch): replace(found, evidence=found.evidence.model_copy(update={"load": noisy}))
            if launch <= count
            else found
            for (cell, launch), found in one.measured.items()
        }
        return by_metric(findings_of(replace(one, measured=measured)), EAGER.id)["p50_s"]

    assert disturbed(1).doubts == ()
    (doubt,) = disturbed(2).doubts
    assert doubt.rule == "foreign_load"
    assert doubt.number == "0.90 cores busy with other processes (in 2 of 5 launches)"


def test_a_lost_launch_is_always_a_doubt() -> None:
    """Four of five launches measured: the number stands, degraded, and says so."""
    found = findings_of(evidence(samples={EAGER: [[0.01] * 60] * 5}, lost={(EAGER, 3): "raised"}))
    assert {finding.launches for finding in found} == {4}
    assert all(finding.doubts[0].number == "measured in 4 of 5 launches" for finding in found)


def test_a_clock_that_fails_its_test_makes_every_time_invalid_and_no_quality() -> None:
    """Twice the work in the same time: no time may be believed; accuracy does not depend on a clock."""
    labels = np.zeros(1000, dtype=np.int64)
    broken = ClockCheck(empty_s=1e-7, doubling=1.0, same=1.0)
    found = findings_of(
        evidence(samples={EAGER: [[0.01] * 60] * 5}, outputs={TORCH: logits([0] * 1000)}, labels=labels, clock=broken)
    )
    faulty = {finding.metric for finding in found if finding.faults}
    assert faulty == {"p50_s", "p95_s", "p99_s"}


def test_sampling_that_did_not_converge_is_a_doubt() -> None:
    """A median known to 8 % where 5 % is the limit is never a silent number."""
    wide = SETTLED.model_copy(update={"width": 0.08, "capped": True})
    (doubt,) = by_metric(findings_of(evidence(samples={EAGER: [[0.01] * 60] * 5}, timing=wide)), EAGER.id)[
        "p50_s"
    ].doubts
    assert (doubt.rule, doubt.threshold) == ("not_converged", "at most ±5 %")


def test_answers_that_change_between_runs_are_a_doubt() -> None:
    """A second run that moves a logit by 0.1 is no deterministic export."""
    labels = np.zeros(1000, dtype=np.int64)
    one = evidence(outputs={TORCH: logits([0] * 1000)}, labels=labels, facts={TORCH: {"rerun_max_dlogit": 0.1}})
    assert {finding.doubts[0].rule for finding in findings_of(one)} == {"not_deterministic"}


def test_one_launch_has_no_interval() -> None:
    """One median says nothing about the next launch's; its static facts are exact all the same."""
    one = evidence(samples={RAW: [[0.01, 0.02, 0.03] * 4]}, facts={RAW: {"step_flop": 1e10}})
    found = by_metric(findings_of(one), RAW.id)
    assert (found["step_s"].value, found["step_s"].low, found["step_s"].high) == (0.02, None, None)
    assert (found["step_flop"].low, found["step_flop"].high) == (1e10, 1e10)


def test_a_cell_that_no_launch_measured_has_all_its_numbers_without_a_value() -> None:
    """A loss is a finding: a gate and a report see it."""
    found = by_metric(findings_of(evidence(samples={EAGER: [[0.01] * 60]}, lost={(EAGER, 1): "raised"})), EAGER.id)
    assert {"p50_s", "p95_s", "start_s", "ratio"} <= set(found)
    assert {(one.value, one.launches, one.doubts[0].rule) for one in found.values()} == {(None, 0, "launch_lost")}


def test_a_batterys_tensors_are_one_exact_number_of_the_reference_cell() -> None:
    """RMSEs of a tenth and a quarter of the tolerance, in two of three launches: 0.25, exactly, and nobody else's."""
    one = evidence(samples={RAW: [[0.5] * 8] * 3, TRAINER: [[0.6] * 8] * 3})
    assert "tensor_rmse" not in by_metric(findings_of(one), RAW.id)
    made = {"name": "loss", "shape": (1,), "elements": 1, "tolerance": 1e-5, "corrupted_rows": 0, "rerun": 0.0}
    tensors = [Tensor(batch=batch, rmse=rmse, **made) for batch, rmse in enumerate((1e-6, 2.5e-6))]
    found = findings_of(with_battery(one, *tensors, launches=(1, 3)))
    number = by_metric(found, RAW.id)["tensor_rmse"]
    assert (number.value, number.low, number.high, number.bound_high) == pytest.approx((0.25,) * 4)
    assert (number.kind, number.samples, number.launches, number.confidence) == ("tensors", 2, 2, 1.0)
    assert "tensor_rmse" not in by_metric(found, TRAINER.id)


def test_a_tensor_that_is_not_a_number_leaves_no_value() -> None:
    """A largest of the others would hide it."""
    torn = Tensor(name="loss", shape=(1,), batch=0, elements=1, rmse=None, tolerance=1e-5, corrupted_rows=0, rerun=None)
    found = by_metric(findings_of(with_battery(evidence(samples={RAW: [[0.5] * 8]}), torn)), RAW.id)["tensor_rmse"]
    assert (found.value, found.bound_high) == (None, None)


SEEDED = Training(teacher_accuracy=None, student_accuracy=0.9, seconds=60.0, seed=7, device="cpu")


def test_a_student_trained_here_has_an_accuracy_of_this_device() -> None:
    """9 of 10 validation examples, with Clopper and Pearson's interval; one student, whatever the launches."""
    one = evidence(samples={RAW: [[0.5] * 8] * 5, TRAINER: [[0.6] * 8] * 5})
    found = by_metric(findings_of(with_training(one, SEEDED)), RAW.id)["trained_accuracy"]
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.5550, 0.9975), abs=1e-4)
    assert (found.kind, found.samples, found.launches) == ("trained", 10, 1)


@pytest.mark.parametrize("change", [{"seed": None}, {"device": "cuda"}, {"device": None}])
def test_a_student_from_elsewhere_says_nothing_of_this_device(change: dict[str, object]) -> None:
    """Trained on another device, or from no known seed."""
    one = with_training(evidence(samples={RAW: [[0.5] * 8]}), SEEDED.model_copy(update=change))
    assert "trained_accuracy" not in by_metric(findings_of(one), RAW.id)


def test_a_family_is_all_but_the_seed_and_the_device() -> None:
    """Another seed, target or student's weights: the same family. Other data, training or suites: another."""
    base = evidence(samples={RAW: [[0.5] * 8]}).bundle
    data, profile = base.prepared.data, base.profile

    def recipe(**change: object) -> Bundle:
        changed = profile.recipe.model_copy(update=change)
        return base.model_copy(update={"profile": profile.model_copy(update={"recipe": changed})})

    other = data.model_copy(update={"train": data.train.model_copy(update={"sha256": "f" * 64})})
    alike = [recipe(seed=1), evidence(target="cuda-h200", weights="x" * 64, samples={RAW: [[0.5] * 8]}).bundle]
    unlike = [
        recipe(student_epochs=99),
        base.model_copy(update={"prepared": base.prepared.model_copy(update={"data": other})}),
        evidence(samples={RAW: [[0.5] * 8]}, suites=suites("z")).bundle,
    ]
    assert {family(one) for one in alike} == {family(base)}
    assert family(base) not in {family(one) for one in unlike}
