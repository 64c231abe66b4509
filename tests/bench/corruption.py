"""Flips every byte of a store's bundles and ledgers, and counts what nobody would notice.

    python -m tests.bench.corruption reports/published [--keyring KEYRING]

A statement is opened again for every flip of its envelope, and the whole store audited for every flip of a ledger. Data files and
the manifest are decided by their SHA-256 alone (the manifest's stands in the statement, the others' in the manifest): there a flip
is carried only to the end of its own 64-byte block, after which the same bytes follow, so that a state which differs there gives
the same digest only by a collision. `SAMPLE` flips of each such file go the whole way, through the reader and the audit. So a
store of some MB takes minutes; read byte by byte through the reader it would take days. Ends with 1 if anything is undetected.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from matrix.bundle import ENVELOPE, Evidence
from matrix.errors import EvidenceError, MatrixError
from matrix.keys import Keys, home, read
from matrix.ledger import Ledgers
from matrix.provenance import Attestation, Keyring
from matrix.signing import BUNDLE, opened
from matrix.store import Store, load

SAMPLE = 40
_BLOCK = 64


def flipped(data: bytes, at: int) -> bytes:
    """The bytes with the lowest bit of one of them changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def unhashed(data: bytes) -> Iterator[int]:
    """Bytes whose flip leaves SHA-256's state after their block as it was: none, unless the digest left them out."""
    state = hashlib.sha256()
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        after = state.copy()
        after.update(block)
        whole = after.digest()
        for at in range(len(block)):
            other = state.copy()
            other.update(flipped(block, at))
            if other.digest() == whole:
                yield start + at
        state = after


def tried(path: Path, places: Iterator[int] | range, silent: Callable[[], bool]) -> tuple[int, list[int]]:
    """How many bytes of a file were flipped on disk, and those that nobody noticed; the file is as it was afterwards."""
    data, undetected, count = path.read_bytes(), [], 0
    for at in places:
        path.write_bytes(flipped(data, at))
        count += 1
        if silent():
            undetected.append(at)
    path.write_bytes(data)
    return count, undetected


def is_quiet(place: Path, ledgers: Ledgers, name: str) -> bool:
    """Whether reader and audit have nothing to say of a bundle and a file of it."""
    try:
        one = load(place)
    except MatrixError as error:
        return name not in str(error)
    if one.faults:
        return not any(name in fault for fault in one.faults)
    return not any(name in fault for fault in ledgers.audit([one]).faults)


def is_opened(path: Path, ring: Keyring) -> bool:
    """Whether a statement is still taken for signed."""
    try:
        opened(path.read_bytes(), BUNDLE, Attestation, ring, path.name)
    except EvidenceError:
        return False
    return True


def of_bundle(place: Path, ring: Keyring) -> Iterator[tuple[str, int, list[int]]]:
    """Each file of a bundle, how many of its bytes were flipped, and which flips were undetected."""
    ledgers = Ledgers(place.parents[1], ring)
    for path in sorted(file for file in place.rglob("*") if file.is_file()):
        name = path.relative_to(place).as_posix()
        if name == ENVELOPE:
            yield name, *tried(path, range(path.stat().st_size), lambda path=path: is_opened(path, ring))  # type: ignore[misc]
            continue
        data = path.read_bytes()
        step = max(1, len(data) // SAMPLE)
        _, missed = tried(path, range(0, len(data), step), lambda name=name: is_quiet(place, ledgers, name))  # type: ignore[misc]
        yield name, len(data), sorted({*unhashed(data), *missed})


def of_ledgers(root: Path, ring: Keyring, evidence: list[Evidence]) -> Iterator[tuple[str, int, list[int]]]:
    """Each ledger of a key that is trusted, as `of_bundle`."""
    ledgers = Ledgers(root, ring)
    for path in sorted(root.glob("ledger/*.jsonl")):
        if path.stem in ring.key and not ring.key[path.stem].revoked:
            places = range(path.stat().st_size)
            yield path.name, *tried(path, places, lambda: not ledgers.audit(evidence).faults)


def unsound(root: Path, ring: Keyring) -> list[str]:
    """What is wrong with the store before anything is flipped."""
    evidence, torn = Store(root).load_all()
    ledger = Ledgers(root, ring).audit(evidence)
    faults = [fault for one in evidence for fault in one.faults]
    return [*map(str, torn), *faults, *ledger.refused.values(), *ledger.gaps.values(), *ledger.faults]


def main() -> int:
    """Print a line a file; 0 when every flip of every byte is detected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--keyring", type=Path, default=None)
    given = parser.parse_args()
    ring, began, undetected, count = read(given.keyring) if given.keyring else Keys(home()).keyring(), time.time(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        for part in ("bundles", "ledger", "revocations"):
            if (given.store / part).is_dir():
                shutil.copytree(given.store / part, root / part)
        if wrong := unsound(root, ring):
            print(f"{given.store} does not hold as it is: {wrong[0]}")
            return 1
        evidence, _ = Store(root).load_all()
        told = [(one.name, *line) for one in evidence for line in of_bundle(root / "bundles" / one.name, ring)]
        told += [("ledger", *line) for line in of_ledgers(root, ring, evidence)]
    for bundle, name, size, missed in told:
        print(f"{bundle}/{name}: {size} bytes flipped, {len(missed)} undetected {missed[:5] or ''}".rstrip())
        undetected, count = undetected + len(missed), count + size
    print(f"{len(told)} files, {count} bytes flipped, {undetected} undetected, {time.time() - began:.0f} s")
    return 1 if undetected or not count else 0


if __name__ == "__main__":
    sys.exit(main())
