"""Keys on this machine: one private key a role, and the keyring of public keys that are trusted here. Nothing is fetched.

A key is trusted because somebody imported it, and it speaks in the one role that the importer gave it.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import Field
from securesystemslib.signer import CryptoSigner, SSlibKey

from matrix import whole
from matrix.errors import DataError, UsageError
from matrix.provenance import DEVELOPMENT, PUBLIC, ROLE, Key, Keyring
from matrix.strict import Strict, parse_json

KEYRING: Final = "keyring.json"


class PublicKey(Strict):
    """A key as it travels: what `keys export` writes and `keys trust` reads."""

    role: str = Field(pattern=ROLE)
    public: str = Field(pattern=PUBLIC)


def home() -> Path:
    """Where this user's keys are kept: $MATRIX_HOME, else the user's configuration folder."""
    given = os.environ.get("MATRIX_HOME")
    return Path(given) if given else Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "distill-matrix"


def identifier(public: str) -> str:
    """A key's name: SHA-256 (hex) of its 32 bytes."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()


def verifier(public: str) -> SSlibKey:
    """The key as securesystemslib verifies with it."""
    return SSlibKey(identifier(public), "ed25519", "ed25519", {"public": public})


def read(path: Path) -> Keyring:
    """The keyring in the file `path`.

    Raises:
        DataError: it cannot be read, or a key goes by another key's name.
    """
    try:
        found = parse_json(Keyring, path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"the keyring {path} cannot be read", remedy=f"give one that exists ({error})") from None
    for name, key in found.key.items():
        if name != identifier(key.public):
            raise DataError(f"{path}: key {name[:12]} goes by another key's name", remedy="import the key again")
    return found


@dataclass(frozen=True)
class SigningKey:
    """A private key with its role; signs outside every container."""

    role: str
    signer: CryptoSigner

    @property
    def public(self) -> str:
        """The public key, hex."""
        return str(self.signer.public_key.keyval["public"])

    @property
    def name(self) -> str:
        """The key's identifier."""
        return identifier(self.public)


def _opened(role: str, pem: bytes, where: Path) -> SigningKey:
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DataError(f"{where} holds no private key", remedy=f"restore it or make another ({error})") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise DataError(f"{where} is no Ed25519 key", remedy="make one with `matrix keys new`")
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    return SigningKey(role, CryptoSigner(private, verifier(raw)))


@dataclass(frozen=True)
class Keys:
    """The keys under one folder (`home()` unless told otherwise), and the keyring in it."""

    folder: Path

    @property
    def path(self) -> Path:
        """The keyring's file."""
        return self.folder / KEYRING

    def keyring(self) -> Keyring:
        """The keys that are trusted here; none before the first is made or imported."""
        return read(self.path) if self.path.exists() else Keyring()

    def new(self, role: str) -> SigningKey:
        """Make a key for `role` and trust it here.

        Raises:
            UsageError: there is one already.
        """
        place = self._place(role)
        if place.exists():
            raise UsageError(f"there is a key for {role} already: {place}", remedy="move it away to make another")
        made = CryptoSigner.generate_ed25519()
        self.trust(PublicKey(role=role, public=str(made.public_key.keyval["public"])))
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(made.private_bytes)
        return self.signing(role)

    def signing(self, role: str) -> SigningKey:
        """The private key of `role`; a first development key is made here and now.

        Raises:
            UsageError: there is none.
        """
        place = self._place(role)
        if not place.exists():
            if role == DEVELOPMENT:
                return self.new(role)
            raise UsageError(
                f"no key for role {role!r} is here", remedy=f"`matrix keys new --role {role}` makes {place}"
            )
        return _opened(role, place.read_bytes(), place)

    def trust(self, key: PublicKey) -> str:
        """Import a public key; its identifier.

        Raises:
            UsageError: it is trusted in another role, or was revoked.
        """
        name, ring = identifier(key.public), self.keyring()
        known = ring.key.get(name)
        if known and (known.role != key.role or known.revoked):
            was = f"revoked on {known.revoked}" if known.revoked else f"trusted as {known.role}"
            raise UsageError(f"key {name[:12]} is already {was}", remedy="a key has one role and one life")
        self._write(ring.key | {name: Key(role=key.role, public=key.public)})
        return name

    def revoke(self, prefix: str, when: str) -> str:
        """Stop trusting the key whose identifier begins with `prefix`; its identifier.

        Raises:
            UsageError: no key, or more than one, begins so.
        """
        ring = self.keyring()
        found = [name for name in ring.key if prefix and name.startswith(prefix)]
        if len(found) != 1:
            raise UsageError(f"{len(found)} keys begin with {prefix!r}", remedy="see `matrix keys list`")
        self._write(ring.key | {found[0]: ring.key[found[0]].model_copy(update={"revoked": when})})
        return found[0]

    def _place(self, role: str) -> Path:
        """The file of a role's private key.

        Raises:
            UsageError: `role` is no name for a role, and could be a path.
        """
        if not re.fullmatch(ROLE, role):
            raise UsageError(f"{role!r} is no name for a role", remedy="use lower-case letters, digits and '-'")
        return self.folder / "keys" / f"{role}.pem"

    def _write(self, keys: dict[str, Key]) -> None:
        whole.write(self.path, f"{Keyring(key=keys).model_dump_json(indent=1)}\n".encode())
