"""A sign-off: the record that a release may ship, which anyone can check later without us: verdict, policy, bundles, signers.

Refuses whatever is not a pass. Checked offline, a record is derived anew from the bundles that it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from matrix import whole
from matrix.bundle import MANIFEST, Evidence
from matrix.canonical import digest, file_digest
from matrix.cell import Suite
from matrix.errors import EvidenceError, ExitCode, UsageError
from matrix.gates import Case, decide, sentence
from matrix.keys import SigningKey
from matrix.ledger import Ledgers
from matrix.policy import Policy
from matrix.profile import Profiles
from matrix.provenance import Head, Keyring, Ledger
from matrix.signing import SIGNOFF, VERDICT, Opened, UnknownKeyError, opened, sign
from matrix.store import Store
from matrix.strict import Strict
from matrix.target import Targets
from matrix.validity import Today
from matrix.verdict import Verdict

SUFFIX: Final = ".intoto.json"


class SignOff(Strict):
    """What is signed. `definitions_sha256` are the targets and profiles, `suites` what decides the numbers of each suite."""

    release: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str
    definitions_sha256: str
    suites: dict[Suite, str] | None
    policy: Policy
    verdict: Verdict


def definitions_digest(targets: Targets, profiles: Profiles) -> str:
    """Digest of the definitions that decide which cells a policy requires."""
    return digest([targets.model_dump(mode="json"), profiles.model_dump(mode="json")])


def write(folder: Path, release: str, policy: Policy, case: Case, keys: Sequence[SigningKey]) -> Path:
    """Sign that `release` may ship; the record's file under `folder`/signoffs.

    Raises:
        UsageError: the release was signed off already, or its name is none for a file.
        EvidenceError: the verdict is not a pass; its exit code is the gate's.
    """
    verdict = decide(policy, case)
    if verdict.answer != "pass":
        raise RefusedError(verdict)
    path = folder / "signoffs" / f"{release}{SUFFIX}"
    if path.exists():
        raise UsageError(
            f"{release} was signed off already: {path}", remedy="a release is signed off once: name another"
        )
    try:
        record = SignOff(
            release=release,
            version=metadata.version("distill-matrix"),
            definitions_sha256=definitions_digest(case.targets, case.profiles),
            suites=None if case.today.suites is None else dict(case.today.suites),
            policy=policy,
            verdict=verdict,
        )
    except ValidationError:
        raise UsageError(
            f"{release!r} is no name for a release", remedy="use letters, digits, '.', '_' and '-'"
        ) from None
    subjects = {name: file_digest(folder / "bundles" / name / MANIFEST) for name in verdict.bundles}
    whole.write(path, sign(SIGNOFF, subjects, record, keys))
    return path


class _Verifier(Strict):
    id: str
    policy: dict[str, str | dict[str, str]]


class Result(Strict):
    """in-toto's Simple Verification Result: who verified under which policy, when, and what was found to hold."""

    verifier: _Verifier
    timeCreated: str  # noqa: N815 - in-toto's name
    properties: tuple[str, ...]


def signed_verdict(verdict: Verdict, text: str, keys: Sequence[SigningKey]) -> bytes:
    """The verdict (whose JSON is `text`) as a signed Simple Verification Result: the gates that pass are its properties."""
    gates = dict.fromkeys(result.gate for result in verdict.results)
    kept = [gate for gate in gates if all(one.answer == "pass" for one in verdict.results if one.gate == gate)]
    passed = [f"MATRIX_POLICY_{verdict.policy}"] if verdict.answer == "pass" else []
    policy: dict[str, str | dict[str, str]] = {"name": verdict.policy, "digest": {"sha256": verdict.policy_sha256}}
    result = Result(
        verifier=_Verifier(
            id=f"https://distill-matrix.dev/verifier/{metadata.version('distill-matrix')}", policy=policy
        ),
        timeCreated=verdict.judged,
        properties=(*passed, *(f"MATRIX_GATE_{gate}" for gate in kept)),
    )
    return sign(VERDICT, {"verdict.json": hashlib.sha256(text.encode()).hexdigest()}, result, keys)


class RefusedError(EvidenceError):
    """A release whose verdict is not a pass; `exit_code` is the verdict's own."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"not signed off: {sentence(verdict)}", remedy="`matrix gate` lists every requirement")
        self.exit_code = exit_of(verdict)


def exit_of(verdict: Verdict) -> ExitCode:
    """The exit code of a verdict."""
    codes = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "undecided": ExitCode.UNDECIDED}
    return ExitCode.INVALID_EVIDENCE if verdict.invalid else codes[verdict.answer]


def read(path: Path, ring: Keyring) -> Opened[SignOff]:
    """The sign-off in the file `path`.

    Raises:
        EvidenceError: no trusted key signed it, or it is none.
    """
    return opened(path.read_bytes(), SIGNOFF, SignOff, ring, path.name)


def witnessed(folder: Path, ring: Keyring, ledger: Ledger) -> Ledger:
    """The ledger, with a fault for each end of a chain that a sign-off saw and that is no longer there.

    Only what saw the end of a chain can tell that it was cut off.
    """
    lost: list[str] = []
    for path in sorted(folder.glob(f"signoffs/*{SUFFIX}")):
        try:
            record = read(path, ring).predicate
        except UnknownKeyError:  # a stranger's word is no witness
            continue
        except (OSError, EvidenceError) as error:
            lost.append(str(error))
            continue
        lost += [f"sign-off {record.release} {fault}" for fault in _cut_off(record.verdict.heads, ledger)]
    return replace(ledger, faults=(*ledger.faults, *lost))


def _cut_off(heads: Mapping[str, Head], ledger: Ledger) -> Iterator[str]:
    for key, head in sorted(heads.items()):
        if ledger.digests.get(key, {}).get(head.serial) != head.sha256:
            yield f"saw number {head.serial} of key {key[:12]}, which is not in the ledger"


def check(path: Path, folder: Path, ring: Keyring, targets: Targets, profiles: Profiles) -> SignOff:
    """Check a record offline: its signers, its policy, its bundles and ledger, and the verdict, which is derived anew.

    Raises:
        EvidenceError: with everything that does not hold.
    """
    found = read(path, ring)
    record, faults = found.predicate, list(_faults_of_record(found))
    evidence, _ = Store(folder).load_all()
    ledgers = Ledgers(folder, ring)
    # also what the record does not name, had it been signed by then: who signs off may leave no attempt out
    then = {*record.verdict.bundles, *ledgers.signed_until(record.verdict.heads)}
    known = [one for one in evidence if one.name in then]
    faults += _faults_of_bundles(found, {one.name: one for one in known}, folder)
    faults += _cut_off(record.verdict.heads, ledgers.audit(evidence))
    if not faults:
        faults += _derived_anew(record, known, ledgers, targets, profiles)
    if faults:
        raise EvidenceError(f"the sign-off of {record.release} does not hold", remedy="; ".join(faults))
    return record


def _faults_of_record(found: Opened[SignOff]) -> Iterator[str]:
    record = found.predicate
    asked = record.policy.signatures.signoff
    if not asked.accepts(found.signers):
        yield f"it is signed by {', '.join(one.role for one in found.signers)}, its policy asks for {asked}"
    if record.policy.sha256 != record.verdict.policy_sha256:
        yield "its verdict is of another policy"
    if record.verdict.answer != "pass" or record.verdict.invalid:
        yield f"its verdict is {record.verdict.answer}"
    if set(found.subjects) != set(record.verdict.bundles):
        yield "it is not about the bundles of its verdict"


def _faults_of_bundles(found: Opened[SignOff], here: Mapping[str, Evidence], folder: Path) -> Iterator[str]:
    for name, sha256 in sorted(found.subjects.items()):
        if name not in here:
            yield f"{name} is not here"
        elif here[name].faults:
            yield f"{name}: {here[name].faults[0]}"
        elif file_digest(folder / "bundles" / name / MANIFEST) != sha256:
            yield f"{name} is not the bundle that was signed off"


def _derived_anew(
    record: SignOff, evidence: Sequence[Evidence], ledgers: Ledgers, targets: Targets, profiles: Profiles
) -> Iterator[str]:
    """Where the verdict is another one when it is derived again: from the same bundles, on the same day."""
    version = metadata.version("distill-matrix")
    if (record.version, record.definitions_sha256) != (version, definitions_digest(targets, profiles)):
        yield f"it was judged by version {record.version} with other definitions: check it with that version"
        return
    today = Today(datetime.fromisoformat(record.verdict.judged), record.suites)
    ledger = ledgers.audit(evidence, record.verdict.heads)
    then = {
        one.name for one in record.verdict.waivers
    }  # every waiver that held was printed: a later one changes nothing
    ledger = replace(ledger, granted=tuple(one for one in ledger.granted if one.waiver.name in then))
    again = decide(record.policy, Case(evidence, ledger, targets, profiles, today))
    if again != record.verdict:
        yield f"derived again the verdict is another: {sentence(again)}"
