"""The ledger of a store: what each key signed, in a chain, so that evidence which disappears is missed.

Each statement names the digest of the one before it by the same key, and `ledger/KEY.jsonl` remembers the digests, so that the
loss of a statement is seen even with its bundle. Whoever removes the end of a chain together with its lines leaves no gap:
a sign-off that saw the end knows, and nothing else does.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

from matrix import whole
from matrix.bundle import ENVELOPE, MANIFEST, Bundle, Evidence
from matrix.canonical import file_digest
from matrix.errors import EvidenceError, MatrixError, UsageError
from matrix.keys import SigningKey
from matrix.provenance import (
    Attestation,
    Entry,
    Granted,
    Head,
    Keyring,
    Ledger,
    Place,
    Revocation,
    Vouched,
    Waiver,
    Withdrawn,
)
from matrix.signing import BUNDLE, REVOCATION, WAIVER, Opened, UnknownKeyError, opened, sign
from matrix.strict import parse_json

STANDS_BY: Final = timedelta(days=90)
"""How long a signer stands by a bundle: after a quarter images, drivers and data have moved on, whatever a policy says."""

_SUFFIX: Final = ".intoto.json"
_Said = Opened[Attestation] | Opened[Revocation]


@dataclass
class _Chain:
    """One key's statements by serial: `entries` are all that are known of, `noted` in its ledger, `here` can be read."""

    key: str
    entries: dict[int, Entry] = field(default_factory=dict)
    noted: set[int] = field(default_factory=set)
    here: dict[int, _Said] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, entry: Entry, said: _Said | None = None) -> None:
        """Take note of an entry; two that claim one serial are a fork."""
        known = self.entries.setdefault(entry.serial, entry)
        if known != entry:
            who = f"ledger/{self.key}.jsonl holds" if entry.serial in self.noted else f"key {self.key[:12]} signed"
            told = " and ".join(f"{one.name} ({one.sha256[:12]})" for one in (known, entry))
            self.faults.append(f"{who} two statements as number {entry.serial}: {told}")
        elif said:
            self.here[entry.serial] = said
        else:
            self.noted.add(entry.serial)

    @property
    def head(self) -> Head:
        """Where the chain ends."""
        last = self.entries[max(self.entries)]
        return Head(serial=last.serial, sha256=last.sha256)

    def gaps(self) -> dict[Place, str]:
        """The places of bundles that this key signed and nobody holds."""
        return {
            self.place(entry): f"{entry.name} is gone, which key {self.key[:12]} signed as number {serial}"
            for serial, entry in self.entries.items()
            if serial not in self.here and entry.kind == "bundle"
        }

    def place(self, entry: Entry) -> Place:
        """Where a statement of this chain stands."""
        return Place(chain=self.key, serial=entry.serial, sha256=entry.sha256)

    def breaks(self) -> Iterator[str]:
        """Where the chain does not hold."""
        yield from self.faults
        yield from self._missing()
        for serial, entry in sorted(self.entries.items()):
            said, before = self.here.get(serial), self.entries.get(serial - 1)
            if said is None and entry.kind == "revocation":
                yield f"the revocation of {entry.name} is gone, number {serial} of key {self.key[:12]}"
            elif said and (serial == 1 or before) and said.predicate.previous != (before.sha256 if before else None):
                yield f"{entry.name}: number {serial} of key {self.key[:12]} does not follow the one before it"
            if serial not in self.noted:
                told = f"ledger/{self.key}.jsonl has no line of its number {serial}"
                yield f"{entry.name}: {told} (it was cut, or a run was killed: the next run or revocation writes it)"

    def _missing(self) -> Iterator[str]:
        """Runs of numbers that nothing is known of; never counted one by one, for a line may claim any number."""
        for before, serial in pairwise([0, *sorted(self.entries)]):
            if serial - before > 1:
                told = f"number {before + 1}" if serial - before == 2 else f"numbers {before + 1} to {serial - 1}"  # noqa: PLR2004 - one is missing
                yield f"{told} of key {self.key[:12]} is gone, and no ledger says what it was"


@dataclass
class _Read:
    """What the files of a store say: chains by key up to `until`, and why some statements are none."""

    until: Mapping[str, Head] | None = None
    chains: dict[str, _Chain] = field(default_factory=dict)
    bundles: dict[str, Opened[Attestation]] = field(default_factory=dict)
    withdrawn: list[Withdrawn] = field(default_factory=list)
    granted: list[Granted] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def chain(self, key: str) -> _Chain:
        """The chain of `key`, begun where there is none."""
        return self.chains.setdefault(key, _Chain(key))

    def is_later(self, key: str, serial: int) -> bool:
        """Whether a statement came after what is asked for."""
        return self.until is not None and (key not in self.until or serial > self.until[key].serial)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _line(entry: Entry) -> bytes:
    """An entry as its ledger holds it: in one spelling, so that no byte of a ledger is free."""
    return entry.model_dump_json().encode() + b"\n"


def subjects(folder: Path, bundle: Bundle) -> dict[str, str]:
    """What a bundle's statement is about: its manifest, each of its files, its student's weights and its image, by SHA-256."""
    found = {MANIFEST: file_digest(folder / MANIFEST)} | {name: entry.sha256 for name, entry in bundle.files.items()}
    if weights := bundle.prepared.student_model.weights_sha256:
        found["student: model.safetensors"] = weights
    if bundle.image:
        found["image: configuration"] = bundle.image.id.removeprefix("sha256:")
    return found


def _facts(bundle: Bundle) -> dict[str, Any]:
    """What a statement repeats of its bundle, so that it can be read alone."""
    same = ("target", "created", "nonce", "attempt", "environment_id", "host_class_id", "host_instance")
    source = ("commit", "tree", "dirty", "suite_sha256")
    return {
        **{name: getattr(bundle, name) for name in same},
        **{name: getattr(bundle.source, name) for name in source},
        "image": bundle.image.id if bundle.image else None,
    }


def differences(folder: Path, one: Evidence, said: Opened[Attestation]) -> list[str]:
    """Facts and files in which the bundle in `folder` is not what its statement says, by name."""
    told, is_ = said.predicate.model_dump(), {**_facts(one.bundle), "bundle": one.name}
    signed, here = said.subjects, subjects(folder, one.bundle)
    wrong = [name for name, value in is_.items() if told[name] != value]
    return wrong + sorted(name for name in signed.keys() | here.keys() if signed.get(name) != here.get(name))


@dataclass(frozen=True)
class Notary:
    """Signs what a run seals, with these keys, into the ledger of its store. Refuses a key that the keyring does not trust."""

    ledgers: Ledgers
    keys: tuple[SigningKey, ...]

    def __post_init__(self) -> None:
        for key in self.keys:
            self.ledgers.check(key)

    def attest(self, folder: Path, name: str, bundle: Bundle) -> None:
        """Sign a bundle before it appears under its name (`store.Attest`)."""
        self.ledgers.attest(folder, name, bundle, self.keys)


class Ledgers:
    """The signed statements of the store under `root`, read with the keys of `keyring`."""

    def __init__(self, root: Path, keyring: Keyring) -> None:
        self.root, self.keyring = root, keyring

    def check(self, key: SigningKey) -> None:
        """Refuse to sign with a key whose own chain could not be read back: it would begin anew, and fork.

        Raises:
            UsageError: the keyring does not trust it.
        """
        known = self.keyring.key.get(key.name)
        if known is None or known.revoked:
            raise UsageError(
                f"your key for {key.role} ({key.name[:12]}) is not trusted by the keyring",
                remedy="add it (`matrix keys trust`), or leave --keyring out",
            )

    def attest(self, folder: Path, name: str, bundle: Bundle, keys: Sequence[SigningKey]) -> None:
        """Sign the bundle that lies in `folder` and will be called `name`; its envelope is written beside the manifest."""
        expires = datetime.fromisoformat(bundle.created) + STANDS_BY
        place = {**self._next(keys[0]), "bundle": name, "expires": expires.isoformat(timespec="seconds")}
        said = Attestation(**place, **_facts(bundle))
        (folder / ENVELOPE).write_bytes(sign(BUNDLE, subjects(folder, bundle), said, keys))

    def revoke(self, name: str, why: str, keys: Sequence[SigningKey]) -> Path:
        """Withdraw the bundle `name`, also one that is gone; the signed revocation's file.

        Raises:
            UsageError: no such bundle is here or was ever signed.
        """
        place, manifest = self._place(name), self.root / "bundles" / name / MANIFEST
        sha256 = file_digest(manifest) if manifest.exists() else place.sha256 if place else None
        if sha256 is None or Path(name).name != name:
            raise UsageError(f"no bundle is called {name!r} here", remedy="name one as the report does")
        said = Revocation(**self._next(keys[0]), bundle=name, created=_now(), why=why, statement=place)
        path = self.root / "revocations" / f"{name}-{secrets.token_hex(4)}{_SUFFIX}"
        whole.write(path, sign(REVOCATION, {name: sha256}, said, keys))
        self.remember()
        return path

    def signed_until(self, until: Mapping[str, Head]) -> set[str]:
        """Bundles that are here and were signed no later than the ends of the chains in `until`."""
        return set(self._read(until).bundles)

    def _place(self, name: str) -> Place | None:
        """Where the statement about a bundle stands; None where nobody who is trusted signed one."""
        chains = self._read().chains.values()
        known = [(chain, entry) for chain in chains for entry in chain.entries.values() if entry.kind == "bundle"]
        return next((chain.place(entry) for chain, entry in known if entry.name == name), None)

    def grant(self, waiver: Waiver, keys: Sequence[SigningKey]) -> Path:
        """Sign a waiver; its file.

        Raises:
            UsageError: another one has its name.
        """
        path = self.root / "waivers" / f"{waiver.name}{_SUFFIX}"
        if path.exists():
            raise UsageError(f"a waiver is called {waiver.name!r} already", remedy="give it another name")
        whole.write(path, sign(WAIVER, {"policy": waiver.policy}, waiver, keys))
        return path

    def remember(self) -> None:
        """Write down every statement that is here: a ledger only grows."""
        for chain in self._read().chains.values():
            lines = b"".join(_line(entry) for _, entry in sorted(chain.entries.items()))
            whole.write(self.root / "ledger" / f"{chain.key}.jsonl", lines)

    def audit(self, evidence: Sequence[Evidence], until: Mapping[str, Head] | None = None) -> Ledger:
        """What the signatures of the store come to, as far as the ends of the chains in `until` where those are given.

        Raises for nothing that a file says: that is a fault, by name.
        """
        read = self._read(until)
        for one in evidence:
            self._compare(one, read)
        self._find_twice_sealed(read)
        gaps = self._gaps(read)
        named = {one.name for one in evidence if not one.faults}
        return Ledger(
            vouched={
                name: Vouched(one.predicate, one.signers)
                for name, one in read.bundles.items()
                if name in named and name not in read.refused
            },
            refused=read.refused,
            withdrawn=tuple(read.withdrawn),
            granted=tuple(read.granted),
            gaps=gaps,
            faults=tuple(
                sorted([*read.faults, *(fault for chain in read.chains.values() for fault in chain.breaks())])
            ),
            digests={
                chain.key: {serial: entry.sha256 for serial, entry in chain.entries.items()}
                for chain in read.chains.values()
            },
        )

    @staticmethod
    def _find_twice_sealed(read: _Read) -> None:
        first: dict[str, str] = {}
        for name, said in sorted(read.bundles.items()):
            if (other := first.setdefault(said.predicate.nonce, name)) != name:
                read.faults.append(f"{name} has the nonce of {other}: one run was sealed twice")

    @staticmethod
    def _gaps(read: _Read) -> dict[str, str]:
        """Bundles that are gone, by name; a gap that borrows the name of a bundle which was withdrawn is a fault."""
        found: dict[str, str] = {}
        withdrawn = {(one.revocation.bundle, one.revocation.statement) for one in read.withdrawn}
        names = {name for name, _ in withdrawn}
        for chain in read.chains.values():
            for place, gap in chain.gaps().items():
                name = chain.entries[place.serial].name
                if name in found or (name in names and (name, place) not in withdrawn):
                    read.faults.append(gap)
                found.setdefault(name, gap)
        return found

    def _next(self, key: SigningKey) -> dict[str, Any]:
        """The place of the next statement in a key's chain."""
        self.check(key)
        chain = self._read().chains.get(key.name)
        head = chain.head if chain else None
        return {"chain": key.name, "serial": head.serial + 1 if head else 1, "previous": head.sha256 if head else None}

    def _compare(self, one: Evidence, read: _Read) -> None:
        """Note where a bundle is not what its statement says."""
        said = read.bundles.get(one.name)
        if said is None:
            read.refused.setdefault(one.name, f"nobody signed it: it has no {ENVELOPE}")
            return
        if wrong := differences(self.root / "bundles" / one.name, one, said):
            read.refused[one.name] = f"not what was signed: {', '.join(wrong[:3])}"
            read.faults.append(f"{one.name} is not what was signed: {', '.join(wrong[:3])}")

    def _read(self, until: Mapping[str, Head] | None = None) -> _Read:
        read = _Read(until)
        for path in sorted(self.root.glob("ledger/*.jsonl")):
            self._read_ledger(path, read)
        for path in sorted(self.root.glob(f"bundles/[!.]*/{ENVELOPE}")):
            self._read_bundle(path, read)
        for path in sorted(self.root.glob(f"revocations/*{_SUFFIX}")):
            found = self._open(path, REVOCATION, Revocation, read)
            if found and not read.is_later(found.predicate.chain, found.predicate.serial):
                read.withdrawn.append(Withdrawn(found.predicate, found.signers))
                self._link(found, "revocation", read)
        for path in sorted(self.root.glob(f"waivers/*{_SUFFIX}")):
            granted = self._open(path, WAIVER, Waiver, read)
            if granted and path.name != f"{granted.predicate.name}{_SUFFIX}":  # a copy under another name
                read.faults.append(f"{path.name} is the waiver {granted.predicate.name}")
            elif granted:
                read.granted.append(Granted(granted.predicate, granted.signers))
        return read

    def _read_ledger(self, path: Path, read: _Read) -> None:
        key = self.keyring.key.get(path.stem)
        if key is None or key.revoked:  # a stranger's, or of a key whose word counts for nothing: nor does its loss
            return
        try:
            for line in path.read_bytes().splitlines(keepends=True):
                entry = parse_json(Entry, line, path.name)
                if _line(entry) != line:
                    raise EvidenceError(f"number {entry.serial} is not spelt as it was written", remedy="restore it")
                if not read.is_later(path.stem, entry.serial):
                    read.chain(path.stem).add(entry)
        except (OSError, MatrixError) as error:
            read.faults.append(f"the ledger {path.name} cannot be read: {error}")

    def _read_bundle(self, path: Path, read: _Read) -> None:
        found = self._open(path, BUNDLE, Attestation, read)
        if found is None or read.is_later(found.predicate.chain, found.predicate.serial):
            return
        name = path.parent.name
        if found.predicate.bundle != name:
            read.faults.append(f"{name} carries the statement of {found.predicate.bundle}")
            read.refused[name] = f"its statement is that of {found.predicate.bundle}"
            return
        read.bundles[name] = found
        self._link(found, "bundle", read)

    def _link(self, found: _Said, kind: Literal["bundle", "revocation"], read: _Read) -> None:
        """Put a statement into the chain of the key that it names, which must have signed it."""
        link = found.predicate
        if link.chain not in {signer.key for signer in found.signers}:
            read.faults.append(f"{link.bundle} stands in the chain of key {link.chain[:12]}, which did not sign it")
            return
        entry = Entry(serial=link.serial, kind=kind, name=link.bundle, sha256=found.sha256)
        read.chain(link.chain).add(entry, found)

    def _open(self, path: Path, kind: str, model: Any, read: _Read) -> Any:  # noqa: ANN401 - the model decides what is opened
        """The statement in `path`; a foreign one is refused, a broken one is a fault."""
        where = path.relative_to(self.root).as_posix()
        name = path.parent.name if kind == BUNDLE else where
        try:
            return opened(path.read_bytes(), kind, model, self.keyring, where)
        except UnknownKeyError as error:
            read.refused[name] = str(error)
        except (OSError, EvidenceError) as error:
            read.refused[name] = str(error)
            read.faults.append(str(error))
        return None
