"""A release is signed off on a pass, once, by whom the policy names; the record is derived anew, and outlives what comes later."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from matrix.bundle import ENVELOPE, MANIFEST
from matrix.errors import EvidenceError, ExitCode, UsageError
from matrix.keys import Keys, SigningKey, home
from matrix.ledger import Ledgers
from matrix.policy import Policy, Signed
from matrix.provenance import Keyring, Waiver
from matrix.signing import cosigned
from matrix.signoff import SignOff, check, read, witnessed, write
from matrix.store import LAUNCH, Store
from tests.making import NOW, ORT, case_of, evidence, profiles, sealed, targets
from tests.test_gates import DROP, LATENCY, asking

CPU = "nightly-cpu"
POLICY = asking(LATENCY)


def key(role: str) -> SigningKey:
    """The key of a role, made when it is first asked for."""
    keys = Keys(home())
    return keys.signing(role) if (keys.folder / "keys" / f"{role}.pem").exists() else keys.new(role)


def ring() -> Keyring:
    """All keys of this test."""
    return Keys(home()).keyring()


def timed(root: Path, seconds: float, hours: float) -> Path:
    """A bundle in the store."""
    return sealed(root, evidence(samples={ORT: [[seconds] * 100] * 5}, created=NOW - timedelta(hours=hours)), CPU)


def signed_off(root: Path, policy: Policy = POLICY, *roles: str, release: str = "1.0") -> Path:
    """The record of a release that the store's evidence lets ship."""
    evidence_, _ = Store(root).load_all()
    ledger = witnessed(root, ring(), Ledgers(root, ring()).audit(evidence_))
    return write(root, release, policy, case_of(evidence_, ledger), [key(role) for role in roles or ("release",)])


def checked(path: Path) -> SignOff:
    """The record, derived anew."""
    return check(path, path.parents[1], ring(), targets(), profiles())


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A record over two bundles."""
    timed(tmp_path, 0.010, 2)
    timed(tmp_path, 0.011, 1)
    return signed_off(tmp_path)


def waiver(name: str, *, gate: str = "*", policy: Policy = POLICY, hours: float = 1) -> Waiver:
    """A waiver that was granted some hours ago and holds for a day."""
    granted = NOW - timedelta(hours=hours)
    return Waiver(
        name=name,
        policy=policy.sha256,
        gate=gate,
        target="*",
        cell="*",
        created=granted.isoformat(),
        expires=(granted + timedelta(days=1)).isoformat(),
        why="a known fault",
    )


def test_a_record_names_policy_bundles_and_signers_and_holds(record: Path) -> None:
    """Read back and derived anew: the same verdict."""
    found = checked(record)
    assert (found.release, found.verdict.answer, found.policy) == ("1.0", "pass", POLICY)
    assert len(found.verdict.bundles) == 2
    assert set(read(record, ring()).subjects) == set(found.verdict.bundles)


@pytest.mark.parametrize(("seconds", "code"), [(0.020, ExitCode.FAIL), (None, ExitCode.FAIL)])
def test_only_a_pass_is_signed_off(tmp_path: Path, seconds: float | None, code: ExitCode) -> None:
    """A fail and no evidence at all are refused with the gate's exit code, and nothing is written."""
    if seconds:
        timed(tmp_path, seconds, 1)
    with pytest.raises(EvidenceError, match="not signed off") as caught:
        signed_off(tmp_path)
    assert caught.value.exit_code is code
    assert not (tmp_path / "signoffs").exists()


def test_invalid_evidence_is_refused_with_its_own_code(tmp_path: Path) -> None:
    """A bundle that is gone beside one that passes."""
    shutil.rmtree(timed(tmp_path, 0.020, 2))
    timed(tmp_path, 0.010, 1)
    with pytest.raises(EvidenceError) as caught:
        signed_off(tmp_path)
    assert caught.value.exit_code is ExitCode.INVALID_EVIDENCE


def test_a_release_is_signed_off_once(record: Path) -> None:
    """A second record would replace what was promised."""
    with pytest.raises(UsageError, match=r"1\.0 was signed off already"):
        signed_off(record.parents[1])


@pytest.mark.parametrize("release", ["../1.0", "", "1 0", "-1", "a/b"])
def test_a_release_is_no_path(record: Path, release: str) -> None:
    """Its name becomes a file's."""
    with pytest.raises(UsageError, match="is no name for a release"):
        signed_off(record.parents[1], release=release)


CHANGES: dict[str, Callable[..., object]] = {
    "a sample": lambda place: (place / "launches" / "01" / "benchmark.json").write_bytes(b"{}"),
    "a launch": lambda place: (place / "launches" / "02" / LAUNCH).unlink(),
    "the manifest": lambda place: (place / MANIFEST).write_bytes((place / MANIFEST).read_bytes() + b" "),
    "the signature": lambda place: (place / ENVELOPE).unlink(),
    "the bundle": shutil.rmtree,
    "the ledger": lambda place: shutil.rmtree(place.parents[1] / "ledger"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_record_does_not_hold_when_anything_changed(record: Path, what: str) -> None:
    """One of its two bundles is other than it was, or gone."""
    place = min((record.parents[1] / "bundles").iterdir())
    CHANGES[what](place)
    with pytest.raises(EvidenceError, match=r"the sign-off of 1\.0 does not hold"):
        checked(record)


def test_a_record_does_not_hold_when_one_of_its_keys_is_revoked(record: Path) -> None:
    """The measurer's: its bundles count for nothing; the signer's: nobody vouches for the record."""
    Keys(home()).revoke(key(CPU).name, "2026-11-23")
    with pytest.raises(EvidenceError, match="does not hold"):
        checked(record)
    Keys(home()).revoke(key("release").name, "2026-11-23")
    with pytest.raises(EvidenceError, match="was revoked on 2026-11-23"):
        checked(record)


def test_a_record_outlives_later_bundles_revocations_and_waivers(record: Path) -> None:
    """A later failure, the withdrawal of a bundle that it names, and a waiver of the same second change nothing about that day."""
    root = record.parents[1]
    named = min(checked(record).verdict.bundles)
    timed(root, 0.020, 0)
    Ledgers(root, ring()).revoke(named, "a wrong host", [key("release")])
    Ledgers(root, ring()).grant(waiver("later", gate="other", hours=0), [key("release")])
    assert checked(record).verdict.waivers == ()
    with pytest.raises(EvidenceError, match="not signed off"):
        signed_off(root, release="1.1")


def test_a_record_keeps_the_waiver_that_it_rests_on(tmp_path: Path) -> None:
    """The verdict passes over one answer, and says so; without the waiver's file it does not hold."""
    asked = asking(LATENCY, DROP)
    timed(tmp_path, 0.010, 1)
    path = Ledgers(tmp_path, ring()).grant(waiver("no-export", gate="drop", policy=asked), [key("release")])
    record = signed_off(tmp_path, asked)
    (note,) = checked(record).verdict.waivers
    assert (note.name, note.used, note.why) == ("no-export", 1, "a known fault")
    assert [one.answer for one in checked(record).verdict.results] == ["pass", "fail"]
    path.unlink()
    with pytest.raises(EvidenceError, match="derived again the verdict is another"):
        checked(record)


def test_a_record_sees_an_end_that_was_cut_off(record: Path) -> None:
    """The last bundle and its line are gone without a gap: the record has seen their number, and the verdict is invalid."""
    root = record.parents[1]
    (path,) = (root / "ledger").glob(f"{key(CPU).name}.jsonl")
    *kept, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept))
    shutil.rmtree(next(place for place in (root / "bundles").iterdir() if place.name.encode() in last))
    found, _ = Store(root).load_all()
    ledger = Ledgers(root, ring()).audit(found)
    assert (ledger.gaps, ledger.faults) == ({}, ())
    (fault,) = witnessed(root, ring(), ledger).faults
    assert fault == f"sign-off 1.0 saw number 2 of key {key(CPU).name[:12]}, which is not in the ledger"


def test_a_strangers_record_is_no_witness_and_a_torn_one_is_a_fault(record: Path) -> None:
    """Whoever is not trusted cannot make a store invalid; a record that was changed does."""
    root = record.parents[1]
    found, _ = Store(root).load_all()
    ledger = Ledgers(root, ring()).audit(found)
    others = {name: one for name, one in ring().key.items() if one.role != "release"}
    assert witnessed(root, Keyring(key=others), ledger).faults == ()
    record.write_bytes(record.read_bytes()[:-2])
    assert len(witnessed(root, ring(), ledger).faults) == 1
    record.unlink()
    record.mkdir()
    assert len(witnessed(root, ring(), ledger).faults) == 1


def test_two_signatures_where_two_are_asked_for(tmp_path: Path) -> None:
    """One does not hold until another role adds its own."""
    both = Signed(roles=("release", "security"), threshold=2)
    asked = POLICY.model_copy(update={"signatures": POLICY.signatures.model_copy(update={"signoff": both})})
    timed(tmp_path, 0.010, 1)
    record = signed_off(tmp_path, asked)
    with pytest.raises(EvidenceError, match="it is signed by release, its policy asks for 2 of release or security"):
        checked(record)
    record.write_bytes(cosigned(record.read_bytes(), [key("security")], record.name))
    assert checked(record).release == "1.0"


def test_a_record_by_the_wrong_role_does_not_hold(tmp_path: Path) -> None:
    """Development signs what it likes; the policy names who may."""
    timed(tmp_path, 0.010, 1)
    with pytest.raises(EvidenceError, match="it is signed by development, its policy asks for release"):
        checked(signed_off(tmp_path, POLICY, "development"))


def test_a_record_that_was_judged_by_other_definitions_says_so(record: Path) -> None:
    """Cells may be required that were none then: it is for that version to check it."""
    others = targets()
    others = others.model_copy(update={"target": {"cpu-openvino": others.target["cpu-openvino"]}})
    with pytest.raises(EvidenceError, match="with other definitions: check it with that version"):
        check(record, record.parents[1], ring(), others, profiles())


def test_a_record_that_leaves_an_attempt_out_does_not_hold(tmp_path: Path) -> None:
    """Signed by who may, over the bundle that passes and not over the slower one that lay beside it."""
    timed(tmp_path, 0.010, 2)
    kept, _ = Store(tmp_path).load_all()
    timed(tmp_path, 0.020, 1)
    ledger = Ledgers(tmp_path, ring()).audit(kept)
    path = write(tmp_path, "1.0", POLICY, case_of(kept, ledger), [key("release")])
    with pytest.raises(EvidenceError, match="derived again the verdict is another"):
        checked(path)
    shutil.rmtree(max((tmp_path / "bundles").iterdir(), key=lambda place: place.name not in {one.name for one in kept}))
    with pytest.raises(EvidenceError, match="derived again the verdict is another"):
        checked(path)
