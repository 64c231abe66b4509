"""Who vouches for evidence: keys with roles, what they sign, and the chain in which they sign it. Types and nothing else.

A signature proves who, and which bytes. It proves no honesty: that is what canaries, cross-checks and other hosts are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

from pydantic import Field

from matrix.strict import Moment, Strict

DEVELOPMENT: Final = "development"
"""The role of the key that a local run makes for itself; the policies of production do not accept it."""


ROLE: Final = r"^[a-z0-9][a-z0-9-]*$"
PUBLIC: Final = r"^[0-9a-f]{64}$"
"""A role's name, and the 32 bytes of a public key."""


class Key(Strict):
    """A public key (Ed25519, hex) that was trusted by importing it, and the one role that it may speak in."""

    role: str = Field(pattern=ROLE)
    public: str = Field(pattern=PUBLIC)
    revoked: str | None = None


class Keyring(Strict):
    """The keys that are trusted here, by their identifier. A revoked key vouches for nothing, whenever it signed."""

    key: dict[str, Key] = Field(default_factory=dict)


class Link(Strict):
    """A place in the chain of one key: its first statement has serial 1 and no `previous` (SHA-256 of the payload before)."""

    chain: str
    serial: int = Field(ge=1)
    previous: str | None


class Attestation(Link):
    """What is signed about a bundle: which run it was, what it measured, where, and how long the signer stands by it."""

    bundle: str
    target: str
    created: Moment
    expires: Moment
    nonce: str
    attempt: int
    commit: str | None
    tree: str | None
    dirty: tuple[str, ...]
    image: str | None
    suite_sha256: str
    environment_id: str
    host_class_id: str
    host_instance: str


class Place(Strict):
    """Where one statement stands: its digest, and its number in which key's chain."""

    chain: str
    serial: int = Field(ge=1)
    sha256: str


class Revocation(Link):
    """A bundle is withdrawn, and why: nothing that it says counts any more, for or against any number.

    `statement` is the bundle's own (None: nobody signed it): a ledger's lines are not signed, and without it the line of
    any statement could be given the withdrawn bundle's name.
    """

    bundle: str
    created: Moment
    why: str = Field(min_length=1)
    statement: Place | None = None


class Waiver(Strict):
    """One requirement may be unmet until a date. It names the gate, target and cell (patterns); it changes no answer, no badge."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    policy: str
    gate: str
    target: str
    cell: str
    created: Moment
    expires: Moment
    why: str = Field(min_length=1)

    def covers(self, gate: str, target: str, cell: str) -> bool:
        """Whether the requirement of `gate` on this cell of this target is the one that is waived."""
        named = ((gate, self.gate), (target, self.target), (cell, self.cell))
        # a cell's name holds brackets, which fnmatch would read as a set of characters
        return all(fnmatchcase(value, pattern.replace("[", "[[]")) for value, pattern in named)


class Entry(Strict):
    """A line of a ledger: the statement with this serial and digest, so that its loss is seen."""

    serial: int = Field(ge=1)
    kind: Literal["bundle", "revocation"]
    name: str
    sha256: str


class Head(Strict):
    """Where a chain ends."""

    serial: int
    sha256: str


class Signer(Strict):
    """A key that verified a signature."""

    key: str
    role: str

    def __str__(self) -> str:
        return f"{self.role} (key {self.key[:12]})"


@dataclass(frozen=True)
class Vouched:
    """A bundle's signed statement, and the trusted keys that signed it."""

    attestation: Attestation
    signers: tuple[Signer, ...]


@dataclass(frozen=True)
class Withdrawn:
    """A revocation, and who signed it."""

    revocation: Revocation
    signers: tuple[Signer, ...]


@dataclass(frozen=True)
class Granted:
    """A waiver, and who signed it."""

    waiver: Waiver
    signers: tuple[Signer, ...]


@dataclass(frozen=True)
class Ledger:
    """What the signatures of a store come to: a fact for judgement, which never reads a key or a file.

    `refused` says of each bundle (of another statement: of its file) that no trusted key signed why it is not heard. `gaps` names
    statements that the chains know and nobody holds, by the bundle's name: invalid unless it was revoked. `faults` are chains
    that fork or break. `digests` are those of all statements, by key and serial.
    """

    vouched: Mapping[str, Vouched] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    withdrawn: tuple[Withdrawn, ...] = ()
    granted: tuple[Granted, ...] = ()
    gaps: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    digests: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @property
    def heads(self) -> dict[str, Head]:
        """Where each key's chain ends."""
        return {
            key: Head(serial=max(chain), sha256=chain[max(chain)])
            for key, chain in sorted(self.digests.items())
            if chain
        }
