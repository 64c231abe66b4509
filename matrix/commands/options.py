"""What several commands share: options, and the definitions and evidence that they read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from matrix import definitions
from matrix.errors import UsageError
from matrix.gates import Case
from matrix.keys import Keys, SigningKey, home, read
from matrix.ledger import Ledgers
from matrix.policy import Policy, parse_policy
from matrix.profile import Profiles, parse_profiles
from matrix.provenance import DEVELOPMENT, Keyring
from matrix.signoff import witnessed
from matrix.store import Store
from matrix.target import Targets, parse_targets
from matrix.validity import Today

data = click.option(
    "--data",
    default="embedded",
    show_default=True,
    help="embedded; a CLINC150 .json, a .csv or .jsonl of text,label; or a hub id.",
)
store = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder of bundles, runs and ledgers.",
)
policy = click.option(
    "--policy", type=click.Path(path_type=Path), default=None, help="Policy file [default: the package's gates.toml]."
)
keyring = click.option(
    "--keyring",
    type=click.Path(path_type=Path),
    default=None,
    help="Keys that are trusted [default: keyring.json in $MATRIX_HOME, else in your configuration folder].",
)
role = click.option(
    "--role",
    "roles",
    multiple=True,
    default=(DEVELOPMENT,),
    show_default=True,
    help="Sign with your key of this role; more than once for several.",
)
at = click.option(
    "--at", default=None, metavar="TIME", help="Judge as of this time (ISO 8601, UTC unless it says) [default: now]."
)


def targets() -> Targets:
    """The package's targets."""
    return parse_targets(definitions.text("targets.toml"))


def profiles() -> Profiles:
    """The package's profiles."""
    return parse_profiles(definitions.text("profiles.toml"))


def policy_of(path: Path | None) -> Policy:
    """The policy in `path`, else the package's."""
    where = str(path or "gates.toml")
    return parse_policy(definitions.file_text(path) if path else definitions.text("gates.toml"), where)


def keyring_of(path: Path | None) -> Keyring:
    """The keyring in `path`, else the user's."""
    return read(path) if path else Keys(home()).keyring()


def keys_of(roles: tuple[str, ...]) -> tuple[SigningKey, ...]:
    """The user's keys of these roles; a development key is made when it is first asked for."""
    mine = Keys(home())
    return tuple(mine.signing(role) for role in dict.fromkeys(roles))


def moment(text: str | None) -> datetime:
    """The time that `text` says, else now.

    Raises:
        UsageError: it says none.
    """
    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time", remedy="write it as 2026-11-23T12:00:00+00:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def case_of(folder: Path, path: Path | None, at: str | None) -> Case:
    """Everything that the store holds as of `at`, with what its signatures come to, its sign-offs heard as witnesses."""
    ring, (evidence, torn) = keyring_of(path), Store(folder).load_all()
    ledger = witnessed(folder, ring, Ledgers(folder, ring).audit(evidence))
    today = Today(moment(at), definitions.suite_digests())
    return Case(evidence, ledger, targets(), profiles(), today, [str(error) for error in torn])
