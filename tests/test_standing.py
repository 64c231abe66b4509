"""What makes a whole bundle no evidence, or old, or not this policy's; and what a waiver does about it, which is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from matrix.bundle import Evidence
from matrix.gates import decide, sentence
from matrix.provenance import Granted, Ledger, Revocation, Signer, Waiver, Withdrawn
from matrix.sample import Canary
from matrix.standing import Standing
from matrix.validity import Today
from matrix.verdict import Reason
from tests.making import (
    HOST,
    INT8,
    NOW,
    ORT,
    SOUND,
    SUITES,
    case_of,
    evidence,
    ledger_of,
    policy,
    rules,
    signer,
)
from tests.test_gates import DROP, LATENCY, asking, exported, timed

TIMES = {ORT: [[0.010] * 100] * 5}


def faults(one: Evidence, ledger: Ledger | None = None) -> list[Reason]:
    """Why a bundle is no evidence."""
    return Standing([one], ledger or ledger_of([one]), rules()).faults[one.name]


def with_launch(one: Evidence, **changes: object) -> Evidence:
    """The bundle with a changed second launch."""
    records = [record.model_copy(update=changes) if record.index == 2 else record for record in one.bundle.launches]
    return replace(one, bundle=one.bundle.model_copy(update={"launches": tuple(records)}))


def battery(*canaries: Canary, device: str = "cpu") -> object:
    """What a device answered."""
    return SOUND.model_copy(update={"canaries": canaries, "device": device})


RIGHT = SOUND.canaries[0]
LAUNCHES: list[tuple[Mapping[str, object], str, str]] = [
    ({"battery": None}, "canary", "launch 2 asked none"),
    ({"battery": battery()}, "canary", "launch 2 asked none"),
    ({"battery": battery(RIGHT, device="cuda")}, "canary", "launch 2 asked cuda"),
    ({"battery": battery(RIGHT, Canary(name="m", error=0.2, limit=0.1))}, "canary", "launch 2: m errs by 0.2"),
    (
        {"battery": battery(Canary(name="m", error=None, limit=0.1, detail="a\nb"))},
        "canary",
        "launch 2: m errs by None (b)",
    ),
    ({"environment": None, "battery": None}, "canary", "launch 2 asked none"),
    ({"nonce": "0" * 32}, "nonce", "launch 2 belongs to another run"),
    ({"environment": None, "nonce": ""}, "nonce", "launch 2 belongs to another run"),
    ({"foreign_gpu": ("python3 (812)",)}, "foreign GPU process", "launch 2 shared its GPU with python3 (812)"),
]


@pytest.mark.parametrize(("change", "rule", "number"), LAUNCHES)
def test_one_launch_can_make_the_whole_bundle_invalid(change: dict[str, object], rule: str, number: str) -> None:
    """A wrong answer, no question, another device's answer, another run's launch, company on the GPU."""
    found = [(reason.rule, reason.number) for reason in faults(with_launch(evidence(samples=TIMES), **change))]
    assert (rule, number) in found


def test_a_launch_that_died_before_it_was_asked_is_no_fault() -> None:
    """It measured nothing, and so has nothing to answer for; its cells are lost."""
    lost = {(ORT, 2): "killed"}
    one = with_launch(evidence(samples=TIMES, lost=lost), environment=None, battery=None, nonce="")
    assert faults(one) == []


def test_only_a_target_that_is_emulated_may_skip_its_canaries() -> None:
    """A function has no torch to ask; a bundle of another target that says so of itself was asked nothing."""
    for target, expected in (("lambda-x86", []), ("cpu-openvino", ["canary"] * 5), ("mps", ["canary"] * 5)):
        one = evidence(target=target, samples={ORT: [[0.010] * 100] * 5}, battery=None)
        one = replace(one, bundle=one.bundle.model_copy(update={"executor": "emulator"}))
        assert [reason.rule for reason in faults(one) if reason.rule == "canary"] == expected


@pytest.mark.parametrize(("virtual", "invalid"), [(False, False), (True, True), (None, True)])
def test_a_virtual_mac_is_no_mac(virtual: bool | None, invalid: bool) -> None:
    """Nor one that does not tell; a virtual x86 host is none of this rule's."""
    one = with_launch(evidence(target="mps", samples=TIMES), host=HOST.model_copy(update={"virtual": virtual}))
    assert ("virtual machine" in {reason.rule for reason in faults(one)}) is invalid
    other = with_launch(evidence(samples=TIMES), host=HOST.model_copy(update={"virtual": virtual}))
    assert faults(other) == []


@pytest.mark.parametrize("minutes", [10, 11])
def test_ten_minutes_of_clock_skew_are_no_future(minutes: int) -> None:
    """Hosts' clocks differ; a bundle of tomorrow is none."""
    rules_ = {reason.rule for reason in faults(evidence(samples=TIMES, created=NOW + timedelta(minutes=minutes)))}
    assert ("clock skew" in rules_) is (minutes > 10)


def test_its_signers_stand_by_a_bundle_for_ninety_days() -> None:
    """After that it is stale, whatever age a policy allows."""
    one = evidence(samples=TIMES)
    for days, rules_ in ((90, []), (91, ["expired"])):
        today = Today(NOW + timedelta(days=days, seconds=-1 if days == 90 else 0), SUITES)
        standing = Standing([one], ledger_of([one]), rules(days=1000, today=today))
        assert [reason.rule for reason in standing.stale(one, "inference_latency")] == rules_


def revoked(one: Evidence, role: str) -> Ledger:
    """A ledger in which a bundle is withdrawn by a role."""
    said = Revocation(chain="k", serial=1, previous=None, bundle=one.name, created=NOW.isoformat(), why="a wrong host")
    return ledger_of([one], withdrawn=(Withdrawn(said, (signer(role),)),))


@pytest.mark.parametrize(("role", "answer"), [("release", "fail"), ("nightly-cpu", "pass"), ("development", "pass")])
def test_a_revocation_is_heard_from_whom_the_policy_names(role: str, answer: str) -> None:
    """Who measures, or anybody, cannot take a number back that did not suit."""
    one = timed(0.010)
    found = decide(asking(LATENCY), case_of([one], revoked(one, role)))
    assert found.answer == answer
    assert (found.results[0].badge == "revoked") is (role == "release")


@pytest.mark.parametrize("role", ["development", "nightly-cuda", "release"])
def test_a_number_by_another_role_decides_nothing(role: str) -> None:
    """It is shown as trusted, in its own standing, and its gate stays undecided with the reason."""
    one = timed(0.010)
    (result,) = decide(asking(LATENCY), case_of([one], ledger_of([one], role))).results
    assert (result.answer, result.badge) == ("undecided", "trusted")
    assert result.why == (
        f"role: signed by {role} (the policy accepts nightly-cpu); measure with a key of that role "
        "(`matrix keys new --role`, `matrix run --role`); the bound alone would keep the limit"
    )


def test_what_an_export_costs_counts_on_the_deployments_cpu_only() -> None:
    """Plain AVX2 where production has VNNI: unconfirmed, until a host like production's agrees; a time is of the host."""
    older = HOST.model_copy(update={"flags": ("avx2",)})
    one = exported(3)
    one = replace(
        one,
        bundle=one.bundle.model_copy(
            update={"launches": tuple(r.model_copy(update={"host": older}) for r in one.bundle.launches)}
        ),
    )
    (result,) = decide(asking(DROP), case_of([one])).results
    assert (result.answer, result.badge) == ("undecided", "unconfirmed")
    assert "instruction set: avx2 (the deployment's avx512_vnni)" in result.why
    assert INT8.variant == "onnx_int8"


def granted(
    *roles: str, days: float = 1, ago: float = 1, gate: str = "*", target: str = "*", sha256: str | None = None
) -> Ledger:
    """A ledger with a waiver of the policy that asks for both gates."""
    said = Waiver(
        name="w",
        policy=sha256 or asking(LATENCY, DROP).sha256,
        gate=gate,
        target=target,
        cell="*",
        created=(NOW - timedelta(days=ago)).isoformat(),
        expires=(NOW + timedelta(days=days)).isoformat(),
        why="a known fault",
    )
    return Ledger(granted=(Granted(said, tuple(Signer(key=role * 9, role=role) for role in roles)),))


def judged(evidence_: Sequence[Evidence], ledger: Ledger) -> object:
    """The verdict of both gates under a waiver."""
    both = replace(ledger_of(evidence_), granted=ledger.granted)
    return decide(asking(LATENCY, DROP), case_of(evidence_, both))


WAIVERS: list[tuple[Ledger, str]] = [
    (granted("release"), "pass"),
    (granted("release", gate="drop"), "pass"),
    (granted("release", gate="dr*", target="cpu-*"), "pass"),
    (granted("release", days=0), "fail"),
    (granted("release", days=-0.5), "fail"),
    (granted("release", ago=-0.5), "fail"),
    (granted("nightly-cpu"), "fail"),
    (granted("development"), "fail"),
    (granted(), "fail"),
    (granted("release", gate="warm"), "fail"),
    (granted("release", target="mps"), "fail"),
    (granted("release", sha256=policy().sha256), "fail"),
]


@pytest.mark.parametrize(("ledger", "answer"), WAIVERS)
def test_a_waiver_holds_for_what_it_names_while_it_lasts(ledger: Ledger, answer: str) -> None:
    """By whom the policy asks for, of this policy as it is, begun and not ended; it changes no answer and no badge."""
    found, without = judged([timed(0.010)], ledger), judged([timed(0.010)], Ledger())
    assert found.answer == answer  # type: ignore[attr-defined]
    told = [one.model_copy(update={"waived_by": None}) for one in found.results]  # type: ignore[attr-defined]
    assert told == list(without.results)  # type: ignore[attr-defined]
    assert [one.answer for one in told] == ["pass", "fail"]


def test_every_verdict_prints_its_waivers() -> None:
    """Who signed, until when, why, and how many answers it passes over; also in the one sentence."""
    found = decide(
        asking(LATENCY, DROP),
        case_of([timed(0.010)], replace(ledger_of([timed(0.010)]), granted=granted("release").granted)),
    )
    (note,) = found.waivers
    assert (note.name, note.why, note.used, note.signers[0].role) == ("w", "a known fault", 1, "release")
    assert sentence(found).endswith("PASS (1 fail, 1 pass of 2 requirements), 1 of them waived by w")


def test_a_waiver_never_covers_invalid_evidence() -> None:
    """A torn bundle, a changed file, a gap: the verdict is invalid, and no waiver passes over that."""
    one = timed(0.010)
    ledger = replace(ledger_of([one]), granted=granted("release").granted)
    whole = case_of([one], ledger)
    for case in (
        replace(whole, torn=["x is torn"]),
        replace(whole, evidence=[one, replace(exported(0), faults=("x: changed",))]),
        replace(whole, ledger=replace(ledger, gaps={"x": "x is gone"})),
        replace(whole, ledger=replace(ledger, faults=("two statements",))),
    ):
        found = decide(asking(LATENCY, DROP), case)
        assert found.answer == "fail"
        assert len(found.invalid) == 1


def test_what_is_no_evidence_asks_for_no_cells() -> None:
    """An unsigned bundle of a larger profile required that profile's cells: its deletion would have helped."""
    gate = LATENCY.model_copy(
        update={"suite": "training_step", "variants": ("raw_torch",), "where": {}, "metric": "step_s"}
    )
    one = timed(0.010)
    large = one.bundle.model_copy(update={"profile": one.bundle.profile.model_copy(update={"name": "full"})})
    other = replace(one, bundle=large, name="cpu-openvino-other")
    cells = [
        {result.cell for result in decide(asking(gate), case_of(several, ledger_of([one]))).results}
        for several in ([one], [one, other])
    ]
    assert cells[0] == cells[1]
