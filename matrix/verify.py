"""Says of a bundle, a store or a sign-off whether it holds, offline: files, signatures, chains, and a verdict derived anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matrix import definitions
from matrix.bundle import ENVELOPE, MANIFEST, Evidence
from matrix.errors import EvidenceError, MatrixError, UsageError
from matrix.ledger import Ledgers, differences
from matrix.profile import parse_profiles
from matrix.provenance import Attestation, Keyring, Ledger, Signer
from matrix.signing import BUNDLE, opened
from matrix.signoff import SUFFIX, check, witnessed
from matrix.store import Store, load
from matrix.strict import Strict
from matrix.target import parse_targets


class Checked(Strict):
    """What was found of one thing."""

    name: str
    holds: bool
    says: str


def _signed(said: Attestation, signers: tuple[Signer, ...]) -> str:
    commit, by = (said.commit or "no commit")[:12], " and ".join(map(str, signers))
    return f"every file as sealed, signed by {by} as number {said.serial} until {said.expires[:10]}, code {commit}"


def _bundle(one: Evidence, ledger: Ledger) -> Checked:
    if one.faults:
        return Checked(name=one.name, holds=False, says="; ".join(one.faults))
    vouched = ledger.vouched.get(one.name)
    if vouched is None:
        return Checked(name=one.name, holds=False, says=ledger.refused.get(one.name, "nobody signed it"))
    told = [
        f"; revoked by {' and '.join(map(str, w.signers))}: {w.revocation.why}"
        for w in ledger.withdrawn
        if w.revocation.bundle == one.name
    ]
    return Checked(name=one.name, holds=True, says=_signed(vouched.attestation, vouched.signers) + "".join(told))


def _alone(folder: Path, ring: Keyring) -> Checked:
    """A bundle that lies in no store: no ledger says what came before it."""
    one = load(folder)
    try:
        said = opened((folder / ENVELOPE).read_bytes(), BUNDLE, Attestation, ring, ENVELOPE)
    except (OSError, EvidenceError) as error:
        return Checked(name=one.name, holds=False, says=str(error))
    wrong = [*one.faults, *(differences(folder, one, said) if not one.faults else ())]
    if wrong:
        return Checked(name=one.name, holds=False, says=f"not what was signed: {', '.join(wrong)}")
    return Checked(name=one.name, holds=True, says=f"{_signed(said.predicate, said.signers)}; no ledger is beside it")


def _signoff(path: Path, store: Path, ring: Keyring) -> Checked:
    targets, profiles = (definitions.text(name) for name in ("targets.toml", "profiles.toml"))
    try:
        record = check(path, store, ring, parse_targets(targets), parse_profiles(profiles))
    except EvidenceError as error:
        return Checked(name=path.name, holds=False, says=str(error))
    verdict = record.verdict
    waivers = f", {len(verdict.waivers)} waivers" if verdict.waivers else ""
    says = f"{record.release} may ship: {verdict.policy} passed on {verdict.judged[:10]}, {len(verdict.bundles)} bundles{waivers}"
    return Checked(name=path.name, holds=True, says=says)


def _store(root: Path, ring: Keyring) -> Iterator[Checked]:
    evidence, torn = Store(root).load_all()
    ledger = witnessed(root, ring, Ledgers(root, ring).audit(evidence))
    yield from (_bundle(one, ledger) for one in evidence)
    revoked = {one.revocation.bundle for one in ledger.withdrawn}
    gone = [gap for name, gap in sorted(ledger.gaps.items()) if name not in revoked]
    for fault in (*map(str, torn), *gone, *ledger.faults):
        yield Checked(name=root.name, holds=False, says=fault)
    for key, head in ledger.heads.items():
        role = ring.key[key].role if key in ring.key else "a stranger"
        yield Checked(
            name=f"ledger {key[:12]}",
            holds=True,
            says=f"{head.serial} statements by {role}, the last {head.sha256[:12]}",
        )
    yield from (_signoff(path, root, ring) for path in sorted(root.glob(f"signoffs/*{SUFFIX}")))


def verified(path: Path, store: Path, ring: Keyring) -> list[Checked]:
    """What holds of the bundle, the store or the sign-off at `path`; a sign-off that lies in no store is checked with `store`.

    Raises:
        UsageError: `path` is none of them.
    """
    if path.is_file():
        home = path.resolve().parent
        return [_signoff(path, home.parent if home.name == "signoffs" else store, ring)]
    if (path / "bundles").is_dir():
        return list(_store(path, ring))
    root = path.resolve().parent
    if root.name != "bundles":
        if not (path / MANIFEST).exists():
            what = f"{path} is neither a bundle, nor a store, nor a sign-off"
            raise UsageError(what, remedy="see `matrix verify --help`")
        return [_alone(path, ring)]
    try:
        one = load(path)
    except MatrixError as error:
        return [Checked(name=path.name, holds=False, says=str(error))]
    evidence, _ = Store(root.parent).load_all()
    return [_bundle(one, Ledgers(root.parent, ring).audit(evidence))]
