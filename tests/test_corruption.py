"""Whatever is changed in a sealed bundle or its ledger is seen, with the file's name, and never as a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from matrix.bundle import ENVELOPE, MANIFEST, Bundle
from matrix.errors import MatrixError
from matrix.keys import Keys, home
from matrix.ledger import Ledgers
from matrix.store import LAUNCH, Store, listed, load
from matrix.strict import parse_json
from matrix.verify import verified
from tests.making import EAGER, TORCH, evidence, logits, sealed

ONE = evidence(
    samples={EAGER: [[0.010, 0.011, 0.012], [0.013, 0.014, 0.015], [0.016, 0.017, 0.018]]},
    outputs={TORCH: logits([0, 1], classes=2)},
    labels=np.array([0, 1]),
)
SMALL = evidence(samples={EAGER: [[0.010]]}, outputs={TORCH: logits([0], classes=2)}, labels=np.array([0]))
"""With a byte less there is less to flip."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A signed bundle of three launches in a store with its ledger."""
    return sealed(tmp_path, ONE)


def store_of(place: Path) -> Path:
    """The store that a bundle lies in."""
    return place.parents[1]


def files_of(place: Path) -> list[Path]:
    """Every file of the bundle, and its ledger."""
    return sorted(
        path for folder in (place, store_of(place) / "ledger") for path in folder.rglob("*") if path.is_file()
    )


def found_in(place: Path) -> str:
    """What a check of the whole store holds against it; empty when all is well."""
    checked = verified(store_of(place), store_of(place), Keys(home()).keyring())
    return "; ".join(f"{one.name}: {one.says}" for one in checked if not one.holds)


def quickly(place: Path) -> str:
    """As `found_in`, by the reader alone where it already says enough."""
    try:
        one = load(place)
    except MatrixError as error:
        return str(error)
    if one.faults:
        return "; ".join(one.faults)
    ledger = Ledgers(store_of(place), Keys(home()).keyring()).audit([one])
    return "; ".join([*ledger.refused.values(), *ledger.gaps.values(), *ledger.faults])


@contextmanager
def holding(path: Path, data: bytes) -> Iterator[None]:
    """The file with other bytes, and then as it was."""
    before = path.read_bytes()
    path.write_bytes(data)
    yield
    path.write_bytes(before)


def flips(data: bytes, *, spelling: bool) -> Iterator[tuple[int, bytes]]:
    """Every byte with its lowest bit flipped; with `spelling` also letters in the other case, and white space as another."""
    for at, byte in enumerate(data):
        others = {byte ^ 0x01}
        if spelling:
            others |= {byte ^ 0x20} if chr(byte).isalpha() else {0x20, 0x09, 0x0A, 0x0D} if byte in b" \n" else set()
        for other in sorted(others - {byte}):
            yield at, data[:at] + bytes([other]) + data[at + 1 :]


def test_what_was_sealed_holds(place: Path) -> None:
    """Nothing is found in a store that nobody touched: a bundle of nine files and a ledger of one line."""
    assert (found_in(place), quickly(place)) == ("", "")
    assert len(files_of(place)) == 3 * 2 + 2 + 2 + 1


@pytest.mark.parametrize("name", [MANIFEST, ENVELOPE, "ledger", "launches", "outputs"])
def test_every_flipped_byte_is_found_with_its_files_name(tmp_path: Path, name: str) -> None:
    """Each byte of each file; what is decided by its spelling also with white space and case that JSON would not mind."""
    place = sealed(tmp_path, SMALL)
    chosen = [path for path in files_of(place) if name in path.relative_to(store_of(place)).as_posix()]
    assert chosen
    for path in chosen:
        for at, data in flips(path.read_bytes(), spelling=name in {MANIFEST, ENVELOPE, "ledger"}):
            with holding(path, data):
                assert path.name in quickly(place), f"byte {at} of {path.name}"


def test_a_sample_of_flips_is_found_by_the_command_too(place: Path) -> None:
    """`matrix verify` of the whole store, every 97th flip of every file."""
    for path in files_of(place):
        for _, data in list(flips(path.read_bytes(), spelling=True))[::97]:
            with holding(path, data):
                assert path.name in found_in(place)


def test_every_removed_emptied_or_cut_file_is_found_with_its_name(place: Path) -> None:
    """Also the manifest, the envelope and the ledger; also half of each."""
    for path in files_of(place):
        data = path.read_bytes()
        for less in (b"", data[: len(data) // 2], data[:-1]):
            with holding(path, less):
                assert path.name in found_in(place), path.name
        path.unlink()
        assert path.name in found_in(place), path.name
        path.write_bytes(data)
    assert found_in(place) == ""


def test_every_file_exchanged_with_another_is_found(place: Path) -> None:
    """Each pair whose bytes differ; both are named but where one of them is the manifest, without which nothing is read."""
    for first, second in combinations(files_of(place), 2):
        one, other = first.read_bytes(), second.read_bytes()
        if one == other:
            continue
        with holding(first, other), holding(second, one):
            told = found_in(place)
            assert (first.name in told) or (second.name in told), (first.name, second.name)
    assert found_in(place) == ""


def rewritten(place: Path, *, records: tuple[int, int] | None = None) -> Bundle:
    """The manifest of the files that now lie in a bundle; its records of two launches exchanged if asked."""
    bundle = parse_json(Bundle, (place / MANIFEST).read_bytes(), MANIFEST).model_copy(update={"files": listed(place)})
    if records:
        numbers = dict(zip(records, reversed(records), strict=True))
        told = [one.model_copy(update={"index": numbers.get(one.index, one.index)}) for one in bundle.launches]
        bundle = bundle.model_copy(update={"launches": tuple(told)})
    (place / MANIFEST).write_text(bundle.model_dump_json(indent=1), encoding="utf-8")
    return bundle


def exchanged(place: Path, first: int, second: int) -> None:
    """Exchange the folders of two launches."""
    one, other, aside = (place / "launches" / name for name in (f"{first:02d}", f"{second:02d}", "aside"))
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize("pair", list(combinations([1, 2, 3], 2)))
def test_every_pair_of_exchanged_launches_is_found(place: Path, pair: tuple[int, int]) -> None:
    """Their folders; with a manifest that fits; under the name that fits that; and sealed again, signed by nobody."""
    name = place.name
    exchanged(place, *pair)
    assert all(f"launches/{index:02d}/{LAUNCH}: changed" in found_in(place) for index in pair)
    bundle = rewritten(place, records=pair)
    assert f"{MANIFEST}: changed" in found_in(place)
    moved = place.rename(place.with_name(f"{bundle.target}-{bundle.digest[:12]}"))
    assert load(moved).faults == ()
    assert f"{moved.name} carries the statement of {name}" in found_in(moved)
    (moved / ENVELOPE).unlink()
    told = found_in(moved)
    assert f"{moved.name}: nobody signed it" in told
    assert f"{name} is gone" in told


def test_a_bundle_sealed_again_with_the_old_signature_is_not_what_was_signed(place: Path) -> None:
    """The manifest fits its files, the folder fits the manifest, the statement names the folder's old name and digests."""
    (place / "launches" / "01" / "more.txt").write_text("x", encoding="utf-8")
    bundle = rewritten(place)
    moved = place.rename(place.with_name(f"{bundle.target}-{bundle.digest[:12]}"))
    assert "carries the statement of" in found_in(moved)


def test_a_bundle_under_another_targets_name_is_found(place: Path) -> None:
    """The digest in its name still fits; the target does not."""
    moved = place.rename(place.with_name(place.name.replace("cpu-openvino", "cuda-h200")))
    assert "its folder was renamed" in found_in(moved)


def test_a_copy_of_a_bundle_under_another_name_is_found(place: Path) -> None:
    """Two folders, one statement: the second is not its own."""
    shutil.copytree(place, place.with_name("copy-" + place.name))
    assert "copy-" in found_in(place)


def test_what_is_no_regular_file_is_found_where_a_file_should_be(place: Path) -> None:
    """A folder, a dangling link, a name that is no text: each is a fault, and the store is still listed."""
    for path in files_of(place):
        data = path.read_bytes()
        path.unlink()
        path.mkdir()
        assert path.name in found_in(place)
        path.rmdir()
        path.symlink_to("nowhere")
        assert path.name in found_in(place)
        path.unlink()
        path.write_bytes(data)
    odd = Path(str(place) + "/\udcff.txt")
    odd.write_bytes(b"x")
    assert json.dumps(found_in(place)).count("not in the manifest") == 1
    odd.unlink()
    assert found_in(place) == ""


def test_a_store_with_a_torn_bundle_is_listed_whole(place: Path) -> None:
    """`load_all` shows what is torn and never raises."""
    for name, data in {"a-torn": b"{", "b-empty": b"", "c-nan": b'{"target": NaN}', "d-deep": b"[" * 100_000}.items():
        (place.parent / name).mkdir()
        (place.parent / name / MANIFEST).write_bytes(data)
    (place.parent / "e-none").mkdir()
    (place.parent / "f-file").write_bytes(b"x")
    found, torn = Store(store_of(place)).load_all()
    assert [one.name for one in found] == [place.name]
    assert len(torn) == 5
