"""States are derived: who measured, what was asked of whom, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np

from matrix.bundle import Evidence
from matrix.trust import judge
from matrix.verdict import State
from tests.making import EAGER, INT8, NOW, ORT, QUIET, TORCH, evidence, ledger_of, logits, rules, suites

LABELS = np.zeros(10_000, dtype=np.int64)
SAME = logits([0] * 10_000)
WORSE = logits([1] * 100 + [0] * 9_900)
TIMES = {EAGER: [[0.010] * 60] * 5, ORT: [[0.005] * 60] * 5}


def states(bundles: Sequence[Evidence], name: str, *, days: float = 7.0) -> dict[tuple[str, str], State]:
    """States of one bundle's numbers, by variant and metric."""
    judged = judge(bundles, ledger_of(bundles), rules(days))
    return {(one.finding.cell.variant, one.finding.metric): one.state for one in judged if one.finding.bundle == name}


def cuda(**changes: object) -> Evidence:
    """A bundle of an H200 host."""
    fields = {
        "target": "cuda-h200",
        "host": "g" * 64,
        "environment": "u" * 64,
        "outputs": {TORCH: SAME},
        "labels": LABELS,
    }
    return evidence(**(fields | changes))  # type: ignore[arg-type]  # a test's own fields


def mps(**changes: object) -> Evidence:
    """A bundle of a Mac."""
    fields = {"target": "mps", "host": "m" * 64, "environment": "a" * 64, "outputs": {TORCH: SAME}, "labels": LABELS}
    return evidence(**(fields | changes))  # type: ignore[arg-type]  # a test's own fields


def test_a_target_is_trusted_in_what_it_is_the_authority_for() -> None:
    """A healthy CPU bundle's times are the truth about that CPU."""
    one = evidence(samples=TIMES)
    assert {state.badge for (_, metric), state in states([one], one.name).items() if metric != "p99_s"} == {"trusted"}


def test_mps_is_unconfirmed_until_cuda_agrees() -> None:
    """Alone unconfirmed, with the remedy; beside an agreeing CUDA bundle of the same workload confirmed."""
    ours = mps()
    alone = states([ours], ours.name)["torch_fp32", "accuracy"]
    assert (alone.badge, alone.reasons[0].rule) == ("unconfirmed", "authority")
    assert states([ours, cuda()], ours.name)["torch_fp32", "accuracy"].badge == "confirmed"


def test_an_mps_time_is_never_confirmed_and_its_ratio_is() -> None:
    """Even an identical CUDA bundle says nothing about a Mac's milliseconds; it does about ORT against eager."""
    ours, theirs = mps(samples=TIMES, outputs={}), cuda(samples=TIMES, outputs={})
    found = states([ours, theirs], ours.name)
    assert found["ort_int8", "p50_s"].badge == "unconfirmed"
    assert found["ort_int8", "p50_s"].reasons[0].rule == "local only"
    assert found["ort_int8", "ratio"].badge == "confirmed"


def test_a_cuda_bundle_of_another_workload_confirms_nothing() -> None:
    """Other weights, another workload_id: the numbers never meet."""
    ours = mps()
    assert states([ours, cuda(weights="x" * 64)], ours.name)["torch_fp32", "accuracy"].badge == "unconfirmed"


def test_the_authority_must_be_another_host_with_the_same_torch() -> None:
    """The same host_instance, or another torch minor version, is no independent confirmation of this one."""
    ours = mps()
    assert states([ours, cuda(host="m" * 64)], ours.name)["torch_fp32", "accuracy"].badge == "unconfirmed"
    assert states([ours, cuda(torch="2.14.0")], ours.name)["torch_fp32", "accuracy"].badge == "unconfirmed"


def test_the_authority_must_itself_be_fresh_clean_and_whole() -> None:
    """A stale, a dirty or a damaged CUDA bundle confirms nothing."""
    ours = mps()
    stale, dirty = cuda(created=NOW - timedelta(days=8)), cuda(dirty=("matrix/x.py",))
    damaged = replace(cuda(), faults=("outputs/x.npy: changed",))
    for theirs in (stale, dirty, damaged):
        assert states([ours, theirs], ours.name)["torch_fp32", "accuracy"].badge == "unconfirmed"


def test_one_contradiction_beats_any_number_of_confirmations() -> None:
    """Two agreeing CUDA bundles and one that differs: contradicted."""
    ours = mps()
    agreeing = [cuda(), cuda(host="i" * 64)]
    against = cuda(host="j" * 64, outputs={TORCH: WORSE})
    assert states([ours, *agreeing], ours.name)["torch_fp32", "accuracy"].badge == "confirmed"
    assert states([ours, *agreeing, against], ours.name)["torch_fp32", "accuracy"].badge == "contradicted"


def test_every_attempt_counts() -> None:
    """An earlier attempt in the same environment that CUDA contradicts cannot be retried until green."""
    failed, ours = mps(outputs={TORCH: WORSE}, created=NOW - timedelta(hours=1)), mps()
    assert states([failed, ours, cuda()], ours.name)["torch_fp32", "accuracy"].badge == "contradicted"


def test_a_new_environment_clears_a_contradiction() -> None:
    """The failed attempt was of another software environment: it says nothing about this one."""
    failed, ours = mps(outputs={TORCH: WORSE}, environment="b" * 64), mps()
    assert states([failed, ours, cuda()], ours.name)["torch_fp32", "accuracy"].badge == "confirmed"


def test_an_export_delta_is_confirmed_by_the_rule_of_its_kind() -> None:
    """The same small loss on both devices."""
    outputs = {TORCH: SAME, INT8: logits([1, 1, 1] + [0] * 9_997)}
    ours, theirs = mps(outputs=outputs), cuda(outputs=outputs)
    assert states([ours, theirs], ours.name)["onnx_int8", "accuracy_delta"].badge == "confirmed"


def test_invalid_beats_everything_else_that_holds() -> None:
    """A dirty tree, an unknown commit, a date in the future and a damaged file are no evidence, however good the numbers."""
    for one in (
        evidence(samples=TIMES, dirty=("suites/x.py",)),
        evidence(samples=TIMES, commit=None),
        evidence(samples=TIMES, created=NOW + timedelta(hours=1)),
    ):
        assert {state.badge for state in states([one], one.name).values()} == {"invalid"}


def test_age_and_changed_suites_make_a_number_stale() -> None:
    """8 days are too old for a gate and fine for display; other suites are stale at any age."""
    old = evidence(samples=TIMES, created=NOW - timedelta(days=8))
    assert {state.badge for state in states([old], old.name).values()} == {"stale"}
    assert states([old], old.name, days=30.0)["torch_eager", "p50_s"].badge == "trusted"
    other = evidence(samples=TIMES, suites=suites("q"))
    assert states([other], other.name)["torch_eager", "p50_s"].reasons[0].rule == "suites changed"


def test_too_few_launches_are_not_trusted() -> None:
    """Three launches do not bound the median launch at 95 %."""
    one = evidence(samples={EAGER: [[0.01] * 60] * 3})
    state = states([one], one.name)["torch_eager", "p50_s"]
    assert (state.badge, state.reasons[0].number) == ("unconfirmed", "3 launches")


def test_an_emulated_time_stays_emulated() -> None:
    """A Lambda emulator's time is emulated whatever else holds."""
    one = evidence(target="lambda-x86", samples={ORT: [[0.01] * 60] * 5})
    assert states([one], one.name)["ort_int8", "p50_s"].badge == "emulated"


def test_a_doubt_degrades_a_trusted_number() -> None:
    """Steal in every launch: measured, and not believed."""
    one = evidence(samples=TIMES, load=QUIET.model_copy(update={"steal_share": 0.2}))
    state = states([one], one.name)["torch_eager", "p50_s"]
    assert (state.badge, state.validity, state.trust) == ("degraded", "degraded", "trusted")
    assert state.reasons[-1].rule == "cpu_steal"


def test_an_authority_that_is_doubted_itself_confirms_nothing() -> None:
    """A CUDA bundle on a busy host: its ratio is degraded, and so no word about a Mac's."""
    busy = QUIET.model_copy(update={"steal_share": 0.5})
    ours, theirs = mps(samples=TIMES, outputs={}), cuda(samples=TIMES, outputs={}, load=busy)
    assert states([ours, theirs], ours.name)["ort_int8", "ratio"].badge == "unconfirmed"


def test_age_clears_no_contradiction() -> None:
    """A CUDA bundle that differed eight days ago still contradicts beside a fresh one that agrees."""
    ours, old = mps(), cuda(host="j" * 64, outputs={TORCH: WORSE}, created=NOW - timedelta(days=8))
    assert states([ours, cuda(), old], ours.name)["torch_fp32", "accuracy"].badge == "contradicted"


def test_a_divergence_is_not_confirmed_by_an_accuracy() -> None:
    """Logits twenty times smaller have the same answers: the accuracy's delta agrees, the KL divergence has no rule."""
    ours = mps(outputs={TORCH: SAME, INT8: SAME / 20})
    found = states([ours, cuda(outputs={TORCH: SAME, INT8: SAME})], ours.name)
    assert found["onnx_int8", "accuracy_delta"].badge == "confirmed"
    assert found["onnx_int8", "mean_kl"].reasons[0].rule == "local only"
    assert found["onnx_int8", "mean_kl"].badge == "unconfirmed"


def test_a_comparison_inherits_the_doubts_about_its_reference() -> None:
    """The reference was lost in four of five launches: the ratio rests on one pair, and says so."""
    one = evidence(samples=TIMES, lost={(EAGER, index): "raised" for index in range(2, 6)})
    ratio = states([one], one.name)["ort_int8", "ratio"]
    assert (ratio.badge, ratio.reasons[0].number) == ("degraded", "1 launches")
    assert ratio.reasons[-1].number == "torch_eager: measured in 1 of 5 launches"


def test_a_bundle_of_a_target_that_is_gone_is_no_evidence_and_no_error() -> None:
    """An append-only store outlives its targets."""
    one = evidence(target="cuda-v100", samples=TIMES)
    assert states([one, evidence(samples=TIMES)], one.name) == {}


def test_a_machine_whose_software_changed_makes_its_older_bundles_stale() -> None:
    """Another torch in a later bundle of the same host: the older says nothing of it, and says what it was measured with."""
    older = evidence(samples=TIMES, created=NOW - timedelta(hours=2))
    newer = evidence(samples=TIMES, torch="2.14.0+cpu")
    reason = states([older, newer], older.name)["torch_eager", "p50_s"].reasons[0]
    assert (reason.rule, reason.number) == ("environment changed", "measured with torch 2.13.0+cpu")
    assert states([older, newer], newer.name)["torch_eager", "p50_s"].badge == "trusted"


def test_a_failed_attempt_in_another_environment_makes_nothing_stale() -> None:
    """Else a run that lost its launches would do away with one that failed a gate."""
    older = evidence(samples=TIMES, created=NOW - timedelta(hours=2))
    failed = evidence(samples=TIMES, torch="2.14.0+cpu", lost={(ORT, 1): "raised"})
    assert states([older, failed], older.name)["torch_eager", "p50_s"].badge == "trusted"
