"""What a key signed cannot disappear unseen: forks, gaps, cut middles, lost revocations, borrowed names and reused runs."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from matrix.bundle import ENVELOPE, Bundle
from matrix.errors import UsageError
from matrix.gates import Case, decide
from matrix.keys import Keys, home
from matrix.ledger import Ledgers
from matrix.provenance import Attestation, Ledger, Waiver
from matrix.signing import BUNDLE, sign
from matrix.store import Store, load
from tests.making import NOW, ORT, case_of, evidence, policy, sealed
from tests.test_gates import LATENCY, asking

CPU = "nightly-cpu"


def bundle(root: Path, index: int, *roles: str) -> Path:
    """The index-th bundle of a store, an hour after the one before."""
    one = evidence(samples={ORT: [[0.010] * 60] * 5}, created=NOW - timedelta(hours=9 - index))
    return sealed(root, one, *(roles or (CPU,)))


def three(root: Path) -> list[Path]:
    """Three bundles of one key."""
    return [bundle(root, index) for index in (1, 2, 3)]


def ledgers(root: Path) -> Ledgers:
    """The store's, with this test's keyring."""
    return Ledgers(root, Keys(home()).keyring())


def audited(root: Path) -> Ledger:
    """What the signatures of the store come to."""
    return ledgers(root).audit(Store(root).load_all()[0])


def case(root: Path) -> Case:
    """The store as it is judged."""
    return case_of(Store(root).load_all()[0], audited(root))


def lines(root: Path, role: str = CPU) -> Path:
    """The ledger of a role's key."""
    return root / "ledger" / f"{Keys(home()).signing(role).name}.jsonl"


def cut(path: Path, *numbers: int) -> None:
    """Remove lines of a ledger, counted from 1."""
    kept = [line for at, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1) if at not in numbers]
    path.write_bytes(b"".join(kept))


def test_three_bundles_are_a_chain(tmp_path: Path) -> None:
    """Each is vouched for, numbered, and follows the one before; nothing is missed."""
    places = three(tmp_path)
    found = audited(tmp_path)
    assert [found.vouched[place.name].attestation.serial for place in places] == [1, 2, 3]
    assert (found.refused, found.gaps, found.faults) == ({}, {}, ())
    (head,) = found.heads.values()
    assert head.serial == 3


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_bundle_that_is_gone_is_a_gap_by_name(tmp_path: Path, index: int) -> None:
    """First, middle or last: its ledger's line tells of it, and the verdict is invalid."""
    place = three(tmp_path)[index]
    shutil.rmtree(place)
    found = audited(tmp_path)
    assert list(found.gaps) == [place.name]
    (fault,) = decide(asking(LATENCY), case(tmp_path)).invalid
    assert fault == f"{found.gaps[place.name]}; restore it, or have it revoked (`matrix revoke`)"


@pytest.mark.parametrize("several", [(1,), (2,), (1, 2)])
def test_a_middle_that_was_cut_with_its_lines_is_missed(tmp_path: Path, several: tuple[int, ...]) -> None:
    """What comes after knows its number."""
    places = three(tmp_path)
    for number in several:
        shutil.rmtree(places[number - 1])
    cut(lines(tmp_path), *several)
    (fault,) = audited(tmp_path).faults
    told = f"number {several[0]}" if len(several) == 1 else "numbers 1 to 2"
    assert fault.startswith(f"{told} of key")
    assert fault.endswith("is gone, and no ledger says what it was")


def test_lines_that_are_gone_are_missed_though_their_statements_are_here(tmp_path: Path) -> None:
    """Whoever removes a line first, and the statement tomorrow, is seen today."""
    places = three(tmp_path)
    cut(lines(tmp_path), 3)
    (fault,) = audited(tmp_path).faults
    assert fault.startswith(f"{places[2].name}: ledger/{lines(tmp_path).name} has no line of its number 3 (it was cut")
    lines(tmp_path).unlink()
    assert len(audited(tmp_path).faults) == 3


def test_two_statements_of_one_number_are_a_fork(tmp_path: Path) -> None:
    """A chain was copied, went on in two places, and both ends were brought together."""
    bundle(tmp_path, 1)
    shutil.copytree(tmp_path, tmp_path / "other")
    bundle(tmp_path, 2)
    there = bundle(tmp_path / "other", 3)
    shutil.copytree(there, tmp_path / "bundles" / there.name)
    (fault,) = audited(tmp_path).faults
    assert "two statements as number 2" in fault
    assert there.name in fault


def test_a_statement_that_does_not_follow_the_one_before_is_a_break(tmp_path: Path) -> None:
    """Number 1 was replaced by another number 1, with its line."""
    first = three(tmp_path)[0]
    other = bundle(tmp_path / "other", 4)
    shutil.rmtree(first)
    shutil.copytree(other, tmp_path / "bundles" / other.name)
    mine, theirs = (lines(root).read_bytes().splitlines(keepends=True) for root in (tmp_path, tmp_path / "other"))
    lines(tmp_path).write_bytes(b"".join([theirs[0], *mine[1:]]))
    assert any("does not follow the one before it" in fault for fault in audited(tmp_path).faults)


def test_a_revoked_bundle_may_be_gone(tmp_path: Path) -> None:
    """Withdrawn by whom the policy asks for, before or after it disappeared: nothing is missed."""
    places = three(tmp_path)
    release = Keys(home()).new("release")
    ledgers(tmp_path).revoke(places[1].name, "a wrong host", [release])
    shutil.rmtree(places[1])
    assert decide(asking(LATENCY), case(tmp_path)).invalid == ()
    shutil.rmtree(places[0])
    ledgers(tmp_path).revoke(places[0].name, "lost with its disk", [release])
    assert decide(asking(LATENCY), case(tmp_path)).invalid == ()


def test_who_measures_may_not_withdraw(tmp_path: Path) -> None:
    """A revocation by the nightly key is heard by nobody: the bundle that is gone is missed."""
    places = three(tmp_path)
    ledgers(tmp_path).revoke(places[1].name, "I would rather not", [Keys(home()).signing(CPU)])
    assert decide(asking(LATENCY), case(tmp_path)).answer == "pass"
    shutil.rmtree(places[1])
    assert decide(asking(LATENCY), case(tmp_path)).invalid != ()


@pytest.mark.parametrize("with_line", [True, False])
def test_a_revocation_that_is_gone_is_missed(tmp_path: Path, with_line: bool) -> None:
    """Alone by its line; with its line by the number of the next one."""
    places, release = three(tmp_path), Keys(home()).new("release")
    first = ledgers(tmp_path).revoke(places[0].name, "one", [release])
    ledgers(tmp_path).revoke(places[1].name, "two", [release])
    first.unlink()
    if with_line:
        cut(lines(tmp_path, "release"), 1)
    (fault,) = audited(tmp_path).faults
    assert "is gone" in fault
    assert "number 1 of key" in fault


@pytest.mark.parametrize("part", ["name", "all"])
def test_a_line_under_a_withdrawn_bundles_name_excuses_no_loss(tmp_path: Path, part: str) -> None:
    """Lines are not signed: the one of the last bundle is given the name (and the digest) of one that was withdrawn."""
    places, release = three(tmp_path), Keys(home()).new("release")
    ledgers(tmp_path).revoke(places[0].name, "a wrong host", [release])
    shutil.rmtree(places[2])
    told = lines(tmp_path).read_text(encoding="utf-8").splitlines(keepends=True)
    forged = told[2].replace(places[2].name, places[0].name) if part == "name" else told[0].replace(":1,", ":3,")
    lines(tmp_path).write_text("".join([*told[:2], forged]), encoding="utf-8")
    assert decide(asking(LATENCY), case(tmp_path)).invalid == (
        f"{places[0].name} is gone, which key {lines(tmp_path).stem[:12]} signed as number 3",
    )


def test_one_run_that_was_sealed_twice_is_found(tmp_path: Path) -> None:
    """Two bundles with one nonce: the better of two sealings is no second attempt."""
    one = evidence(samples={ORT: [[0.010] * 60] * 5})
    other = evidence(samples={ORT: [[0.009] * 60] * 5})
    names = [sealed(tmp_path, each, CPU).name for each in (one, other)]
    (fault,) = audited(tmp_path).faults
    assert fault == f"{max(names)} has the nonce of {min(names)}: one run was sealed twice"


def test_the_statement_of_another_bundle_is_none(tmp_path: Path) -> None:
    """An envelope that was copied from one bundle to another: refused, and a gap where it came from."""
    first, second, _ = three(tmp_path)
    shutil.copyfile(first / ENVELOPE, second / ENVELOPE)
    found = audited(tmp_path)
    assert found.refused[second.name] == f"its statement is that of {first.name}"
    assert second.name in found.gaps


def signed_as(place: Path, change: dict[str, object], *roles: str) -> None:
    """Sign a bundle with a statement that was changed."""
    whole: Bundle = load(place).bundle
    keys = [Keys(home()).signing(role) for role in roles]
    book = ledgers(place.parents[1])
    book.attest(place, place.name, whole, keys)
    (said,) = [one.predicate for one in book._read().bundles.values() if one.predicate.bundle == place.name]
    told = {name: entry.sha256 for name, entry in whole.files.items()}
    (place / ENVELOPE).write_bytes(sign(BUNDLE, told, Attestation(**(said.model_dump() | change)), keys))


def test_a_chain_that_its_signer_does_not_own_is_not_entered(tmp_path: Path) -> None:
    """One key signs a statement as the next of another's chain: a fault, and the other's chain stays as it is."""
    places = three(tmp_path)
    Keys(home()).new("release")
    (places[2] / ENVELOPE).unlink()
    owner = Keys(home()).signing(CPU).name
    signed_as(places[2], {"chain": owner, "serial": 4}, "release")
    told = audited(tmp_path).faults
    assert any(fault.endswith(f"stands in the chain of key {owner[:12]}, which did not sign it") for fault in told)


@pytest.mark.parametrize("fact", ["target", "nonce", "commit", "environment_id", "host_instance", "attempt"])
def test_a_statement_that_says_otherwise_than_its_bundle_is_refused(tmp_path: Path, fact: str) -> None:
    """Each fact that it repeats is compared."""
    (place,) = [bundle(tmp_path, 1)]
    lines(tmp_path).unlink()
    (place / ENVELOPE).unlink()
    signed_as(place, {fact: 7 if fact == "attempt" else "other"}, CPU)
    assert audited(tmp_path).refused[place.name].startswith(f"not what was signed: {fact}")


def test_a_bundle_that_nobody_signed_says_so(tmp_path: Path) -> None:
    """Missing, and by a stranger: neither is vouched for, both say why."""
    place = bundle(tmp_path, 1)
    stranger = audited_without(tmp_path, CPU)
    assert "is not in the keyring" in stranger.refused[place.name]
    assert stranger.vouched == {}
    (place / ENVELOPE).unlink()
    assert audited(tmp_path).refused[place.name] == f"nobody signed it: it has no {ENVELOPE}"


def audited_without(root: Path, role: str) -> Ledger:
    """What they come to for one who does not trust a role's key."""
    ring = Keys(home()).keyring()
    others = {name: key for name, key in ring.key.items() if key.role != role}
    return Ledgers(root, ring.model_copy(update={"key": others})).audit(Store(root).load_all()[0])


def test_a_revoked_keys_bundles_are_refused_and_not_called_gone(tmp_path: Path) -> None:
    """They lie there: nothing that the key signed counts, and so nothing of it can be missed."""
    places = three(tmp_path)
    Keys(home()).revoke(Keys(home()).signing(CPU).name, "2026-11-22")
    found = audited(tmp_path)
    assert set(found.refused) == {place.name for place in places}
    assert (found.gaps, found.faults, found.vouched) == ({}, (), {})


def test_what_is_not_here_cannot_be_withdrawn(tmp_path: Path) -> None:
    """A name that was mistyped."""
    with pytest.raises(UsageError, match="no bundle is called 'cpu-openvino-0' here"):
        ledgers(tmp_path).revoke("cpu-openvino-0", "x", [Keys(home()).new("release")])


def test_a_waiver_goes_by_its_own_name(tmp_path: Path) -> None:
    """Two of one name are refused; a copy under another name is a fault; a name is no path."""
    waiver = Waiver(
        name="w",
        policy=policy().sha256,
        gate="*",
        target="*",
        cell="*",
        created=NOW.isoformat(),
        expires=NOW.isoformat(),
        why="x",
    )
    release = Keys(home()).new("release")
    path = ledgers(tmp_path).grant(waiver, [release])
    with pytest.raises(UsageError, match="a waiver is called 'w' already"):
        ledgers(tmp_path).grant(waiver, [release])
    shutil.copyfile(path, path.with_name("v.intoto.json"))
    assert audited(tmp_path).faults == ("v.intoto.json is the waiver w",)
    with pytest.raises(ValueError, match="name"):
        Waiver(**(waiver.model_dump() | {"name": "../w"}))
