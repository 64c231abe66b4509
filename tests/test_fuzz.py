"""Whatever a file holds, the answer is a refusal that names the file: never a traceback, never time or memory without end."""

from __future__ import annotations

import io
import json
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix import definitions
from matrix.bundle import ENVELOPE, MANIFEST, Bundle
from matrix.canonical import digest
from matrix.certify import problems
from matrix.contents import array_of
from matrix.errors import MatrixError
from matrix.estimates import parse_estimates
from matrix.gates import decide
from matrix.job import BENCHMARK
from matrix.keys import Keys, PublicKey, home, read
from matrix.ledger import Ledgers
from matrix.policy import Policy, parse_policy
from matrix.profile import parse_profiles
from matrix.provenance import Attestation, Entry, Keyring, Waiver
from matrix.sample import LaunchRecord
from matrix.signing import BUNDLE, opened
from matrix.store import LAUNCH, Store, listed, load
from matrix.strict import parse, parse_json, parse_toml
from matrix.target import parse_targets
from matrix.verify import verified
from tests.making import EAGER, NOW, TORCH, case_of, evidence, logits, policy, profiles, sealed, targets

ONE = evidence(samples={EAGER: [[0.010, 0.011]]}, outputs={TORCH: logits([0, 1])}, labels=np.array([0, 1]))
MANY = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
SOME = settings(MANY, max_examples=120)

NASTY = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "9007199254740993",
        "1" * 400,
        "1" * 5000,
        "0x10",
        "-0",
        "1.0",
    ),
    *(
        "[" * 100_000,
        '{"a":' * 50_000,
        '"\\ud800"',
        '"\\u0000"',
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"x"',
        "01",
        "//",
        "'",
    ),
    *('"2026-11-22T12:00:00"', '"9999-12-31T23:59:59+00:00"', '"now"', '"../../etc"', '"[z-a]"', "\ufeff", "\u2028"),
)
"""What parsers disagree about, overflow at, or recurse into."""


@cache
def sizes() -> dict[str, bytes]:
    """Files that are right, by what they are."""
    record = ONE.bundle.launches[0]
    entry = Entry(serial=1, kind="bundle", name="x", sha256="a" * 64)
    key = PublicKey(role="nightly-cpu", public="0" * 64)
    return {
        "manifest": ONE.bundle.model_dump_json(indent=1).encode(),
        "launch": record.model_dump_json(indent=1).encode(),
        "entry": entry.model_dump_json().encode(),
        "key": key.model_dump_json().encode(),
        "keyring": Keyring().model_dump_json().encode(),
        **{name: definitions.text(f"{name}.toml").encode() for name in ("gates", "targets", "estimates", "profiles")},
    }


def spans(data: bytes) -> list[tuple[int, int]]:
    """Where the values and keys of a text stand, roughly: what lies between its punctuation."""
    found, begin = [], 0
    for at, byte in enumerate(data):
        if byte in b"{}[],:=\n":
            if data[begin:at].strip():
                found.append((begin, at))
            begin = at + 1
    return found or [(0, len(data))]


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few of its bytes, values or pieces replaced, repeated, cut or moved."""
    for _ in range(draw(st.integers(1, 3))):
        how = draw(st.sampled_from(["byte", "value", "value", "twice", "cut", "insert", "swap"]))
        places = spans(data)
        begin, end = draw(st.sampled_from(places))
        if how == "byte":
            data = data[:begin] + bytes([draw(st.integers(0, 255))]) + data[begin + 1 :]
        elif how == "value":
            data = data[:begin] + draw(st.sampled_from(NASTY)).encode() + data[end:]
        elif how == "twice":
            data = data[:end] + b"," + data[begin:end] + data[end:]
        elif how == "cut":
            data = data[:begin] + data[end:]
        elif how == "insert":
            data = data[:begin] + draw(st.binary(max_size=8)) + data[begin:]
        else:
            other, until = draw(st.sampled_from(places))
            data = data[:begin] + data[other:until] + data[end:]
    return data


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Only a refusal may come out, with the file's name; whatever is taken is taken without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            yield
            told = name
        except MatrixError as error:
            told = str(error)
    assert name in told
    assert told.encode()


@pytest.mark.parametrize("what", ["manifest", "launch", "entry", "key", "keyring"])
@MANY
@given(data=st.data())
def test_json_that_was_tampered_with_is_read_or_refused(what: str, data: st.DataObject) -> None:
    """Manifests, launch records, ledger lines, keys, keyrings: whatever is read has a digest."""
    model = {"manifest": Bundle, "launch": LaunchRecord, "entry": Entry, "key": PublicKey, "keyring": Keyring}[what]
    with refusing("this.json"):
        digest(parse_json(model, data.draw(mutated(sizes()[what])), "this.json").model_dump(mode="json"))


DEFINITIONS: dict[str, Callable[..., object]] = {
    "gates": parse_policy,
    "targets": parse_targets,
    "estimates": parse_estimates,
    "profiles": parse_profiles,
}


@pytest.mark.parametrize("what", DEFINITIONS)
@SOME
@given(data=st.data())
def test_definitions_that_were_tampered_with_are_read_or_refused(
    what: str, tmp_path: Path, data: st.DataObject
) -> None:
    """Policies, targets, estimates, profiles, as files: also what is no UTF-8."""
    path = tmp_path / "mine.toml"
    path.write_bytes(data.draw(mutated(sizes()[what])))
    with refusing("mine.toml"):
        DEFINITIONS[what](definitions.file_text(path), "mine.toml")


@SOME
@given(data=st.data())
def test_a_policy_that_can_be_read_can_be_checked_and_decided(data: st.DataObject) -> None:
    """Whatever its numbers and patterns: its problems are told, or it gives a verdict, which is no pass without evidence."""
    try:
        found = parse_policy(data.draw(mutated(sizes()["gates"])).decode(errors="replace"), "mine.toml")
    except MatrixError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = list(problems(found, targets(), profiles()))
        if not told:
            assert decide(found, case_of([])).answer == "fail"


def extremes(*sensible: float) -> st.SearchStrategy[float]:
    """Sensible numbers, and the smallest and largest that a file can hold."""
    return st.sampled_from([*sensible, 5e-324, 1e-300, 1e-9, 0.5, 1.0, 2.0, 1e9, 1e300, 2**53 - 1])


@settings(SOME, max_examples=300)
@given(data=st.data())
def test_a_policy_of_extreme_numbers_is_refused_told_or_decided_at_once(data: st.DataObject) -> None:
    """Counts of 2^53, margins of 5e-324, a confidence next to 1: no overflow, no loop of that length, no pass without evidence."""
    told = policy().model_dump(mode="json")
    for part in ("evidence", "margins"):
        for name, value in told[part].items():
            if isinstance(value, int | float) and data.draw(st.booleans()):
                told[part][name] = data.draw(extremes(value))
    for gate in told["gate"]:
        gate["confidence"] = data.draw(st.sampled_from([0.95, 0.95, 0.95, 0.5 + 1e-16, 0.51, 0.99, 1 - 1e-16]))
        gate["min_launches"], gate["min_examples"] = (data.draw(st.sampled_from([None, 1, 5, 2**53 - 1])) for _ in "xx")
        if data.draw(st.booleans()):
            gate["at_most"] = data.draw(extremes(-1.0))
    with refusing("mine"):
        found = parse(Policy, told, "mine")
        if not list(problems(found, targets(), profiles())):
            assert decide(found, case_of([ONE])).answer != "pass"


@settings(MANY, max_examples=1000)
@given(name=st.text("[]!^-*?&~|ab", max_size=12), pattern=st.text("[]!^-*?&~|ab", max_size=12))
def test_no_pattern_raises_or_warns(name: str, pattern: str) -> None:
    """Patterns of targets, variants and waivers; a waiver's brackets are brackets."""
    waiver = Waiver(
        name="w",
        policy="p",
        gate=pattern,
        target="*",
        cell="*",
        created="2026-11-22T12:00:00+00:00",
        expires="2026-11-22T12:00:00+00:00",
        why="w",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert waiver.covers(name, "t", "c") or not waiver.covers(name, "t", "c")
        assert fnmatchcase(name, pattern) in {True, False}


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    """`fnmatch` is no place to hang in: it does not go back over a star that is done."""
    assert not fnmatchcase("a" * 5000, "*a" * 200 + "b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one bundle, to be copied from: read only."""
    root = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATRIX_HOME", str(root / "home"))
        return sealed(root / "store", ONE)


@contextmanager
def resealed(folder: Path, name: str, data: bytes) -> Iterator[Path]:
    """The bundle with other bytes in one file, and a manifest and a name that fit: what only its signer could do."""
    path, manifest = folder / name, folder / MANIFEST
    before = path.read_bytes(), manifest.read_bytes()
    path.write_bytes(data)
    bundle = ONE.bundle.model_copy(update={"files": listed(folder)})
    manifest.write_text(bundle.model_dump_json(indent=1), encoding="utf-8")
    place = folder.rename(folder.with_name(f"{bundle.target}-{bundle.digest[:12]}"))
    try:
        yield place
    finally:
        place.rename(folder)
        path.write_bytes(before[0])
        manifest.write_bytes(before[1])


@MANY
@given(data=st.data())
def test_samples_that_were_sealed_wrong_are_read_or_refused(folder: Path, data: st.DataObject) -> None:
    """What pytest-benchmark wrote, in any disorder: refused with the launch's file, or judged without an error."""
    name = f"launches/01/{BENCHMARK}"
    with resealed(folder, name, data.draw(mutated((folder / name).read_bytes()))) as place, refusing(place.name):
        one = load(place)
        assert one.faults == ()
        decide(policy(), case_of([one]))


def headers() -> st.SearchStrategy[bytes]:
    """Headers of arrays: of every version, dtype and shape, of other lengths than they say."""
    shape = st.lists(st.one_of(st.integers(-2, 4), st.sampled_from([2**31, 2**62, 10**30])), max_size=5).map(tuple)
    dtype = st.sampled_from(
        ["<f4", "<i8", ">f4", "|O", "<U5", "|V0", "<c16", "<M8[s]", "[('a', '<f4')]", "(" * 500, "f"]
    )
    text = st.builds(
        lambda d, f, s, more: f"{{'descr': '{d}', 'fortran_order': {f}, 'shape': {s}, {more}}}",
        dtype,
        st.sampled_from(["True", "False", "None", "__import__('os')"]),
        st.one_of(shape.map(str), st.just("(" * 300), st.just("(1e999,)")),
        st.sampled_from(["", "'x': 1, ", "'shape': (1,), ", "\x00", "#"]),
    )
    version = st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\xff\xff"])
    return st.builds(
        lambda v, t, wrong: b"\x93NUMPY" + v + (len(t) + 1 + wrong).to_bytes(2, "little") + t.encode() + b"\n",
        version,
        text,
        st.integers(0, 3),
    )


def bare(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    """A file of numpy's."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


ZIP = io.BytesIO()
np.savez(ZIP, x=np.zeros(3))


@settings(MANY, max_examples=1500)
@given(
    data=st.one_of(
        st.builds(lambda head, rest: head + rest, headers(), st.binary(max_size=64)),
        mutated(bare(logits([0, 1]))),
        st.sampled_from([ZIP.getvalue(), b"", b"\x93NUMPY", bare(np.zeros(2), (2, 0)), b"\x80\x04N."]),
        st.binary(max_size=200),
    )
)
def test_no_array_file_raises_or_allocates_more_than_it_holds(data: bytes) -> None:
    """A header may declare any shape: it is refused unless the bytes are there. Nothing of it is evaluated or unpickled."""
    with refusing("x.npy"):
        found = array_of(data, "x.npy")
        assert found.nbytes < len(data)


def test_a_huge_declared_array_takes_no_memory() -> None:
    """A terabyte of fp32 in 128 bytes: less than a megabyte is touched."""
    data = bare(np.zeros((2, 10), dtype=np.float32)).replace(b"(2, 10), }" + b" " * 12, b"(250000000000, 1), }  ")
    tracemalloc.start()
    with pytest.raises(MatrixError, match="not of the size that it declares"):
        array_of(data, "x.npy")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@settings(MANY, max_examples=300)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    dtype=st.sampled_from(["<f2", "<f4", "<f8", "<i4", "<i8"]),
    fortran=st.booleans(),
)
def test_what_numpy_saves_reads_back(rows: int, columns: int, dtype: str, fortran: bool) -> None:
    """Every dtype that a suite writes, in both orders."""
    array = np.arange(rows * columns).astype(dtype).reshape(rows, columns)
    found = array_of(bare(np.asfortranarray(array) if fortran else array), "x.npy")
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 10), dtype=np.float32),
        np.zeros((2,), dtype=np.float32),
        np.zeros((2, 0), dtype=np.float32),
        np.zeros((3, 10), dtype=np.float32),
        np.zeros((2, 10), dtype=np.int64),
        np.zeros((1, 2, 10), dtype=np.float32),
    ],
)
def test_outputs_that_are_no_logits_are_refused_at_the_border(folder: Path, array: np.ndarray) -> None:
    """Judgement would raise on them, or compare what is no answer."""
    (output,) = [path for path in folder.glob("outputs/*.npy") if array_of(path.read_bytes(), "x").ndim == 2]
    with (
        resealed(folder, f"outputs/{output.name}", bare(array)) as place,
        pytest.raises(MatrixError, match="are no logits with a label each"),
    ):
        load(place)


@MANY
@given(data=st.data())
def test_a_store_of_torn_manifests_is_shown_and_never_raises(folder: Path, data: st.DataObject) -> None:
    """`load_all` and `verify` of the whole store, with any bytes as its manifest."""
    root, manifest = folder.parents[1], folder / MANIFEST
    before = manifest.read_bytes()
    manifest.write_bytes(data.draw(mutated(before)))
    try:
        found, torn = Store(root).load_all()
        assert len(found) + len(torn) == 1
        assert all_hold(root) == (manifest.read_bytes() == before)
    finally:
        manifest.write_bytes(before)


def trusted(root: Path) -> Keyring:
    """The keys that the shared store was sealed with."""
    return read(root.parent / "home" / "keyring.json")


def all_hold(root: Path) -> bool:
    """Whether a check of the store finds nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = verified(root, root, trusted(root))
    json.dumps([one.model_dump(mode="json") for one in told])
    return all(one.holds for one in told)


@MANY
@given(data=st.data())
def test_envelopes_and_ledgers_in_any_state_are_faults_or_refused(folder: Path, data: st.DataObject) -> None:
    """The audit never raises: what it cannot read it names."""
    root = folder.parents[1]
    ring = trusted(root)
    path = data.draw(st.sampled_from([folder / ENVELOPE, *root.glob("ledger/*.jsonl")]))
    before = path.read_bytes()
    changed = data.draw(mutated(before))
    path.write_bytes(changed)
    try:
        one = load(folder)
        ledger = Ledgers(root, ring).audit([one])
        assert changed == before or ledger.refused or ledger.faults or ledger.gaps
        with suppress(MatrixError):
            opened(changed, BUNDLE, Attestation, ring, "x")
    finally:
        path.write_bytes(before)


def test_a_ledger_that_claims_a_huge_number_is_read_at_once(tmp_path: Path) -> None:
    """The numbers between are told as one run, not one by one."""
    place = sealed(tmp_path, ONE)
    (path,) = (tmp_path / "ledger").iterdir()
    line = Entry(serial=2**53 - 1, kind="bundle", name="x", sha256="a" * 64).model_dump_json()
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    ledger = Ledgers(tmp_path, Keys(home()).keyring()).audit([load(place)])
    assert ledger.faults == (
        f"numbers 2 to {2**53 - 2} of key {path.stem[:12]} is gone, and no ledger says what it was",
    )


def test_a_file_of_very_many_faults_is_refused_in_one_breath() -> None:
    """Fifty thousand unknown keys: the first twenty are told."""
    text = "\n".join(f"k{index} = 1" for index in range(50_000))
    with pytest.raises(MatrixError) as caught:
        parse_policy(text)
    assert "and 49985 more faults" in str(caught.value)
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 100_000, "a = " + "1" * 5000, "a = 1e999", "a = nan", "a" + ".a" * 5000 + " = 1"]
)
def test_toml_that_overflows_is_a_refusal(text: str) -> None:
    """Brackets without end, integers of thousands of digits: `tomllib` raises other errors for them than for a typo."""
    with pytest.raises(MatrixError, match="mine"):
        parse_toml(Keyring, text, "mine")


@pytest.mark.parametrize(
    "created",
    [
        "2026-11-22",
        "2026-11-22T12:00:00",
        "2026-11-22T12:00:00+01:00",
        "2026-11-22T12:00:00Z",
        "soon",
        "9999-12-31T23:59:59+00:00",
        "",
    ],
)
def test_a_time_has_one_spelling(created: str) -> None:
    """Naive, of another zone, or nonsense: refused at the border, for later it would raise, or sort wrong."""
    told = ONE.bundle.model_dump(mode="json") | {"created": created}
    with pytest.raises(MatrixError, match="created: Value error, is "):
        parse_json(Bundle, json.dumps(told), "x")


def test_times_sort_as_their_texts_do() -> None:
    """With and without microseconds: the order of bundles is that of their texts."""
    moments = [timedelta(seconds=0), timedelta(microseconds=5), timedelta(milliseconds=500), timedelta(seconds=1)]
    texts = [evidence(created=NOW + step).bundle.created for step in moments]
    assert texts == sorted(texts)


def test_a_key_that_stands_twice_in_a_manifest_is_refused(folder: Path) -> None:
    """One reader would take the first, another the last."""
    manifest = folder / MANIFEST
    before = manifest.read_bytes()
    manifest.write_bytes(before.replace(b'"attempt": 1,', b'"attempt": 2, "attempt": 1,'))
    with pytest.raises(MatrixError, match="a key stands there twice"):
        load(folder)
    manifest.write_bytes(before)


def test_an_odd_launch_file_name_is_no_way_out(folder: Path) -> None:
    """A manifest that lists a file outside of its folder lists a file that is missing."""
    bundle = ONE.bundle.model_copy(
        update={"files": listed(folder) | {"outputs/../../../x.npy": next(iter(listed(folder).values()))}}
    )
    manifest = folder / MANIFEST
    before = manifest.read_bytes()
    manifest.write_text(bundle.model_dump_json(indent=1), encoding="utf-8")
    place = folder.rename(folder.with_name(f"{bundle.target}-{bundle.digest[:12]}"))
    assert load(place).faults == ("outputs/../../../x.npy: missing",)
    place.rename(folder)
    manifest.write_bytes(before)
    assert (folder / "launches" / "01" / LAUNCH).exists()
