"""Evidence is append-only and whole: what was changed is named, what is torn is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from matrix.bundle import MANIFEST, Bundle
from matrix.errors import DataError, EvidenceError, ExitCode, UsageError
from matrix.sample import INVENTORY
from matrix.store import LAUNCH, SBOM, RunFolder, Store, listed, load
from matrix.strict import parse
from tests.making import EAGER, HELD, IMAGE, PACKED, TORCH, evidence, logits, ran

ONE = evidence(samples={EAGER: [[0.01] * 60]}, outputs={TORCH: logits([0, 1])}, labels=np.array([0, 1]))


def running(store: Store) -> RunFolder:
    """A run of one timed and one quality cell, with its only launch finished."""
    return ran(store, ONE)


def manifest(run: RunFolder) -> Bundle:
    """The manifest that a run would be sealed with."""
    return ONE.bundle.model_copy(update={"launches": tuple(run.finished().values()), "created": run.state.created})


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A bundle's folder."""
    store = Store(tmp_path)
    run = running(store)
    return store.seal(run, manifest(run))


def test_a_sealed_bundle_reads_back_what_was_measured(sealed: Path) -> None:
    """Samples and outputs survive the round trip; the run's folder is gone."""
    found = load(sealed)
    assert found.faults == ()
    assert list(found.measured[EAGER.id, 1].samples) == [0.01] * 60
    outputs = found.measured[TORCH.id, 1].evidence.outputs
    assert outputs is not None
    assert found.arrays[outputs].tolist() == logits([0, 1]).tolist()
    assert list((sealed.parents[1] / "runs").glob("cpu*")) == []


def test_sealing_twice_gives_one_bundle(tmp_path: Path) -> None:
    """A run killed between the rename and the sweep is sealed again under the same digest."""
    store = Store(tmp_path)
    first = running(store)
    kept = [(path.relative_to(first.path), path.read_bytes()) for path in first.path.rglob("*") if path.is_file()]
    place = store.seal(first, manifest(first))
    for name, content in kept:
        (first.path / name).parent.mkdir(parents=True, exist_ok=True)
        (first.path / name).write_bytes(content)
    assert store.seal(first, manifest(first)) == place
    assert [path.name for path in store.bundles.iterdir()] == [place.name]


def test_every_changed_byte_is_found_and_named(sealed: Path) -> None:
    """One flipped byte in any file but the manifest is a fault with the file's name."""
    for name in load(sealed).bundle.files:
        path = sealed / name
        before = path.read_bytes()
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        assert load(sealed).faults == (f"{name}: changed",)
        path.write_bytes(before)


def test_a_missing_and_an_added_file_are_named(sealed: Path) -> None:
    """A bundle is all of its files and no more."""
    name = f"launches/01/{LAUNCH}"
    (sealed / name).unlink()
    (sealed / "extra.txt").write_text("x", encoding="utf-8")
    assert load(sealed).faults == (f"{name}: missing", "extra.txt: not in the manifest")


def test_a_changed_manifest_no_longer_has_its_name(sealed: Path) -> None:
    """Editing a field that no file digest covers changes the bundle's own digest."""
    path = sealed / MANIFEST
    path.write_text(path.read_text(encoding="utf-8").replace('"attempt": 1', '"attempt": 2'), encoding="utf-8")
    (fault,) = load(sealed).faults
    assert fault.startswith("bundle.json: changed, its digest is ")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"target": 1}', "\x00"])
def test_a_torn_manifest_is_an_error_with_the_folders_name(sealed: Path, content: str) -> None:
    """Never a traceback; the store shows it beside the bundles that can be read."""
    (sealed / MANIFEST).write_text(content, encoding="utf-8")
    with pytest.raises(EvidenceError) as caught:
        load(sealed)
    assert caught.value.exit_code is ExitCode.INVALID_EVIDENCE
    assert sealed.name in str(caught.value)
    found, torn = Store(sealed.parents[1]).load_all()
    assert (found, len(torn)) == ([], 1)


def test_what_was_left_half_written_is_not_evidence(sealed: Path) -> None:
    """Hidden folders are work in progress of a process that died."""
    (sealed.parent / ".cpu-openvino-half").mkdir()
    assert [one.name for one in Store(sealed.parents[1]).load_all()[0]] == [sealed.name]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    """They would be each other's foreign load."""
    with (
        Store(tmp_path).measuring(),
        pytest.raises(UsageError, match="another run is measuring"),
        Store(tmp_path).measuring(),
    ):
        pass


def test_a_bundle_cannot_leave_a_cell_unexplained() -> None:
    """Planned must equal measured plus explained."""
    whole = evidence(samples={EAGER: [[0.01] * 60]}).bundle
    data = whole.model_dump(mode="json")
    data["launches"][0]["outcomes"] = []
    with pytest.raises(DataError, match="launch 1: planned cells differ from measured and explained ones"):
        parse(Bundle, json.loads(json.dumps(data)), "bundle")
    data = whole.model_dump(mode="json")
    data["launches"][0]["outcomes"][0]["state"] = "failed"
    with pytest.raises(DataError, match="is neither measured nor explained"):
        parse(Bundle, data, "bundle")


def test_the_file_list_is_of_the_whole_tree(sealed: Path) -> None:
    """Digest and size of every file, but the manifest itself."""
    assert set(listed(sealed)) == set(load(sealed).bundle.files)
    assert MANIFEST not in listed(sealed)


def test_samples_of_a_cell_that_failed_after_its_clock_ran_are_not_measured(tmp_path: Path) -> None:
    """pytest-benchmark keeps them; the outcome says that the answers were wrong."""
    store = Store(tmp_path)
    run = ran(store, ONE)
    (record,) = run.finished().values()
    told = [
        o.model_copy(update={"state": "failed", "error": "wrong"}) if o.cell == EAGER.id else o for o in record.outcomes
    ]
    failed = record.model_copy(update={"outcomes": tuple(told)})
    found = load(store.seal(run, ONE.bundle.model_copy(update={"launches": (failed,)})))
    assert {cell for cell, _ in found.measured} == {TORCH.id}


def test_a_sample_that_is_not_a_number_makes_the_bundle_unreadable(tmp_path: Path) -> None:
    """It would sort anywhere."""
    store = Store(tmp_path)
    run = ran(store, evidence(samples={EAGER: [[0.01] * 59 + [float("nan")]]}))
    bundle = evidence(samples={EAGER: [[0.01] * 60]}).bundle
    with pytest.raises(EvidenceError, match="Input should be a finite number"):
        load(store.seal(run, bundle))


BOXED = evidence(samples={EAGER: [[0.01] * 60] * 2, PACKED: [[1.0]]}, image=IMAGE, inventory=HELD)


def test_an_images_inventory_is_sealed_with_its_bill_of_materials(tmp_path: Path) -> None:
    """Both are files of the bundle, under digest; the inventory reads back."""
    store = Store(tmp_path)
    run = ran(store, BOXED)
    (run.launch(1) / INVENTORY).unlink()  # the first launch that has one is the second
    place = store.seal(run, BOXED.bundle)
    found = load(place)
    assert (found.faults, found.inventory) == ((), HELD)
    assert {SBOM, f"launches/02/{INVENTORY}"} <= set(found.bundle.files)
    assert json.loads((place / SBOM).read_text(encoding="utf-8"))["metadata"]["component"]["version"] == IMAGE.id


def test_a_bundle_without_an_image_has_no_bill_of_materials(sealed: Path) -> None:
    """Nothing was taken stock of."""
    assert load(sealed).inventory is None
    assert not (sealed / SBOM).exists()


def test_half_an_inventory_of_a_killed_launch_is_left_out(tmp_path: Path) -> None:
    """A line without its end says nothing; the run is sealed with what is whole."""
    store = Store(tmp_path)
    run = ran(store, BOXED)
    for index in (1, 2):
        torn = run.launch(index) / INVENTORY
        torn.write_bytes(torn.read_bytes()[:40])
    found = load(store.seal(run, BOXED.bundle))
    assert (found.faults, found.inventory) == ((), None)


def test_an_inventory_that_is_none_is_refused_at_sealing_and_at_reading(tmp_path: Path) -> None:
    """Sealing leaves the run where it is; a sealed file that matches its digest is named as no evidence."""
    store = Store(tmp_path)
    run = ran(store, BOXED)
    (run.launch(1) / INVENTORY).write_text('{"python": 1}\n', encoding="utf-8")
    with pytest.raises(EvidenceError, match="an inventory cannot be read"):
        store.seal(run, BOXED.bundle)
    assert run.path.is_dir()
    assert store.load_all() == ([], [])
    (run.launch(1) / INVENTORY).write_text(HELD.model_dump_json() + "\n", encoding="utf-8")
    place = store.seal(run, BOXED.bundle)
    (place / "launches" / "01" / INVENTORY).write_text("{}\n", encoding="utf-8")
    bundle = load(place).bundle.model_copy(update={"files": listed(place)})
    (place / MANIFEST).write_text(bundle.model_dump_json(), encoding="utf-8")
    with pytest.raises(EvidenceError, match="is no evidence"):
        load(place.rename(place.with_name(f"{bundle.target}-{bundle.digest[:12]}")))
