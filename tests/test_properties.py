"""Whatever happened to a store, a gate passes on nothing that was not proven, and nothing that is taken away helps.

Histories are drawn: bundles of four targets by four kinds of signer, failed and doubtful attempts, revocations, waivers, moved
clocks, and then deletions. They lie on disk as a run leaves them; bundles are sealed once and signed anew in every history.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.bundle import ENVELOPE, Bundle, Evidence
from matrix.gates import decide
from matrix.keys import Keys, SigningKey
from matrix.ledger import Ledgers
from matrix.policy import Gate, Policy
from matrix.provenance import Keyring, Waiver
from matrix.signoff import witnessed, write
from matrix.store import Store, load
from matrix.validity import Today
from matrix.verdict import Answer, Verdict
from tests.making import (
    INT8,
    NOW,
    ORT,
    QUIET,
    SERVED,
    SOUND,
    SUITES,
    TORCH,
    case_of,
    evidence,
    logits,
    policy,
    ran,
)

MANY = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FEW = settings(MANY, max_examples=60)
CASE, ASKED = case_of([]), policy()
RANK: dict[Answer, int] = {"fail": 0, "undecided": 1, "pass": 2}
ROLE = {
    "cpu-openvino": "nightly-cpu",
    "lambda-x86": "nightly-cpu",
    "aws-lambda-x86": "nightly-aws",
    "mps": "nightly-mps",
    "cuda-h200": "nightly-cuda",
}
N = 2_000
LABELS = np.zeros(N, dtype=np.int64)
SAME, WORSE = logits([0] * N, 2), logits([1] * 100 + [0] * (N - 100), 2)
EXPORTED, LOSSY = logits([1] * 2 + [0] * (N - 2), 2), logits([1] * 60 + [0] * (N - 60), 2)
BUSY = QUIET.model_copy(update={"steal_share": 0.5})
WRONG = SOUND.model_copy(update={"canaries": tuple(c.model_copy(update={"error": 1.0}) for c in SOUND.canaries)})


class Made(NamedTuple):
    """What a bundle is, and what a test knows about it without asking the judge.

    `sound`: whole, clean, of a device that computes right, measured in every launch on a quiet host. `agrees`: with the others.
    """

    one: Evidence
    sound: bool = True
    agrees: bool = True


def cpu(seconds: float = 0.010, export: np.ndarray = EXPORTED, **changes: object) -> Evidence:
    """A bundle of the x86 CPU: a latency and what an INT8 export costs."""
    outputs = {TORCH: SAME, INT8: export}
    return evidence(samples={ORT: [[seconds] * 60] * 5}, outputs=outputs, labels=LABELS, **changes)  # type: ignore[arg-type]


def function(target: str, seconds: float = 0.010, **changes: object) -> Evidence:
    """A bundle of a function, emulated or real."""
    ours = {"target": target, "host": target[0] * 64, "environment": target[0] * 64}
    return evidence(samples={SERVED: [[seconds] * 60] * 5}, **(ours | changes))  # type: ignore[arg-type]


def device(target: str, answers: np.ndarray = SAME, **changes: object) -> Evidence:
    """A bundle of a GPU: the answers of one checkpoint."""
    ours = {"target": target, "host": target[0] * 64, "environment": target[0] * 64}
    return evidence(outputs={TORCH: answers}, labels=LABELS, **(ours | changes))  # type: ignore[arg-type]


LOST = {(cell, index): "raised" for cell in (ORT, INT8, TORCH, SERVED) for index in range(1, 6)}
HALF = {(ORT, 1): "x", (ORT, 2): "x", (INT8, 1): "x"}
AT = iter(NOW - timedelta(minutes=index) for index in range(100))
"""No two of a host at one time: that would be one run."""
LIBRARY: dict[str, Made] = {
    "cpu": Made(cpu(created=next(AT))),
    "cpu slow": Made(cpu(0.020, created=next(AT)), agrees=False),
    "mps": Made(device("mps", created=next(AT))),
    "cuda": Made(device("cuda-h200", created=next(AT))),
    "lambda": Made(function("lambda-x86", created=next(AT))),
    "aws": Made(function("aws-lambda-x86", created=next(AT))),
    "cpu again": Made(cpu(created=next(AT))),
    "cpu lossy": Made(cpu(export=LOSSY, created=next(AT)), agrees=False),
    "cpu old": Made(cpu(created=NOW - timedelta(days=8))),
    "cpu of tomorrow": Made(cpu(created=NOW + timedelta(days=1))),
    "cpu dirty": Made(cpu(dirty=("matrix/x.py",), created=next(AT)), sound=False),
    "cpu of no commit": Made(cpu(commit=None, created=next(AT)), sound=False),
    "cpu busy": Made(cpu(load=BUSY, created=next(AT)), sound=False),
    "cpu wrong": Made(cpu(battery=WRONG, created=next(AT)), sound=False),
    "cpu unasked": Made(cpu(battery=None, created=next(AT)), sound=False),
    "cpu failed": Made(cpu(lost=LOST, created=next(AT)), sound=False, agrees=False),
    "cpu half failed": Made(cpu(lost=HALF, created=next(AT)), sound=False, agrees=False),
    "cpu few": Made(evidence(samples={ORT: [[0.010] * 60] * 3}, created=next(AT)), sound=False),
    "cpu of another student": Made(cpu(0.020, weights="x" * 64, created=NOW - timedelta(days=2)), agrees=False),
    "lambda failed": Made(function("lambda-x86", lost=LOST, created=next(AT)), sound=False, agrees=False),
    "lambda slower": Made(function("lambda-x86", 0.014, created=next(AT)), agrees=False),
    "aws slower": Made(function("aws-lambda-x86", 0.019, created=next(AT)), agrees=False),
    "aws busy": Made(function("aws-lambda-x86", load=BUSY, created=next(AT)), sound=False),
    "mps wrong": Made(device("mps", WORSE, created=next(AT)), agrees=False),
    "mps failed": Made(device("mps", lost=LOST, created=next(AT)), sound=False, agrees=False),
    "cuda apart": Made(device("cuda-h200", WORSE, host="j" * 64, created=next(AT)), agrees=False),
    "cuda old": Made(device("cuda-h200", created=NOW - timedelta(days=8))),
    "cuda old and apart": Made(
        device("cuda-h200", WORSE, host="j" * 64, created=NOW - timedelta(days=9)), agrees=False
    ),
    "cuda of the Mac's host": Made(device("cuda-h200", host="m" * 64, created=next(AT)), sound=False),
    "cuda of another torch": Made(device("cuda-h200", torch="2.14.0", created=next(AT)), sound=False),
}
FAILED = ("cpu failed", "lambda failed", "mps failed")
"""Attempts in which every launch of every cell that a gate asks for was lost."""

LATENCY = Gate(
    id="warm",
    why="15 ms",
    targets=("cpu-openvino",),
    suite="inference_latency",
    variants=("ort_int8",),
    where={"mode": ("warm",), "length": (16,)},
    metric="p95_s",
    at_most=0.015,
)
DROP = Gate(
    id="drop",
    why="0.6 points",
    targets=("cpu-openvino",),
    suite="export_accuracy",
    variants=("onnx_int8",),
    metric="accuracy_delta",
    at_least=-0.006,
)
MAC = Gate(
    id="mac",
    why="as the checkpoint",
    targets=("mps",),
    suite="export_accuracy",
    variants=("torch_fp32",),
    metric="accuracy",
    at_least=0.85,
)
FUNCTION = LATENCY.model_copy(
    update={
        "id": "function",
        "targets": ("lambda-x86",),
        "where": {"mode": ("warm",), "length": (16,), "memory_mb": (1024,), "every_ms": (0,)},
        "at_most": 0.020,
    }
)
NEEDS = {"warm": ("cpu",), "drop": ("cpu",), "mac": ("mps", "cuda"), "function": ("lambda", "aws")}
"""What makes each gate pass."""
AGAINST = {"warm": "cpu slow", "drop": "cpu lossy", "mac": "cuda apart", "function": "aws slower"}
"""And what takes that away."""


@dataclass(frozen=True, repr=False)
class Shelf:
    """Sealed bundles by what they are, keys by role, and the keys that the judge trusts."""

    places: dict[str, Path]
    bundles: dict[str, Bundle]
    keys: dict[str, SigningKey]
    ring: Keyring
    everyone: Keyring


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Every bundle of the library, sealed once and signed by nobody yet."""
    root = tmp_path_factory.mktemp("shelf")
    store, keys = Store(root), Keys(root / "home")
    places = {name: store.seal(ran(store, made.one), made.one.bundle) for name, made in LIBRARY.items()}
    roles = {role: keys.new(role) for role in (*dict.fromkeys(ROLE.values()), "release", "development", "stranger")}
    everyone = keys.keyring()
    ring = {name: key for name, key in everyone.key.items() if key.role != "stranger"}
    bundles = {name: load(path).bundle for name, path in places.items()}
    return Shelf(places, bundles, roles, Keyring(key=ring), everyone)


class Held(NamedTuple):
    """A bundle of a history, and who signed it: "accepted" is the role that the policy asks for its target."""

    made: str
    by: str


def role_of(held: Held) -> str | None:
    """The role of whoever signed."""
    if held.by == "nobody":
        return None
    return ROLE[LIBRARY[held.made].one.bundle.target] if held.by == "accepted" else held.by


@dataclass(frozen=True)
class History:
    """What happened: bundles in the order of their signing, then revocations (bundle, role)."""

    held: tuple[Held, ...]
    revoked: tuple[tuple[str, str], ...] = ()


GATES = st.lists(
    st.sampled_from([LATENCY, DROP, MAC, FUNCTION]), min_size=1, max_size=2, unique_by=lambda gate: gate.id
)
SIGNED = st.sampled_from(["accepted", "accepted", "accepted", "development", "nobody", "stranger"])
NOWS = st.sampled_from([NOW, NOW, NOW, NOW + timedelta(days=1), NOW + timedelta(days=8), NOW - timedelta(days=1)])


@st.composite
def histories(draw: st.DrawFn, asked: Sequence[Gate]) -> History:
    """What the gates need, mostly, and up to three more; each bundle once."""
    needed = [name for gate in asked for name in NEEDS[gate.id]]
    by = {name: draw(SIGNED) if draw(st.integers(0, 5)) == 0 else "accepted" for name in needed}
    by |= draw(st.dictionaries(st.sampled_from(sorted(LIBRARY)), SIGNED, max_size=3))
    if draw(st.booleans()):  # an attempt that speaks against the gate: what one would like to be rid of
        by[AGAINST[asked[0].id]] = "accepted"
    for name in draw(st.lists(st.sampled_from(needed), max_size=1)):
        if draw(st.integers(0, 3)) == 0:
            del by[name]
    order = draw(st.permutations(sorted(by)))
    revoked = draw(st.lists(st.sampled_from(order), max_size=1)) if order and draw(st.integers(0, 2)) == 0 else []
    return History(
        tuple(Held(name, by[name]) for name in order),
        tuple((name, draw(st.sampled_from(["release", "development"]))) for name in revoked),
    )


def place(root: Path, shelf: Shelf, name: str) -> Path:
    """The bundle's folder in the store at `root`."""
    return root / "bundles" / shelf.places[name].name


def add(root: Path, shelf: Shelf, held: Held) -> None:
    """Put a bundle into the store, as a run does: whole, signed, remembered."""
    source, folder = shelf.places[held.made], place(root, shelf, held.made)
    shutil.copytree(source, folder, copy_function=os.link)
    if role := role_of(held):
        ledgers = Ledgers(root, shelf.everyone)
        ledgers.attest(folder, folder.name, shelf.bundles[held.made], [shelf.keys[role]])
        ledgers.remember()


@contextmanager
def lying(shelf: Shelf, history: History) -> Iterator[Path]:
    """The history in a store on disk."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "bundles").mkdir()
        for held in history.held:
            add(root, shelf, held)
        for name, role in history.revoked:
            Ledgers(root, shelf.everyone).revoke(shelf.places[name].name, "it is wrong", [shelf.keys[role]])
        yield root


def asking(asked: Sequence[Gate]) -> Policy:
    """The project's policy with these gates, which accepts development for nothing."""
    return ASKED.model_copy(update={"gate": tuple(asked)})


def answered(root: Path, shelf: Shelf, asked: Policy, now: datetime, order: Sequence[int] = ()) -> Verdict:
    """The verdict on a store; its bundles are heard in another order if one is given."""
    found, torn = Store(root).load_all()
    found = [found[index % len(found)] for index in order] if len(order) == len(found) else found
    ledger = witnessed(root, shelf.ring, Ledgers(root, shelf.ring).audit(found))
    today = Today(now, SUITES)
    return decide(asked, replace(CASE, evidence=found, ledger=ledger, today=today, torn=list(map(str, torn))))


def rank(verdict: Verdict) -> int:
    """Fail and invalid, undecided, pass."""
    return RANK[verdict.answer]


def is_fresh(made: Made, now: datetime) -> bool:
    """Of the last week, and not of the future."""
    return timedelta(minutes=-10) <= now - datetime.fromisoformat(made.one.bundle.created) <= timedelta(days=7)


def speaking(history: History, target: str, now: datetime) -> list[Made]:
    """Bundles of a target that may prove something: sound, fresh, by the accepted role, withdrawn by nobody who may."""
    gone = {name for name, role in history.revoked if role == "release"}
    mine = [held for held in history.held if held.by == "accepted" and held.made not in gone]
    made = [LIBRARY[held.made] for held in mine]
    return [one for one in made if one.sound and is_fresh(one, now) and one.one.bundle.target == target]


def against(history: History, target: str, now: datetime) -> bool:
    """Whether a sound bundle of a target, of any age, signed by anybody who is trusted, says otherwise."""
    gone = {name for name, role in history.revoked if role == "release"}
    heard = [held.made for held in history.held if held.by in {"accepted", "development"} and held.made not in gone]
    made = [LIBRARY[name] for name in heard]
    known = [one for one in made if one.sound and datetime.fromisoformat(one.one.bundle.created) <= now]
    return any(one.one.bundle.target == target and not one.agrees for one in known)


AUTHORITY = {"mps": "cuda-h200", "lambda-x86": "aws-lambda-x86"}


@MANY
@given(data=st.data())
def test_only_what_was_proven_passes(shelf: Shelf, data: st.DataObject) -> None:
    """No path to a pass from a number that is no evidence, or not believed; the test knows which is which, and asks no judge.

    Unsigned, foreign, unaccepted, revoked, stale, of the future, dirty, doubtful, failed, missing, emulated, unconfirmed,
    contradicted.
    """
    asked, now = data.draw(GATES), data.draw(NOWS)
    history = data.draw(histories(asked))
    with lying(shelf, history) as root:
        verdict = answered(root, shelf, asking(asked), now)
    for result in verdict.results:
        if result.answer == "pass":
            ours = speaking(history, result.target, now)
            assert result.badge in {"trusted", "confirmed"}
            assert any(one.one.name == result.bundle for one in named(shelf, ours))
            if other := AUTHORITY.get(result.target):
                assert result.badge == "confirmed"
                assert speaking(history, other, now)
                assert not against(history, other, now)
                assert not against(history, result.target, now)
    assert verdict.answer != "pass" or all(result.answer == "pass" for result in verdict.results)


def named(shelf: Shelf, several: Sequence[Made]) -> list[Made]:
    """Bundles under the names that they have on disk."""
    names = {id(made.one): shelf.places[name].name for name, made in LIBRARY.items()}
    return [made._replace(one=replace(made.one, name=names[id(made.one)])) for made in several]


@FEW
@given(data=st.data())
def test_a_gate_passes_on_what_it_needs(shelf: Shelf, data: st.DataObject) -> None:
    """The claim above is not empty: what is needed and nothing that is against it passes, whatever else nobody vouches for."""
    asked = data.draw(GATES)
    needed = [Held(name, "accepted") for gate in asked for name in NEEDS[gate.id]]
    noise = data.draw(st.sets(st.sampled_from(sorted(set(LIBRARY) - {held.made for held in needed})), max_size=2))
    held = [
        *dict.fromkeys(needed),
        *(Held(name, data.draw(st.sampled_from(["nobody", "stranger"]))) for name in sorted(noise)),
    ]
    with lying(shelf, History(tuple(data.draw(st.permutations(held))))) as root:
        assert answered(root, shelf, asking(asked), NOW).answer == "pass"


def removable(root: Path) -> list[Path]:
    """What can be deleted in a store: bundles, their files and envelopes, revocations, ledgers."""
    bundles = sorted((root / "bundles").iterdir())
    files = [path for folder in bundles for path in (*folder.glob("launches/*/*"), folder / ENVELOPE) if path.exists()]
    return [*bundles, *files, *sorted(root.glob("revocations/*")), *sorted(root.glob("ledger/*"))]


def ends(root: Path, shelf: Shelf) -> dict[str, int]:
    """The last number of each chain that anything in the store still tells."""
    found, _ = Store(root).load_all()
    return {key: head.serial for key, head in Ledgers(root, shelf.ring).audit(found).heads.items()}


def delete(path: Path) -> None:
    """Remove a file or a folder that is still there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cut_lines(path: Path, kept: Sequence[bool]) -> None:
    """Remove lines of a ledger."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line, keep in zip(lines, kept, strict=False) if keep))


@FEW
@given(data=st.data())
def test_deleting_evidence_never_improves_a_verdict(shelf: Shelf, data: st.DataObject) -> None:
    """Bundles, parts of them, signatures, revocations, ledgers and their lines, any of them together.

    But not the end of a chain with all that tells of it, which only a witness misses (`test_a_cut_end_is_seen_by_a_witness_only`).
    """
    asked, now = data.draw(GATES), data.draw(NOWS)
    with lying(shelf, data.draw(histories(asked))) as root:
        before, last = answered(root, shelf, asking(asked), now), ends(root, shelf)
        bundles = sorted((root / "bundles").iterdir())
        if not bundles:
            return
        some = st.one_of(st.sampled_from(bundles), st.sampled_from(bundles), st.sampled_from(removable(root)))
        unwelcome = [place(root, shelf, AGAINST[gate.id]) for gate in asked]
        for path in data.draw(st.one_of(st.just(unwelcome), st.lists(some, min_size=1, max_size=3, unique=True))):
            delete(path)
        for path in sorted(root.glob("ledger/*")):
            if path.exists() and data.draw(st.integers(0, 3)) == 0:
                cut_lines(path, data.draw(st.lists(st.booleans(), min_size=5, max_size=5)))
        if ends(root, shelf) == last:
            assert rank(answered(root, shelf, asking(asked), now)) <= rank(before)


@st.composite
def forged(draw: st.DrawFn, lines: list[bytes], names: list[bytes], at: int) -> bytes:
    """A ledger of which one line has another name, kind or digest: those of another line, or of a bundle that was withdrawn."""
    told, parts = draw(st.sampled_from(lines)).split(b","), lines[at].split(b",")
    for part in draw(st.lists(st.sampled_from([1, 2, 2, 3]), max_size=3)):  # serial, kind, name, sha256
        parts[part] = told[part]
    if draw(st.booleans()):
        parts[2] = b'"name":"' + draw(st.sampled_from(names)) + b'"'
    return b"".join([*lines[:at], b",".join(parts), *lines[at + 1 :]])


@FEW
@given(data=st.data())
def test_a_deletion_hidden_under_another_name_never_improves_a_verdict(shelf: Shelf, data: st.DataObject) -> None:
    """A ledger's lines are not signed: one is forged to excuse the loss of a bundle, which a revocation of another would do."""
    asked, now = [LATENCY], data.draw(NOWS)
    held = data.draw(st.permutations(["cpu", "cpu slow", "cpu again"]))
    history = History(tuple(Held(name, "accepted") for name in held), (("cpu again", "release"),))
    with lying(shelf, history) as root:
        before = answered(root, shelf, asking(asked), now)
        path = root / "ledger" / f"{shelf.keys['nightly-cpu'].name}.jsonl"
        names = [shelf.places[name].name.encode() for name in held]
        at = data.draw(st.integers(0, 2))
        path.write_bytes(data.draw(forged(path.read_bytes().splitlines(keepends=True), names, at)))
        for name in {held[at], *data.draw(st.lists(st.sampled_from(held), max_size=1))}:
            delete(place(root, shelf, name))
        assert before.answer == "fail"
        assert rank(answered(root, shelf, asking(asked), now)) == 0


@FEW
@given(data=st.data())
def test_a_failed_attempt_never_improves_a_verdict(shelf: Shelf, data: st.DataObject) -> None:
    """Whoever signs it, whenever it was: no requirement is answered better for it; and one that failed in part makes no pass."""
    asked, now = data.draw(GATES), data.draw(NOWS)
    history = data.draw(histories(asked))
    absent = [name for name in (*FAILED, "cpu half failed") if name not in {held.made for held in history.held}]
    if not absent:
        return
    name = data.draw(st.sampled_from(absent))
    with lying(shelf, history) as root:
        before = answered(root, shelf, asking(asked), now)
        add(root, shelf, Held(name, data.draw(SIGNED)))
        after = answered(root, shelf, asking(asked), now)
    worst = RANK["pass"] if name in FAILED else RANK["undecided"]
    for one, other in zip(before.results, after.results, strict=True):
        assert RANK[other.answer] <= max(RANK[one.answer], RANK["undecided"] if worst == RANK["undecided"] else 0)
    assert after.answer != "pass" or before.answer == "pass"


@FEW
@given(data=st.data())
def test_a_verdict_does_not_depend_on_any_order(shelf: Shelf, data: st.DataObject) -> None:
    """The same bundles in another order, and files that appeared on disk in another: the same verdict, to the byte."""
    asked, now = data.draw(GATES), data.draw(NOWS)
    history = data.draw(histories(asked))
    with lying(shelf, history) as root, tempfile.TemporaryDirectory() as folder:
        first = answered(root, shelf, asking(asked), now)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        turn = data.draw(st.integers(0, len(files)))
        for path in (*reversed(files[turn:]), *files[:turn]):
            moved = Path(folder) / path.relative_to(root)
            moved.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, moved)
        order = data.draw(st.permutations(range(len(history.held))))
        again = answered(Path(folder), shelf, asking(asked), now, order) if history.held else first
    assert again.model_dump_json() == first.model_dump_json()


@FEW
@given(data=st.data())
def test_a_waiver_changes_no_answer_and_no_badge(shelf: Shelf, data: st.DataObject) -> None:
    """Whoever granted it, of whichever policy, for whatever: answers, bounds, badges and reasons stay.

    Only an accepted one that holds today passes over what it names, and never over what is invalid.
    """
    asked, now = data.draw(GATES), data.draw(NOWS)
    by, days = (
        data.draw(st.sampled_from(["release", "development", "stranger"])),
        data.draw(st.sampled_from([-1, 1, 30])),
    )
    same, gate = data.draw(st.booleans()), data.draw(st.sampled_from(["*", asked[0].id, "other"]))
    waiver = Waiver(
        name="w",
        policy=asking(asked).sha256 if same else "0" * 64,
        gate=gate,
        target="*",
        cell="*",
        created=(NOW - timedelta(days=3)).isoformat(),
        expires=(NOW + timedelta(days=days)).isoformat(),
        why="a known fault",
    )
    with lying(shelf, data.draw(histories(asked))) as root:
        before = answered(root, shelf, asking(asked), now)
        Ledgers(root, shelf.everyone).grant(waiver, [shelf.keys[by]])
        after = answered(root, shelf, asking(asked), now)
        assert [one.model_copy(update={"waived_by": None}) for one in after.results] == list(before.results)
        holds = by == "release" and same and now < NOW + timedelta(days=days) and now >= NOW - timedelta(days=3)
        assert [note.name for note in after.waivers] == (["w"] if holds else [])
        assert {one.gate for one in after.results if one.waived_by} <= ({one.id for one in asked} if holds else set())
        if not holds or after.invalid:
            assert after.answer == before.answer


def test_a_cut_end_is_seen_by_a_witness_only(shelf: Shelf, tmp_path: Path) -> None:
    """The known limit: whoever removes the last statements of a chain, and the lines that tell of them, leaves no gap.

    That turns a fail into a pass. A sign-off that saw the end makes the store invalid; nothing else does, and no more is claimed.
    """
    asked = asking([LATENCY])
    with lying(shelf, History((Held("cpu", "accepted"), Held("cpu slow", "accepted")))) as root:
        assert answered(root, shelf, asked, NOW).answer == "fail"
        shutil.copytree(root, tmp_path / "cut")
        cut(tmp_path / "cut", shelf)
        assert answered(tmp_path / "cut", shelf, asked, NOW).answer == "pass"
    with lying(shelf, History((Held("cpu", "accepted"), Held("cpu again", "accepted")))) as root:
        found, _ = Store(root).load_all()
        case = replace(CASE, evidence=found, ledger=Ledgers(root, shelf.ring).audit(found))
        write(root, "1.0", asked, case, [shelf.keys["release"]])
        cut(root, shelf)
        verdict = answered(root, shelf, asked, NOW)
        assert verdict.invalid[0].startswith("sign-off 1.0 saw number 2 of key")
        delete(root / "signoffs")
        assert answered(root, shelf, asked, NOW).answer == "pass"


def cut(root: Path, shelf: Shelf) -> None:
    """Remove the newest statement of the one chain with its line."""
    (ledger,) = (root / "ledger").iterdir()
    *lines, last = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines))
    gone = last.split(b'"name":"')[1].split(b'"')[0].decode()
    delete(root / "bundles" / gone)


def test_the_library_is_what_it_says(shelf: Shelf) -> None:
    """Each bundle of the shelf is read without a fault: what makes it no evidence is what it says, not how it lies."""
    for path in shelf.places.values():
        assert load(path).faults == ()
