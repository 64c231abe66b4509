"""Commands that sign: keys, revoke, waive, cosign, signoff. Private keys never leave this machine, and enter no container."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from matrix import signoff as record
from matrix import whole
from matrix.commands import options
from matrix.errors import UsageError
from matrix.gather import gather as gathered
from matrix.keys import Keys, PublicKey, home
from matrix.ledger import Ledgers
from matrix.policy import Signed
from matrix.provenance import Waiver
from matrix.signing import cosigned
from matrix.store import Store
from matrix.strict import parse_json

_one_role = click.option("--role", required=True, help="What the key speaks as, nightly-cuda for instance.")


@click.group()
def keys() -> None:
    """Keys: one private key a role on this machine, and the public keys that are trusted here.

    \b
    matrix keys new --role nightly-cuda          on the runner
    matrix keys export --role nightly-cuda       the file to carry over
    matrix keys trust nightly-cuda.pub.json      where gates are judged
    """  # noqa: D301 - click's own mark, a backspace


@keys.command()
@_one_role
def new(role: str) -> None:
    """Make a key for ROLE; its public half is trusted here from now on."""
    mine = Keys(home())
    made = mine.new(role)
    click.echo(f"{made.name}: {role}, private in {mine.folder / 'keys' / f'{role}.pem'}")


@keys.command()
@_one_role
@click.option("--out", type=click.Path(path_type=Path), default=None, help="File to write [default: ROLE.pub.json].")
def export(role: str, out: Path | None) -> None:
    """Write the public half of ROLE's key, for others to trust."""
    place = out or Path(f"{role}.pub.json")
    key = PublicKey(role=role, public=Keys(home()).signing(role).public)
    place.write_text(key.model_dump_json() + "\n", encoding="utf-8")
    click.echo(str(place))


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
def trust(file: Path) -> None:
    """Trust the public key in FILE, in the role that it names: whoever holds its private half speaks so here."""
    key = parse_json(PublicKey, file.read_bytes(), str(file))
    click.echo(f"{Keys(home()).trust(key)}: trusted as {key.role}")


@keys.command(name="revoke")
@click.argument("key")
def revoke_key(key: str) -> None:
    """Stop trusting KEY (the beginning of its identifier): whatever it signed, whenever, counts for nothing here."""
    name = Keys(home()).revoke(key, datetime.now(UTC).date().isoformat())
    click.echo(f"{name}: revoked")


@keys.command(name="list")
@options.keyring
def list_keys(keyring: Path | None) -> None:
    """List the keys that are trusted here."""
    table = Table("key", "role", "state", title="Keys that are trusted here")
    for name, key in options.keyring_of(keyring).key.items():
        table.add_row(name[:16], key.role, f"revoked {key.revoked}" if key.revoked else "trusted")
    Console().print(table)


def _may(roles: tuple[str, ...], asked: Signed, what: str) -> None:
    """Refuse to sign what the policy would not hear.

    Raises:
        UsageError: none of `roles` is one that it asks for.
    """
    if not set(roles) & set(asked.roles):
        raise UsageError(
            f"the policy lets {asked} {what}, not {', '.join(roles)}",
            remedy="sign with --role, by a key that `matrix keys new` makes and that the judge trusts",
        )


@click.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@options.store
def gather(stores: tuple[Path, ...], store: Path) -> None:
    """Add the bundles, statements and ledgers of other machines' STORES to --store. Nothing is overwritten or judged."""
    for other in stores:
        click.echo(f"{other}: {gathered(store, other)} new")


@click.command()
@click.argument("bundle")
@click.option("--why", required=True, help="The reason, which the report prints.")
@options.store
@options.policy
@options.keyring
@options.role
def revoke(
    bundle: str, why: str, store: Path, policy: Path | None, keyring: Path | None, roles: tuple[str, ...]
) -> None:
    """Withdraw BUNDLE, by a signed statement: nothing that it says counts any more, for or against any number."""
    _may(roles, options.policy_of(policy).signatures.revocation, "withdraw a bundle")
    with Store(store).measuring():
        ledgers = Ledgers(store, options.keyring_of(keyring))
        path = ledgers.revoke(bundle, why, options.keys_of(roles))
    click.echo(str(path))


@click.command()
@click.argument("name")
@click.option("--gate", "gate_", required=True, help="Gate (a pattern).")
@click.option("--target", default="*", show_default=True, help="Target (a pattern).")
@click.option("--cell", default="*", show_default=True, help="Cell (a pattern).")
@click.option("--days", type=click.IntRange(1, 90), required=True, help="How long it holds.")
@click.option("--why", required=True, help="The reason, which every verdict prints.")
@options.store
@options.policy
@options.keyring
@options.role
def waive(  # a command has as many parameters as options
    name: str,
    gate_: str,
    target: str,
    cell: str,
    days: int,
    why: str,
    store: Path,
    policy: Path | None,
    keyring: Path | None,
    roles: tuple[str, ...],
) -> None:
    """Let a requirement be unmet for some days, by a signed waiver called NAME.

    It changes no answer and no badge; it lapses when the policy changes, and never covers invalid evidence.
    """
    now, asked = datetime.now(UTC), options.policy_of(policy)
    _may(roles, asked.signatures.waiver, "waive a requirement")
    waiver = Waiver(
        name=name,
        policy=asked.sha256,
        gate=gate_,
        target=target,
        cell=cell,
        created=now.isoformat(timespec="seconds"),
        expires=(now + timedelta(days=days)).isoformat(timespec="seconds"),
        why=why,
    )
    click.echo(str(Ledgers(store, options.keyring_of(keyring)).grant(waiver, options.keys_of(roles))))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@options.role
def cosign(file: Path, roles: tuple[str, ...]) -> None:
    """Add your signature to the statement in FILE: a sign-off or a waiver whose policy asks for more than one."""
    whole.write(file, cosigned(file.read_bytes(), options.keys_of(roles), file.name))
    click.echo(f"{file}: signed as {', '.join(roles)}")


@click.command()
@click.option("--release", required=True, help="What ships.")
@options.store
@options.policy
@options.keyring
@options.at
@options.role
def signoff(
    release: str, store: Path, policy: Path | None, keyring: Path | None, at: str | None, roles: tuple[str, ...]
) -> None:
    """Write and sign the record that RELEASE may ship: verdict, policy, bundles, waivers, ledger ends and signers.

    Refused, with the gate's exit code, unless the verdict is a pass. `matrix verify signoffs/RELEASE.intoto.json` checks it
    later, offline, and derives the verdict anew.
    """
    case = options.case_of(store, keyring, at)
    asked, mine = options.policy_of(policy), options.keys_of(roles)
    _may(roles, asked.signatures.signoff, "sign a release off")
    path = record.write(store, release, asked, case, mine)
    click.echo(f"{path}: {release} may ship")
