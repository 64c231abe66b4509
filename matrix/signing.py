"""Signed statements: in-toto statements in DSSE envelopes, signed and opened offline (securesystemslib, in-toto-attestation).

An envelope is one canonical line of JSON: another spelling of the same statement is refused, so no byte of it is free.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import rfc8785
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import STATEMENT_TYPE_URI, Statement
from pydantic import ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError

from matrix.errors import EvidenceError, MatrixError
from matrix.keys import SigningKey, verifier
from matrix.provenance import Keyring, Signer
from matrix.strict import Strict, parse_json

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_OURS: Final = "https://distill-matrix.dev/attestation"
BUNDLE: Final = f"{_OURS}/bundle/v1"
REVOCATION: Final = f"{_OURS}/revocation/v1"
WAIVER: Final = f"{_OURS}/waiver/v1"
SIGNOFF: Final = f"{_OURS}/signoff/v1"
VERDICT: Final = "https://in-toto.io/attestation/svr/v0.2"
"""Predicate types; a verdict is in-toto's own Simple Verification Result."""

P = TypeVar("P", bound=Strict)


class _Digest(Strict):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Subject(Strict):
    """What a statement is about: a name and its SHA-256."""

    name: str
    digest: _Digest


class _Statement(Strict):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    type: str = Field(alias="_type")
    subject: tuple[Subject, ...]
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, Any]


class _Signature(Strict):
    keyid: str
    sig: str


class _Envelope(Strict):
    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: tuple[_Signature, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Opened(Generic[P]):
    """A statement whose signatures were checked: its digest, what it says of what, and which trusted keys signed it."""

    sha256: str
    subjects: Mapping[str, str]
    predicate: P
    signers: tuple[Signer, ...]


class UnknownKeyError(EvidenceError):
    """Nobody who is trusted here signed this."""


def sign(kind: str, subjects: Mapping[str, str], predicate: Strict, keys: Sequence[SigningKey]) -> bytes:
    """An envelope that says `predicate` about `subjects` (SHA-256 by name), signed by each of `keys`."""
    statement = {
        "_type": STATEMENT_TYPE_URI,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": kind,
        "predicate": predicate.model_dump(mode="json"),
    }
    about = [ResourceDescriptor(name=name, digest={"sha256": digest}).pb for name, digest in subjects.items()]
    Statement(about, kind, statement["predicate"]).validate()
    envelope = Envelope(rfc8785.dumps(statement), PAYLOAD_TYPE, {})
    for key in keys:
        envelope.sign(key.signer)
    return rfc8785.dumps(envelope.to_dict()) + b"\n"


def cosigned(data: bytes, keys: Sequence[SigningKey], where: str) -> bytes:
    """The envelope `data` with the signatures of `keys` added.

    Raises:
        EvidenceError: it is no envelope.
    """
    envelope = _envelope(data, where)
    for key in keys:
        envelope.sign(key.signer)
    return rfc8785.dumps(envelope.to_dict()) + b"\n"


def _envelope(data: bytes, where: str) -> Envelope:
    """The envelope in `data`, in its one spelling.

    Raises:
        EvidenceError: it is none, or is spelt otherwise.
    """
    try:
        parsed = parse_json(_Envelope, data, where)
        envelope = Envelope.from_dict(parsed.model_dump(by_alias=True))
        again = rfc8785.dumps(envelope.to_dict()) + b"\n"
    except (MatrixError, ValueError, KeyError, binascii.Error) as error:
        raise EvidenceError(f"{where} is no signed statement", remedy=f"restore it ({error})") from None
    if again != data:
        raise EvidenceError(f"{where} is not spelt as it was signed", remedy="restore it")
    return envelope


def _signers(envelope: Envelope, keyring: Keyring, where: str) -> tuple[Signer, ...]:
    """The keys that signed: every one of them is trusted, and every signature is of these bytes.

    Raises:
        UnknownKeyError: a key that signed is not trusted.
        EvidenceError: a signature in a trusted key's name is not that key's.
    """
    keys = {name: keyring.key.get(name) for name in envelope.signatures}
    for name, key in keys.items():
        if key is None or key.revoked:
            why = f"was revoked on {key.revoked}" if key else "is not in the keyring"
            raise UnknownKeyError(
                f"{where}: its key {name[:12]} {why}", remedy="`matrix keys trust` imports a public key"
            )
    trusted = {name: key for name, key in keys.items() if key}
    try:
        envelope.verify([verifier(key.public) for key in trusted.values()], len(trusted))
    except VerificationError:
        raise EvidenceError(f"{where}: its signature is not of these bytes", remedy="restore it") from None
    return tuple(Signer(key=name, role=key.role) for name, key in sorted(trusted.items()))


def opened(data: bytes, kind: str, model: type[P], keyring: Keyring, where: str) -> Opened[P]:
    """What the envelope `data` says, once its signatures were checked.

    Raises:
        UnknownKeyError: no key that is trusted here signed it.
        EvidenceError: it is no envelope, a signature does not fit, or it says something else than a `kind`.
    """
    envelope = _envelope(data, where)
    signers = _signers(envelope, keyring, where)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(f"{where} holds {envelope.payload_type}", remedy=f"a statement is {PAYLOAD_TYPE}")
    try:
        statement = parse_json(_Statement, envelope.payload, where)
        predicate = model.model_validate_json(rfc8785.dumps(statement.predicate))
    except (MatrixError, ValidationError, ValueError) as error:
        raise EvidenceError(f"{where} says nothing that is known here", remedy=str(error)) from None
    if (statement.type, statement.predicate_type) != (STATEMENT_TYPE_URI, kind):
        raise EvidenceError(f"{where} is a {statement.predicate_type}", remedy=f"expected was a {kind}")
    subjects = {subject.name: subject.digest.sha256 for subject in statement.subject}
    return Opened(hashlib.sha256(envelope.payload).hexdigest(), subjects, predicate, signers)
