"""A statement is taken for signed when every key that signed it is trusted, and every byte of it is as it was signed."""

from __future__ import annotations

import base64
import json

import pytest
import rfc8785
from securesystemslib.dsse import Envelope

from matrix.errors import EvidenceError
from matrix.keys import Keys, SigningKey, home
from matrix.policy import Signed
from matrix.provenance import Keyring, Waiver
from matrix.signing import BUNDLE, PAYLOAD_TYPE, WAIVER, UnknownKeyError, cosigned, opened, sign

SAID = Waiver(
    name="w",
    policy="0" * 64,
    gate="*",
    target="*",
    cell="*",
    created="2026-11-22T12:00:00+00:00",
    expires="2026-11-23T12:00:00+00:00",
    why="a known fault",
)
ABOUT = {"policy": "0" * 64}


def key(role: str) -> SigningKey:
    """A key of this test's own."""
    return Keys(home()).new(role)


def ring(*trusted: SigningKey) -> Keyring:
    """The keyring without the keys that are not named."""
    names = {one.name for one in trusted}
    return Keyring(key={name: one for name, one in Keys(home()).keyring().key.items() if name in names})


def test_a_statement_says_what_of_what_and_who_signed_it() -> None:
    """Predicate, subjects and signers, as they went in."""
    mine = key("release")
    found = opened(sign(WAIVER, ABOUT, SAID, [mine]), WAIVER, Waiver, ring(mine), "w")
    assert (found.predicate, found.subjects) == (SAID, ABOUT)
    assert [(one.key, one.role) for one in found.signers] == [(mine.name, "release")]


def test_a_strangers_statement_is_nobodys() -> None:
    """The key is not in the keyring: refused by its name."""
    mine, other = key("release"), key("nightly-cpu")
    with pytest.raises(UnknownKeyError, match=f"its key {mine.name[:12]} is not in the keyring"):
        opened(sign(WAIVER, ABOUT, SAID, [mine]), WAIVER, Waiver, ring(other), "w")


def test_a_revoked_key_vouches_for_nothing_whenever_it_signed() -> None:
    """A signature from before the revocation too: nobody can tell when it was made."""
    mine = key("release")
    data = sign(WAIVER, ABOUT, SAID, [mine])
    Keys(home()).revoke(mine.name, "2026-11-22")
    with pytest.raises(UnknownKeyError, match="was revoked on 2026-11-22"):
        opened(data, WAIVER, Waiver, Keys(home()).keyring(), "w")


def test_a_threshold_of_two_is_met_by_cosigning() -> None:
    """One key is not enough, two are; the same key twice is one."""
    first, second = key("release"), key("security")
    asked = Signed(roles=("release", "security"), threshold=2)
    alone = sign(WAIVER, ABOUT, SAID, [first])
    both = cosigned(alone, [second], "w")
    again = cosigned(alone, [first], "w")
    told = [opened(data, WAIVER, Waiver, ring(first, second), "w").signers for data in (alone, both, again)]
    assert [asked.accepts(signers) for signers in told] == [False, True, False]


def test_one_stranger_among_the_signers_is_one_too_many() -> None:
    """Whoever can add a signature to an envelope could otherwise hide behind a trusted one."""
    mine, other = key("release"), key("security")
    data = cosigned(sign(WAIVER, ABOUT, SAID, [mine]), [other], "w")
    with pytest.raises(UnknownKeyError):
        opened(data, WAIVER, Waiver, ring(mine), "w")


def test_a_signature_of_other_bytes_in_a_trusted_keys_name_is_refused() -> None:
    """The signature of one statement under the payload of another."""
    mine = key("release")
    one, other = (
        json.loads(sign(WAIVER, ABOUT, SAID.model_copy(update={"why": why}), [mine])) for why in ("one", "other")
    )
    one["signatures"] = other["signatures"]
    with pytest.raises(EvidenceError, match="its signature is not of these bytes"):
        opened(rfc8785.dumps(one) + b"\n", WAIVER, Waiver, ring(mine), "w")


def test_a_statement_of_another_kind_is_refused() -> None:
    """A waiver is no bundle's statement, whoever signed it."""
    mine = key("release")
    with pytest.raises(EvidenceError, match=r"expected was a .*bundle/v1"):
        opened(sign(WAIVER, ABOUT, SAID, [mine]), BUNDLE, Waiver, ring(mine), "w")


@pytest.mark.parametrize("number", [2**53, float("nan"), 10**400])
def test_a_trusted_keys_nonsense_is_a_refusal_too(number: float) -> None:
    """What has no canonical form, signed by one who may sign: a sentence, and no traceback."""
    mine = key("release")
    statement = json.loads(base64.b64decode(json.loads(sign(WAIVER, ABOUT, SAID, [mine]))["payload"]))
    statement["predicate"]["days"] = number
    envelope = Envelope(json.dumps(statement).encode(), PAYLOAD_TYPE, {})
    envelope.sign(mine.signer)
    with pytest.raises(EvidenceError, match="says nothing that is known here"):
        opened(rfc8785.dumps(envelope.to_dict()) + b"\n", WAIVER, Waiver, ring(mine), "w")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b" " + data,
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b":", b": ", 1),
    ],
)
def test_a_statement_has_one_spelling(change: object) -> None:
    """White space that JSON would not mind is another file."""
    mine = key("release")
    with pytest.raises(EvidenceError, match="is not spelt as it was signed"):
        opened(change(sign(WAIVER, ABOUT, SAID, [mine])), WAIVER, Waiver, ring(mine), "w")  # type: ignore[operator]
