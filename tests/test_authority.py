"""Whose word counts for whom: another host, another role, the same torch, fresh and beyond doubt; and only for some kinds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from matrix.bundle import Evidence
from matrix.gates import decide
from matrix.provenance import Ledger
from matrix.trust import judge
from matrix.verdict import State
from tests.making import (
    EAGER,
    INT8,
    NOW,
    ORT,
    SERVED,
    STARTED,
    TORCH,
    case_of,
    evidence,
    ledger_of,
    logits,
    rules,
    targets,
    vouched,
)
from tests.test_gates import LATENCY, asking
from tests.test_properties import MAC
from tests.test_trust import LABELS, SAME, WORSE, cuda, mps

KEY = "torch_fp32", "accuracy"


def states(bundles: Sequence[Evidence], ours: Evidence, ledger: Ledger | None = None) -> dict[tuple[str, str], State]:
    """States of a bundle's numbers by variant and metric."""
    told = judge(bundles, ledger or ledger_of(bundles), rules())
    return {
        (one.finding.cell.variant, one.finding.metric): one.state for one in told if one.finding.bundle == ours.name
    }


def function(target: str, *seconds: float, **changes: object) -> Evidence:
    """A function's bundle, a launch for each time."""
    fields = {"target": target, "host": target[0] * 64, "environment": target[0] * 64}
    return evidence(samples={SERVED: [[one] * 60 for one in seconds]}, **(fields | changes))  # type: ignore[arg-type]


def signed(*several: tuple[Evidence, str | None]) -> Ledger:
    """A ledger in which each bundle is signed by a role (None: as the policy asks)."""
    return Ledger(vouched={one.name: vouched(one.bundle, one.name, role) for one, role in several})


def test_an_authority_speaks_in_another_role() -> None:
    """One key that measures both sides could make them agree."""
    ours, theirs = mps(), cuda()
    told = signed((ours, "nightly-cuda"), (theirs, "nightly-cuda"))
    assert states([ours, theirs], ours, told)[KEY].badge == "unconfirmed"


@pytest.mark.parametrize("role", ["development", "release"])
def test_an_mps_number_that_only_a_wrong_role_confirms_is_not_accepted(role: str) -> None:
    """It agrees, and is shown as confirmed; no gate rests on it. A second CUDA bundle by the right role makes it so."""
    ours, theirs = mps(), cuda()
    told = signed((ours, None), (theirs, role))
    state = states([ours, theirs], ours, told)[KEY]
    assert (state.badge, state.accepted, state.believed) == ("confirmed", False, False)
    assert state.reasons[-1].number == "what confirms it is signed by nobody whom the policy asks for"
    (result,) = decide(asking(MAC), case_of([ours, theirs], told)).results
    assert (result.answer, result.badge) == ("undecided", "confirmed")
    more = cuda(host="i" * 64)
    both = signed((ours, None), (theirs, role), (more, None))
    assert decide(asking(MAC), case_of([ours, theirs, more], both)).answer == "pass"


def test_nobodys_bundle_neither_confirms_nor_contradicts() -> None:
    """Unsigned evidence is shown, and counts for nothing."""
    ours, theirs, against = mps(), cuda(), cuda(outputs={TORCH: WORSE}, host="i" * 64)
    assert states([ours, theirs], ours, signed((ours, None)))[KEY].badge == "unconfirmed"
    told = signed((ours, None), (theirs, None))
    assert states([ours, theirs, against], ours, told)[KEY].badge == "confirmed"


def test_a_contradiction_by_a_role_that_is_not_accepted_is_heard() -> None:
    """Doubt needs no permission: a development run that differs has found something."""
    ours, theirs, against = mps(), cuda(), cuda(outputs={TORCH: WORSE}, host="i" * 64)
    told = signed((ours, None), (theirs, None), (against, "development"))
    assert states([ours, theirs, against], ours, told)[KEY].badge == "contradicted"


@pytest.mark.parametrize("change", [{"host": "m" * 64}, {"torch": "2.14.0"}, {"created": NOW - timedelta(days=8)}])
def test_an_authority_is_another_host_of_the_same_torch_and_fresh(change: dict[str, object]) -> None:
    """Each of the three alone leaves the number unconfirmed."""
    ours = mps()
    assert states([ours, cuda(**change)], ours)[KEY].badge == "unconfirmed"


def test_an_emulated_time_is_confirmed_by_the_real_service() -> None:
    """Within 10 % of it, launch by launch: believed, its origin still emulated."""
    ours = function("lambda-x86", 0.0100, 0.0101, 0.0099, 0.0100, 0.0101)
    theirs = function("aws-lambda-x86", 0.0101, 0.0100, 0.0100, 0.0102, 0.0101)
    gate = LATENCY.model_copy(
        update={
            "targets": ("lambda-x86",),
            "where": {"mode": ("warm",), "length": (16,), "memory_mb": (1024,), "every_ms": (0,)},
        }
    )
    state = states([ours, theirs], ours)["ort_int8", "p50_s"]
    assert (state.badge, state.origin) == ("confirmed", "emulated")
    assert decide(asking(gate), case_of([ours, theirs])).answer == "pass"
    alone = decide(asking(gate), case_of([ours]))
    assert (alone.answer, alone.results[0].badge) == ("undecided", "emulated")


@pytest.mark.parametrize(("seconds", "badge"), [(0.014, "contradicted"), (0.0115, "emulated")])
def test_an_emulated_time_is_contradicted_by_the_real_service(seconds: float, badge: str) -> None:
    """Beyond a factor of 1.25 it is wrong; between 1.10 and that nobody can tell, and it stays emulated."""
    ours, theirs = function("lambda-x86", *[0.010] * 5), function("aws-lambda-x86", *[seconds] * 5)
    assert states([ours, theirs], ours)["ort_int8", "p50_s"].badge == badge


@pytest.mark.parametrize("launches", [1, 4])
def test_too_few_real_launches_confirm_no_emulated_time(launches: int) -> None:
    """Fewer than the policy's pairs."""
    ours, theirs = function("lambda-x86", *[0.010] * 5), function("aws-lambda-x86", *[0.010] * launches)
    assert states([ours, theirs], ours)["ort_int8", "p50_s"].badge == "emulated"


@pytest.mark.parametrize("other", ["aws-lambda-x86", "lambda-x86", "cpu-openvino", "cuda-h200"])
def test_an_emulated_arm_time_is_never_believed(other: str) -> None:
    """Whoever measured the same: instructions are emulated too, and their order of speed flips."""
    ours = function("lambda-arm", *[0.010] * 5)
    theirs = function(other, *[0.010] * 5, host="z" * 64)
    found = states([ours, theirs], ours)
    assert {state.badge for (_, metric), state in found.items() if metric.endswith("_s")} <= {"emulated"}
    kinds = {"time", "throughput", "memory", "ratio"}
    arm = targets().target["lambda-arm"]
    assert not kinds & {*arm.authority, *arm.confirmed_by}


def test_a_cold_start_is_compared_start_by_start() -> None:
    """One sample a launch is its time."""
    ours, theirs = (
        evidence(target=target, samples={STARTED: [[0.2], [0.21], [0.2], [0.19], [0.2]]}, host=target[0] * 64)
        for target in ("lambda-x86", "aws-lambda-x86")
    )
    assert states([ours, theirs], ours)["ort_int8", "start_s"].badge == "confirmed"


SPREAD = [[0.005 * (1 + share)] * 60 for share in (-0.09, -0.045, 0.0, 0.045, 0.09)]
"""Five launches whose ratios are within 10 % of the same five with p = 0.034 (Welch, two one-sided tests)."""


@pytest.mark.parametrize(("variants", "badge"), [(1, "confirmed"), (2, "inconclusive")])
def test_comparisons_with_one_authority_are_one_set(variants: int, badge: str) -> None:
    """Holm: what confirms alone at p = 0.034 does not as one of two, for 2 x 0.034 is more than 5 %."""
    cells = [ORT, ORT.model_copy(update={"variant": "openvino_int8"})][:variants]
    times = {EAGER: [[0.010] * 60] * 5, **dict.fromkeys(cells, SPREAD)}
    ours, theirs = mps(samples=times, outputs={}), cuda(samples=times, outputs={})
    found = states([ours, theirs], ours)
    assert {found[cell.variant, "ratio"].badge for cell in cells} == {badge}
    (holm,) = [reason for reason in found["ort_int8", "ratio"].reasons if reason.rule == "holm"]
    assert f"adjusted over {variants} comparison" in holm.number


def test_an_absolute_time_of_a_mac_is_never_confirmed() -> None:
    """Nor is its memory; a ratio to the reference on the same host is."""
    times = {EAGER: [[0.010] * 60] * 5, ORT: [[0.005] * 60] * 5}
    ours, theirs = mps(samples=times, outputs={}), cuda(samples=times, outputs={})
    found = states([ours, theirs], ours)
    assert found["ort_int8", "p95_s"].reasons[0].rule == "local only"
    assert found["ort_int8", "ratio"].badge == "confirmed"


def test_an_export_that_only_another_isa_measured_waits_for_the_deployments() -> None:
    """The authority of a CPU's delta is a CPU of the deployment's instruction set, of another host and role."""
    outputs = {TORCH: SAME, INT8: logits([1] * 3 + [0] * 9_997)}
    ours = evidence(outputs=outputs, labels=LABELS, host="o" * 64)
    assert states([ours], ours)["onnx_int8", "accuracy_delta"].badge == "trusted"
    asked = rules().policy.model_copy(update={"deployment": {"cpu-openvino": "amx"}})
    told = judge([ours], ledger_of([ours]), rules(policy=asked))
    (state,) = [one.state for one in told if one.finding.metric == "accuracy_delta"]
    assert (state.badge, state.reasons[0].rule) == ("unconfirmed", "instruction set")
