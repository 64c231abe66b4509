"""Where evidence lies: runs in progress, and bundles. Append-only, content-addressed, written beside and renamed.

A killed run leaves no half bundle: launches that ended are whole folders, everything else is named `.…` and swept.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matrix import whole
from matrix.bundle import ENVELOPE, MANIFEST, Bundle, Evidence, FileEntry, Source
from matrix.canonical import digest, file_digest
from matrix.cell import Plan
from matrix.contents import arrays, measured
from matrix.errors import EvidenceError, MatrixError, UsageError
from matrix.job import BENCHMARK, Image, Prepared, WorkloadSpec
from matrix.profile import Profile
from matrix.sample import INVENTORY, Inventory, LaunchRecord
from matrix.sbom import render
from matrix.strict import Strict, parse_json
from matrix.target import Executor

LAUNCH = "launch.json"
SBOM = "sbom.cdx.json"


Attest = Callable[[Path, str, Bundle], None]
"""Signs the bundle that lies in a folder and will have this name."""


class RunState(Strict):
    """What a run set out to do: enough to go on with it, or to refuse to. `nonce` is drawn once, and each launch gives it back."""

    target: str
    executor: Executor
    created: str
    attempt: int
    profile: Profile
    spec: WorkloadSpec
    plan: Plan
    source: Source
    nonce: str = ""


@dataclass(frozen=True)
class RunFolder:
    """A run in progress, on disk."""

    path: Path
    state: RunState

    def launch(self, index: int) -> Path:
        """The folder of a finished launch."""
        return self.path / "launches" / f"{index:02d}"

    def workplace(self, name: str) -> Path:
        """A fresh hidden folder for something in the making."""
        place = self.path / f".{name}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

    def finished(self) -> dict[int, LaunchRecord]:
        """The launches that ended, by index."""
        files = sorted(self.path.glob(f"launches/*/{LAUNCH}"))
        return {record.index: record for record in (parse_json(LaunchRecord, f.read_bytes(), str(f)) for f in files)}

    def keep_launch(self, place: Path, record: LaunchRecord) -> None:
        """Turn a workplace into a finished launch: whole or not at all."""
        whole.write(place / LAUNCH, record.model_dump_json(indent=1).encode())
        self.launch(record.index).parent.mkdir(exist_ok=True)
        place.rename(self.launch(record.index))

    def prepared(self) -> Prepared | None:
        """The workload's identities, if preparation ended."""
        path = self.path / "prepared.json"
        return parse_json(Prepared, path.read_bytes(), str(path)) if path.exists() else None

    def keep_prepared(self, prepared: Prepared) -> None:
        """Remember the workload's identities."""
        whole.write(self.path / "prepared.json", prepared.model_dump_json(indent=1).encode())


class Store:
    """The evidence under one folder (`reports/` by default)."""

    def __init__(self, root: Path) -> None:
        self.root, self.bundles, self.runs = root, root / "bundles", root / "runs"

    @property
    def owner(self) -> str:
        """What marks the containers of this store's runs."""
        return digest(str(self.root.resolve()))[:32]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold this store for one run: two runs at once would be each other's foreign load.

        Raises:
            UsageError: another run holds it.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        with (self.runs / ".lock").open("w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go when the process dies
            except OSError:
                raise UsageError(f"another run is measuring under {self.root}", remedy="wait until it ends") from None
            yield

    def begin(self, state: RunState) -> RunFolder:
        """Make the folder of a new run."""
        path = self.runs / f"{state.target}-{state.created.replace(':', '').replace('-', '')}"
        path.mkdir(parents=True)
        whole.write(path / "run.json", state.model_dump_json(indent=1).encode())
        return RunFolder(path, state)

    def unfinished(self, target: str) -> RunFolder | None:
        """The newest run of `target` that did not end; None without one."""
        for path in sorted(self.runs.glob(f"{target}-*/run.json"), reverse=True):
            state = parse_json(RunState, path.read_bytes(), str(path))
            if state.target == target:
                return RunFolder(path.parent, state)
        return None

    def attempts(self, target: str) -> int:
        """How many runs of `target` this store has seen, ended or not: every attempt counts."""
        sealed = sum(1 for found in self.bundles.glob(f"{target}-*/{MANIFEST}"))
        return sealed + sum(1 for found in self.runs.glob(f"{target}-*/run.json"))

    def seal(self, run: RunFolder, bundle: Bundle, attest: Attest = lambda _folder, _name, _bundle: None) -> Path:
        """Turn a run whose launches all ended into a bundle, and sweep the run. Sealing twice gives the same bundle.

        `attest` signs it before it appears under its name: no bundle of a signer is ever seen unsigned.

        Raises:
            EvidenceError: a launch's inventory cannot be read; the run stays where it is.
        """
        beside = self.bundles / f".{run.path.name}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for source, name in _parts(run):
            place = beside / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        _add_sbom(beside, bundle.image)
        sealed = bundle.model_copy(update={"files": listed(beside)})
        whole.write(beside / MANIFEST, sealed.model_dump_json(indent=1).encode())
        place = self.bundles / f"{sealed.target}-{sealed.digest[:12]}"
        if place.exists():
            shutil.rmtree(beside)
        else:
            attest(beside, place.name, sealed)
            beside.rename(place)
        swept = run.path.with_name(f".{run.path.name}")
        run.path.rename(swept)  # at once: a run that is half removed would be offered to --resume
        shutil.rmtree(swept)
        return place

    def load_all(self) -> tuple[list[Evidence], list[MatrixError]]:
        """Every bundle of this store by age, and why some cannot be read at all: a torn bundle is shown, not skipped."""
        found, torn = [], []
        for place in sorted(self.bundles.glob("*/")):
            if place.name.startswith("."):
                continue
            try:
                found.append(load(place))
            except MatrixError as error:
                torn.append(error)
        return sorted(found, key=lambda evidence: (evidence.bundle.created, evidence.name)), torn


def _parts(run: RunFolder) -> Iterator[tuple[Path, str]]:
    """Every file of a bundle and its name there; outputs are named by digest, so equal ones are one file."""
    for index in run.finished():
        folder = run.launch(index)
        for name in (LAUNCH, BENCHMARK):
            if (folder / name).exists():
                yield folder / name, f"launches/{index:02d}/{name}"
        if _is_whole(folder / INVENTORY):
            yield folder / INVENTORY, f"launches/{index:02d}/{INVENTORY}"
        for output in sorted(folder.glob("outputs/*.npy")):
            yield output, f"outputs/{output.name}"


def _is_whole(line: Path) -> bool:
    """Whether a file holds its one line: a process that was killed while writing leaves half of it, which says nothing."""
    return line.exists() and line.read_bytes().endswith(b"\n")


def _inventory(folder: Path) -> Inventory | None:
    """What the first launch that took an inventory found; every launch's must be readable."""
    files = sorted(folder.glob(f"launches/*/{INVENTORY}"))
    found = [parse_json(Inventory, path.read_bytes(), f"{path.parent.name}/{path.name}") for path in files]
    return found[0] if found else None


def _add_sbom(folder: Path, image: Image | None) -> None:
    """Write the image's bill of materials beside the launches, where one of them took an inventory."""
    try:
        found = _inventory(folder)
    except MatrixError as error:
        raise EvidenceError("an inventory cannot be read", remedy=f"measure the image again ({error})") from error
    if found:
        whole.write(folder / SBOM, render(found, image).encode())


def listed(folder: Path) -> dict[str, FileEntry]:
    """Every file under `folder` but the manifest and its signature, with digest and size."""
    apart = {folder / MANIFEST, folder / ENVELOPE}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in apart)
    return {
        path.relative_to(folder).as_posix(): FileEntry(sha256=file_digest(path), bytes=path.stat().st_size)
        for path in files
    }


def _faults(folder: Path, bundle: Bundle) -> tuple[str, ...]:
    """Every file that is missing, changed or not in the manifest, by name."""
    seen = listed(folder)
    changed = [
        f"{name}: {'missing' if name not in seen else 'changed'}"
        for name, entry in bundle.files.items()
        if seen.get(name) != entry
    ]
    return tuple(changed + [f"{name}: not in the manifest" for name in seen if name not in bundle.files])


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys are each there once: of two, one reader takes the first and another the last."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def _manifest(folder: Path) -> tuple[Bundle, str]:
    """The manifest in `folder`, and its digest as it was sealed: a field that was added since then changes no name.

    Raises:
        EvidenceError: there is no readable manifest.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        return parse_json(Bundle, data, str(path)), digest(json.loads(data, object_pairs_hook=_unrepeated))
    except (OSError, MatrixError, ValueError, RecursionError) as error:
        raise EvidenceError(
            f"{folder} has no readable manifest", remedy=f"restore {path.name} or remove the folder ({error})"
        ) from None


def _misnamed(folder: Path, bundle: Bundle, written: str) -> Iterator[str]:
    """Why a folder's name is not that of the bundle in it."""
    if not folder.name.endswith(written[:12]):
        yield f"{MANIFEST}: changed, its digest is {written[:12]}"
    elif folder.name != f"{bundle.target}-{written[:12]}":
        yield f"{MANIFEST}: of {bundle.target}-{written[:12]}, its folder was renamed"


def _sayable(text: str) -> str:
    """A file's name as text can say it: POSIX lets it hold bytes that are no character."""
    return text.encode("utf-8", "backslashreplace").decode()


def load(folder: Path) -> Evidence:
    """The bundle in `folder`, verified file by file; a bundle with faults is read no further than its manifest.

    Raises:
        EvidenceError: there is no readable manifest, or a file that matches its digest is no evidence.
    """
    bundle, written = _manifest(folder)
    try:
        faults = (*_misnamed(folder, bundle, written), *_faults(folder, bundle))
        if faults:
            return Evidence(bundle, _sayable(folder.name), {}, {}, tuple(map(_sayable, faults)))
        held = arrays(folder, bundle)
        return Evidence(bundle, folder.name, measured(folder, bundle, held), held, inventory=_inventory(folder))
    except (OSError, MatrixError) as error:
        raise EvidenceError(
            f"{folder} is no evidence", remedy=f"its files match their digests but cannot be read ({error})"
        ) from error
