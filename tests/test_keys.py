"""A key is trusted because somebody imported it, in one role, and its private half stays where it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from matrix.errors import DataError, UsageError
from matrix.keys import Keys, PublicKey, home, identifier, read
from matrix.strict import parse


def test_a_new_key_is_trusted_here_and_only_its_owner_can_read_it() -> None:
    """Mode 600, a keyring with its public half; the same key is read back."""
    keys = Keys(home())
    made = keys.new("release")
    path = keys.folder / "keys" / "release.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys.keyring().key[made.name].role == "release"
    assert made.public not in path.read_text(encoding="utf-8")
    assert keys.signing("release").name == made.name == identifier(made.public)


def test_a_role_has_one_key_on_a_machine() -> None:
    """A second would hide the first."""
    keys = Keys(home())
    keys.new("release")
    with pytest.raises(UsageError, match="there is a key for release already"):
        keys.new("release")


def test_only_a_development_key_makes_itself() -> None:
    """A local run can always sign; nobody speaks in another role by accident."""
    keys = Keys(home())
    assert keys.signing("development").role == "development"
    with pytest.raises(UsageError, match="no key for role 'release' is here"):
        keys.signing("release")


@pytest.mark.parametrize("role", ["../release", "Release", "", "a/b", "a b", "-a", "release\n"])
def test_a_role_is_no_path(role: str) -> None:
    """Refused before a file of that name is looked for."""
    for ask in (Keys(home()).new, Keys(home()).signing):
        with pytest.raises(UsageError, match="is no name for a role"):
            ask(role)
    with pytest.raises(DataError, match="role"):
        parse(PublicKey, {"role": role, "public": "0" * 64}, "key.json")


@pytest.mark.parametrize("public", ["", "xyz", "0" * 63, "0" * 66, "A" * 64])
def test_a_public_key_is_32_bytes_in_hexadecimal(public: str) -> None:
    """Whatever else a file holds is refused when it is imported, and not when it is used."""
    with pytest.raises(DataError, match="public"):
        parse(PublicKey, {"role": "release", "public": public}, "key.json")


def test_a_key_has_one_role_and_one_life() -> None:
    """It cannot be imported again in another role, nor after it was revoked."""
    keys = Keys(home())
    public = keys.new("nightly-cpu").public
    with pytest.raises(UsageError, match="already trusted as nightly-cpu"):
        keys.trust(PublicKey(role="release", public=public))
    name = keys.revoke(identifier(public)[:12], "2026-11-22")
    assert keys.keyring().key[name].revoked == "2026-11-22"
    with pytest.raises(UsageError, match="already revoked on 2026-11-22"):
        keys.trust(PublicKey(role="nightly-cpu", public=public))


@pytest.mark.parametrize("prefix", ["", "zz"])
def test_a_key_is_revoked_by_a_name_that_only_it_has(prefix: str) -> None:
    """Nothing, or what several begin with, revokes none."""
    keys = Keys(home())
    keys.new("release")
    keys.new("nightly-cpu")
    with pytest.raises(UsageError, match="keys begin with"):
        keys.revoke(prefix, "2026-11-22")


def test_a_key_under_another_keys_name_is_refused(tmp_path: Path) -> None:
    """A keyring that was edited so that one key verifies in another's name."""
    path = tmp_path / "keyring.json"
    told = {"key": {"0" * 64: {"role": "release", "public": "1" * 64}}}
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(DataError, match="goes by another key's name"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff"])
def test_a_file_that_is_no_private_key_is_a_sentence(content: bytes) -> None:
    """With the file's name."""
    keys = Keys(home())
    keys.new("release")
    (keys.folder / "keys" / "release.pem").write_bytes(content)
    with pytest.raises(DataError, match=r"release\.pem holds no private key"):
        keys.signing("release")


def test_a_key_of_another_kind_is_refused() -> None:
    """RSA signs too, and nothing here verifies it."""
    keys = Keys(home())
    keys.new("release")
    pem = generate_private_key(65_537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (keys.folder / "keys" / "release.pem").write_bytes(pem)
    with pytest.raises(DataError, match="is no Ed25519 key"):
        keys.signing("release")
