"""Brings the stores of several machines together: bundles, revocations, waivers, sign-offs and ledgers. Only adds.

Refuses a ledger that forks: two attempts would claim one place in a chain, and one of them would be hidden.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from matrix import whole
from matrix.errors import EvidenceError

_WHOLE: Final = ("bundles/[!.]*", "revocations/*.intoto.json", "waivers/*.intoto.json", "signoffs/*.intoto.json")


def _keep(source: Path, place: Path) -> bool:
    """Copy a bundle or a statement that is not here yet, whole or not at all; whether it was new."""
    if place.exists():
        return False
    if source.is_file():
        whole.write(place, source.read_bytes())
        return True
    beside = place.with_name(f".{place.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside)
    beside.rename(place)
    return True


def _merged(ours: bytes, theirs: bytes, name: str) -> bytes:
    """The longer of two ledgers of one key.

    Raises:
        EvidenceError: neither begins with the other.
    """
    short, long = sorted((ours, theirs), key=len)
    if not long.startswith(short):
        raise EvidenceError(
            f"the ledger {name} forks: two stores hold different statements under one number",
            remedy="one of them measured without the ledger of the other: find out which attempt was to be hidden",
        )
    return long


def gather(store: Path, other: Path) -> int:
    """Add what `other` holds to `store`; how many bundles and statements were new.

    Raises:
        EvidenceError: a ledger forks; nothing was added then.
    """
    ledgers = {}
    for theirs in sorted(other.glob("ledger/*.jsonl")):
        ours = store / "ledger" / theirs.name
        ledgers[ours] = _merged(ours.read_bytes() if ours.exists() else b"", theirs.read_bytes(), theirs.name)
    sources = [source for pattern in _WHOLE for source in sorted(other.glob(pattern))]
    new = sum(_keep(source, store / source.relative_to(other)) for source in sources)
    for place, lines in ledgers.items():
        whole.write(place, lines)
    return new
