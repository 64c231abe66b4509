"""Gates are closed unless proven open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from matrix import gates
from matrix.bundle import Evidence
from matrix.errors import UsageError
from matrix.gates import decide, sentence
from matrix.junit import render
from matrix.policy import Gate, Policy
from matrix.provenance import Granted, Ledger, Waiver
from matrix.standing import Rules
from matrix.trust import judge
from matrix.verdict import Judged, Verdict
from tests.making import (
    IMAGE,
    INT8,
    NOW,
    ORT,
    PACKED,
    PARTS,
    TORCH,
    case_of,
    evidence,
    logits,
    policy,
    signer,
    suites,
)

LATENCY = Gate(
    id="warm",
    why="15 ms",
    targets=("cpu-openvino",),
    suite="inference_latency",
    variants=("ort_int8",),
    metric="p95_s",
    at_most=0.015,
    where={"mode": ("warm",), "length": (16,)},
)
DROP = Gate(
    id="drop",
    why="0.6 points",
    targets=("cpu-openvino",),
    suite="export_accuracy",
    variants=("onnx_int8",),
    metric="accuracy_delta",
    at_least=-0.006,
)


SIZE = Gate(
    id="size",
    why="1.3 GB",
    targets=("cpu-openvino",),
    suite="packaging",
    variants=("image",),
    metric="image_bytes",
    at_most=1.3e9,
)


def asking(*gates: Gate) -> Policy:
    """The project's policy with these gates only."""
    return policy().model_copy(update={"gate": gates})


def verdict(bundles: Sequence[Evidence], *asked: Gate, **changes: object) -> Verdict:
    """The verdict of these gates on these bundles."""
    return decide(asking(*asked), case_of(bundles, **changes))


def timed(seconds: float, count: int = 5, n: int = 100) -> Evidence:
    """A CPU bundle whose every sample is `seconds`."""
    return evidence(samples={ORT: [[seconds] * n] * count})


def exported(lost: int, n: int = 10_000) -> Evidence:
    """A CPU bundle whose INT8 export loses `lost` of `n` examples."""
    return evidence(
        outputs={TORCH: logits([0] * n), INT8: logits([1] * lost + [0] * (n - lost))},
        labels=np.zeros(n, dtype=np.int64),
    )


def packed(size: float) -> Evidence:
    """A CPU bundle whose image has `size` bytes."""
    return evidence(samples={PACKED: [[1.0]]}, facts={PACKED: PARTS | {"image_bytes": size}}, image=IMAGE)


def test_a_bound_that_keeps_the_limit_passes() -> None:
    """10 ms against 15 ms, five launches, trusted."""
    (result,) = verdict([timed(0.010)], LATENCY).results
    assert (result.answer, result.bound, result.badge) == ("pass", 0.010, "trusted")


def test_a_time_beyond_the_limit_fails() -> None:
    """Even the fastest launch's lower bound is beyond it."""
    assert verdict([timed(0.020)], LATENCY).answer == "fail"


def test_one_slow_launch_makes_a_pass_undecided() -> None:
    """The worst launch's bound crosses the limit, the best one's does not: neither is proven."""
    one = evidence(samples={ORT: [[0.010] * 100] * 4 + [[0.016] * 100]})
    assert verdict([one], LATENCY).answer == "undecided"


def test_an_image_within_its_budget_passes() -> None:
    """One launch suffices: the same bytes would be counted again."""
    (result,) = verdict([packed(1.2e9)], SIZE).results
    assert (result.answer, result.bound, result.why) == ("pass", 1.2e9, "the bound keeps the limit")


def test_an_image_beyond_its_budget_fails_and_names_its_largest_parts() -> None:
    """Where to begin: three parts with their sizes, the largest first."""
    (result,) = verdict([packed(1.4e9)], SIZE).results
    assert result.answer == "fail"
    assert result.why == (
        "even the favourable bound crosses the limit; its largest parts: torch 421 MB, base 82.0 MB, numpy 49.0 MB"
    )


def test_of_two_images_the_larger_answers_with_its_own_parts() -> None:
    """A smaller one beside it does not hide what makes the other large."""
    (result,) = verdict([packed(1.2e9), packed(1.4e9)], SIZE).results
    assert result.answer == "fail"
    assert result.why.endswith("numpy 49.0 MB (the worst of 2 attempts)")


def test_a_missing_cell_fails() -> None:
    """No bundle at all, and a bundle that lacks the cell, fail with the reason."""
    for bundles in ([], [exported(0)]):
        (result,) = verdict(bundles, LATENCY).results
        assert (result.answer, result.why) == ("fail", "no bundle of this student holds this cell: measure the target")


def test_a_required_cell_that_the_plan_excludes_fails_with_the_plans_reason() -> None:
    """The function's image does not hold an fp32 export's runtime."""
    gate = DROP.model_copy(update={"targets": ("lambda-x86",), "variants": ("openvino_int8",)})
    (result,) = verdict([timed(0.010)], gate).results
    assert result.answer == "fail"
    assert result.why.startswith("the function's image leaves out OpenVINO INT8")


def test_an_empty_policy_fails() -> None:
    """Nothing was asked, so nothing was shown."""
    found = verdict([timed(0.010)])
    assert found.answer == "fail"
    assert sentence(found) == "mangaassist-production: FAIL, the policy has no gate, and nothing was asked"


@pytest.mark.parametrize("field", ["value", "bound_high", "bound_low"])
def test_nan_fails(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nan > limit` is false, which a careless gate takes for a pass."""

    def spoilt(bundles: Sequence[Evidence], ledger: Ledger, by: Rules) -> list[Judged]:
        return [replace(one, finding=replace(one.finding, **{field: math.nan})) for one in judge(bundles, ledger, by)]

    monkeypatch.setattr(gates, "judge", spoilt)
    found = verdict([timed(0.010)], LATENCY)
    assert found.results[0].answer == "fail"
    assert found.results[0].why == "the evidence is not a number"


def test_too_few_samples_for_a_bound_are_undecided() -> None:
    """58 samples have no bound of the p95 at 95 %, whatever their values."""
    (result,) = verdict([timed(0.010, n=58)], LATENCY).results
    assert (result.answer, result.bound) == ("undecided", None)


@pytest.mark.parametrize(("lost", "answer"), [(0, "pass"), (20, "pass"), (55, "undecided"), (200, "fail")])
def test_a_drop_is_judged_on_the_paired_interval(lost: int, answer: str) -> None:
    """0.2 points of 10,000 are certified below 0.6; 0.55 points are not; 2 points are certainly beyond."""
    assert verdict([exported(lost)], DROP).answer == answer


def test_three_hundred_examples_certify_nothing() -> None:
    """No loss on 300 examples leaves up to 0.9 points possible."""
    assert verdict([exported(0, n=300)], DROP).answer == "undecided"


@pytest.mark.parametrize(
    "bundle",
    [
        evidence(samples={ORT: [[0.010] * 100] * 5}, dirty=("matrix/x.py",)),
        evidence(samples={ORT: [[0.010] * 100] * 5}, commit=None),
        evidence(samples={ORT: [[0.010] * 100] * 5}, created=NOW - timedelta(days=8)),
        evidence(samples={ORT: [[0.010] * 100] * 5}, created=NOW + timedelta(days=1)),
        evidence(samples={ORT: [[0.010] * 100] * 5}, suites=suites("q")),
        evidence(samples={ORT: [[0.010] * 100] * 4}),
        evidence(samples={ORT: [[0.010] * 100] * 5}, lost={(ORT, 2): "raised"}),
    ],
    ids=["dirty", "no commit", "stale", "future", "other suites", "four launches", "lost launch"],
)
def test_nothing_that_is_not_believed_passes(bundle: Evidence) -> None:
    """A good value in bad standing is no pass."""
    assert verdict([bundle], LATENCY).answer in {"fail", "undecided"}


def test_of_several_attempts_the_worst_answers() -> None:
    """A retry does not outvote the failure before it; an invalid attempt is no attempt."""
    slow, fast = timed(0.020), timed(0.010)
    found = verdict([slow, fast], LATENCY)
    assert found.answer == "fail"
    assert found.results[0].why.endswith("(the worst of 2 attempts)")
    dirty = evidence(samples={ORT: [[0.020] * 100] * 5}, dirty=("matrix/x.py",))
    assert verdict([dirty, fast], LATENCY).answer == "pass"


def test_the_order_of_bundles_changes_nothing() -> None:
    """The same evidence in another order gives the same verdict, to the byte."""
    bundles = [timed(0.010), timed(0.014), exported(3)]
    assert verdict(bundles, LATENCY, DROP).model_dump_json() == verdict(bundles[::-1], LATENCY, DROP).model_dump_json()


def test_torn_evidence_never_passes() -> None:
    """A bundle that cannot be read makes the verdict invalid, however good the others are."""
    found = verdict([timed(0.010)], LATENCY, torn=["x: torn"])
    assert found.answer == "fail"
    assert sentence(found).startswith("mangaassist-production: INVALID, 1 fault in the evidence: x: torn")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"where": {"length": (17,)}}, "gate 'warm' selects nothing on cpu-openvino by length = 17"),
        ({"variants": ("ort_int4",)}, "gate 'warm' selects nothing on cpu-openvino by variants = ort_int4"),
        ({"metric": "p97_s"}, "gate 'warm' asks inference_latency for metric 'p97_s'"),
        ({"metric": "accuracy"}, "gate 'warm' asks inference_latency for metric 'accuracy'"),
        (
            {"targets": ("lambda-x86", "cpu-openvino"), "where": {"memory_mb": (1024,)}},
            "gate 'warm' selects nothing on cpu-openvino by memory_mb = 1024",
        ),
        ({"at_least": 0.1}, "gate 'warm' needs one limit"),
        ({"at_most": None}, "gate 'warm' needs one limit"),
        ({"targets": ("cpu-openvno",)}, "gate 'warm': no target is called 'cpu-openvno'"),
    ],
)
def test_a_gate_that_cannot_mean_what_it_says_is_refused(change: dict[str, object], message: str) -> None:
    """A gate that selects nothing would pass on nothing."""
    with pytest.raises(UsageError) as caught:
        verdict([timed(0.010)], LATENCY.model_copy(update=change))
    assert caught.value.what == message


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("evidence", {"min_launches": 4}, "4 launches bound the median launch at 93.8 %"),
        ("margins", {"min_examples": 1350}, "1350 equal answers leave a difference of 0.20 points possible (p 0.067)"),
        ("margins", {"ratio_contradiction": 1.05}, "ratio_contradiction is below ratio"),
    ],
)
def test_a_policy_that_asks_for_too_little_evidence_is_refused(
    part: str, change: dict[str, object], message: str
) -> None:
    """What the least evidence cannot prove may not be taken for proven."""
    whole = asking(LATENCY)
    weak = whole.model_copy(update={part: getattr(whole, part).model_copy(update=change)})
    with pytest.raises(UsageError) as caught:
        decide(weak, case_of([]))
    assert caught.value.what == message


def test_a_verdict_never_mixes_two_students() -> None:
    """INT8 accuracy of one student and the latency of another, newer one: the accuracy is missing."""
    older = exported(0)
    newer = evidence(samples={ORT: [[0.010] * 100] * 5}, weights="x" * 64, created=NOW + timedelta(minutes=1))
    found = verdict([older, newer], LATENCY, DROP)
    assert [result.answer for result in found.results] == ["pass", "fail"]
    assert found.subject == newer.bundle.prepared.subject
    assert verdict([newer, older], LATENCY, DROP) == found


def test_evidence_of_a_profile_that_the_policy_does_not_accept_does_not_count() -> None:
    """A policy of full runs does not pass on a quick one."""
    strict = asking(LATENCY)
    strict = strict.model_copy(update={"evidence": strict.evidence.model_copy(update={"profiles": ("full",)})})
    found = decide(strict, case_of([timed(0.010)]))
    assert (found.answer, found.subject) == ("fail", None)


def test_a_cell_that_raised_in_every_launch_fails_beside_a_success() -> None:
    """Running again until it works does not undo it, and the reason is the loss."""
    lost = {(ORT, index): "raised" for index in range(1, 6)}
    broken = evidence(samples={ORT: [[0.010] * 100] * 5}, lost=lost, created=NOW - timedelta(hours=1))
    for bundles in ([broken], [broken, timed(0.010)]):
        (result,) = verdict(bundles, LATENCY).results
        assert result.answer == "fail"
        assert "measured in 0 of 5 launches" in result.why


def test_two_gates_of_one_name_are_refused() -> None:
    """The second would hide the first."""
    with pytest.raises(UsageError, match="two gates are called 'warm'"):
        verdict([], LATENCY, LATENCY)


def test_junit_counts_a_missing_cell_as_a_failure_and_never_as_skipped() -> None:
    """One pass, one missing: two tests, one failure, none skipped; an empty policy is a failing case."""
    suite = fromstring(render(verdict([timed(0.010)], LATENCY, DROP)))  # noqa: S314 - our own text
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    empty = fromstring(render(verdict([])))  # noqa: S314 - our own text
    assert (empty.get("tests"), empty.get("failures")) == ("1", "1")


def test_the_projects_own_policy_selects_cells() -> None:
    """Every gate of gates.toml names cells that the matrix could hold; without evidence all of them fail."""
    found = decide(policy(), case_of([]))
    assert {result.gate for result in found.results} == {gate.id for gate in policy().gate}
    assert {result.answer for result in found.results} == {"fail"}


def test_a_policy_of_which_everything_is_waived_passes_on_nothing() -> None:
    """As an empty one: nothing was shown."""
    asked = asking(LATENCY)
    waiver = Waiver(
        name="all",
        policy=asked.sha256,
        gate="*",
        target="*",
        cell="*",
        created=NOW.isoformat(),
        expires=(NOW + timedelta(days=1)).isoformat(),
        why="no time",
    )
    ledger = Ledger(granted=(Granted(waiver, (signer("release"),)),))
    found = decide(asked, case_of([], ledger))
    assert (found.answer, found.results[0].waived_by) == ("fail", "all")
    assert sentence(found).endswith("every one of 1 requirements is waived, and nothing was shown")
