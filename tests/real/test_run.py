"""The whole path on this machine: train, export, measure, seal, judge, report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from matrix import definitions, processes
from matrix.errors import IncompleteError, UsageError
from matrix.findings import findings_of
from matrix.job import BENCHMARK
from matrix.keys import Keys
from matrix.ledger import Ledgers
from matrix.provenance import Keyring
from matrix.run import failures, run
from matrix.store import Store, load
from matrix.trust import judge
from matrix.validity import Today
from matrix.verify import verified
from tests.making import ledger_of, rules
from tests.real.conftest import Finished
from tests.real.tiny import Silent, request, targets

pytestmark = pytest.mark.frameworks


def test_every_planned_cell_is_measured(finished: Finished) -> None:
    """2 stacks, 5 exports, 5 runtimes cold and at two lengths, 7 imports: nothing is lost, every file is as sealed."""
    evidence = load(finished.bundle)
    assert evidence.faults == ()
    assert failures(evidence.bundle.launches) == 0
    assert {cell.id for cell in evidence.bundle.planned} == {cell for cell, _ in evidence.measured}
    assert len(evidence.bundle.planned) == 2 + 5 + 15 + 7


def test_launches_ran_in_different_orders(finished: Finished) -> None:
    """Each is a block with an order of its own, which is recorded."""
    first, second = load(finished.bundle).bundle.launches
    assert first.order != second.order
    assert all(record.clock is not None for record in (first, second))


def test_each_launch_asked_its_canaries_and_gave_the_nonce_back(finished: Finished) -> None:
    """Before its clock was tested; the nonce is the run's, and hard to guess."""
    bundle = load(finished.bundle).bundle
    assert len(bundle.nonce) == 32
    for record in bundle.launches:
        assert record.nonce == bundle.nonce
        assert record.battery is not None
        assert record.battery.canaries
        assert all(one.passed for one in record.battery.canaries)
        assert (record.foreign_gpu, record.fallbacks) == (None, ())


def test_a_real_bundle_is_signed_outside_the_processes_that_measured(finished: Finished) -> None:
    """By the key of this machine, about every file, as the first of its chain; a reader without the key knows nobody."""
    ring = Keys(finished.root / "home").keyring()
    checked = verified(finished.bundle, finished.root, ring)
    assert [(one.holds, "signed by development" in one.says) for one in checked] == [(True, True)]
    (stranger,) = verified(finished.bundle, finished.root, Keyring())
    assert (stranger.holds, "is not in the keyring" in stranger.says) == (False, True)
    said = Ledgers(finished.root / "reports", ring).audit([load(finished.bundle)]).vouched[finished.bundle.name]
    assert (said.attestation.serial, said.attestation.nonce) == (1, load(finished.bundle).bundle.nonce)


def test_every_file_of_a_real_bundle_is_guarded(finished: Finished, tmp_path: Path) -> None:
    """One bit flipped at its first, middle or last byte, or the file gone: found, with the file's name."""
    ring, store = Keys(finished.root / "home").keyring(), tmp_path / "store"
    shutil.copytree(finished.root / "reports", store)
    place = store / "bundles" / finished.bundle.name
    for path in sorted(found for found in place.rglob("*") if found.is_file()):
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            assert any(path.name in one.says for one in verified(place, store, ring) if not one.holds), (path, at)
        path.unlink()
        assert not all(one.holds for one in verified(place, store, ring)), path
        path.write_bytes(whole)
    assert all(one.holds for one in verified(place, store, ring))


def test_pytest_benchmark_reads_the_evidence(finished: Finished) -> None:
    """Its own `compare` works on our files."""
    files = [str(path) for path in sorted(finished.bundle.glob(f"launches/*/{BENCHMARK}"))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "test_training_step[training_step/intent/raw_torch" in done.stdout


def test_the_exports_answer_as_the_checkpoint_does(finished: Finished) -> None:
    """fp32 exports to rounding; INT8 ones nearly; sizes are those of the files."""
    found = {(f.cell.variant, f.metric): f.value for f in findings_of(load(finished.bundle))}
    for export in ("onnx_fp32", "openvino_fp32"):
        assert (found[export, "max_dlogit"] or 1.0) <= 1e-4
        assert found[export, "flip_rate"] == 0.0
    for export in ("onnx_int8", "openvino_int8"):
        assert (found[export, "flip_rate"] or 0.0) <= 0.05
        assert (found[export, "artifact_bytes"] or 0) < (found["torch_fp32", "artifact_bytes"] or 0)


def test_the_student_learnt(finished: Finished) -> None:
    """A tiny student, a few seconds of training: far above the 10 % of guessing."""
    found = {(f.cell.variant, f.metric): f.value for f in findings_of(load(finished.bundle))}
    assert (found["torch_fp32", "accuracy"] or 0.0) > 0.6


def test_the_shares_of_a_step_sum_to_one(finished: Finished) -> None:
    """Hooks on teacher, student and optimizer see the whole step of both stacks."""
    evidence = load(finished.bundle)
    for stack in ("raw_torch", "hf_trainer"):
        (cell,) = [cell for cell in evidence.bundle.planned if cell.variant == stack]
        for measured in evidence.launches_of(cell.id).values():
            shares = {name: value for name, value in measured.evidence.facts.items() if name.endswith("_share")}
            assert len(shares) == 5
            assert sum(shares.values()) == pytest.approx(1.0, abs=1e-6)
            assert min(shares.values()) >= 0.0


def test_a_cold_start_is_as_long_as_its_parts(finished: Finished) -> None:
    """Import, load and first call fit into start to first answer; the process' memory is its own and not its parent's."""
    evidence = load(finished.bundle)
    for cell in [cell for cell in evidence.bundle.planned if cell.mode == "cold"]:
        for measured in evidence.launches_of(cell.id).values():
            facts = measured.evidence.facts
            assert facts["import_s"] + facts["load_s"] + facts["first_call_s"] < float(measured.samples[0])
            assert facts["resident_bytes"] <= facts["peak_bytes"] < 2 * facts["resident_bytes"]


def test_no_path_of_this_machine_is_in_the_evidence(finished: Finished) -> None:
    """Evidence is published."""
    for path in finished.bundle.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        for private in (str(finished.root), sys.prefix, str(definitions.PACKAGE)):
            assert private not in text, path.name


def test_an_equal_input_never_retrains_and_a_changed_one_does(finished: Finished) -> None:
    """The second run finds its student; another recipe has another key."""
    watcher = Silent()
    again = load(run(request(finished.root, launches=1), targets(), watcher)).bundle.prepared
    before = load(finished.bundle).bundle.prepared
    assert (again.reused, again.student) == (True, before.student)
    assert again.student_model.weights_sha256 == before.student_model.weights_sha256
    assert not any(event.stage in {"train the teacher", "distil the student", "export"} for event in watcher.events)
    recipe = request(finished.root).profile.recipe.model_copy(update={"student_epochs": 1})
    other = load(run(request(finished.root, launches=1, recipe=recipe), targets(), watcher)).bundle.prepared
    assert not other.reused
    assert other.student != before.student
    assert "train the teacher" not in {event.stage for event in watcher.events}, "the teacher's inputs did not change"


def test_a_stack_that_raises_is_in_the_bundle_with_its_error(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell raises in every launch: the others are measured, and the reason is kept."""
    broken = finished.root / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import matrix.workloads.serve.onnx_runtime as runtime\n"
        "def load(*a, **k):\n"
        "    raise RuntimeError('no such kernel')\n"
        "runtime.load = load\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(broken))
    watcher = Silent()
    evidence = load(run(request(finished.root, launches=1), targets(), watcher))
    lost = {
        o.cell.split("/")[2].split("[")[0]: o for o in evidence.bundle.launches[0].outcomes if o.state != "measured"
    }
    assert set(lost) == {"onnx_fp32", "onnx_int8", "ort_fp32", "ort_int8"}
    assert all(
        "no such kernel" in (outcome.error or "") or "gave no answer" in (outcome.error or "")
        for outcome in lost.values()
    )
    assert any("ort_int8" in line and "failed" in line for line in watcher.said)


def test_bad_data_ends_before_anything_is_measured(tmp_path: Path) -> None:
    """The reason is the data's own sentence."""
    wanted = request(tmp_path)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(IncompleteError, match=r"bad\.jsonl:1 is not JSON"):
        run(
            type(wanted)(
                "cpu", wanted.profile, wanted.spec.model_copy(update={"data": str(bad)}), wanted.store, wanted.cache
            ),
            targets(),
            Silent(),
        )


def test_resuming_nothing_or_something_else_is_refused(tmp_path: Path) -> None:
    """--resume goes on with what was asked for, or not at all."""
    with pytest.raises(UsageError, match="no unfinished run of cpu-openvino"):
        run(request(tmp_path, resume=True), targets(), Silent())


_DRIVER = """
import sys
from pathlib import Path
from matrix.run import run
from tests.real.tiny import Silent, request, targets
root, cache = Path(sys.argv[1]), Path(sys.argv[2])
print(run(request(root, cache=cache, resume="--resume" in sys.argv), targets(), Silent()))
"""


def test_a_killed_run_leaves_no_torn_bundle_and_resumes(finished: Finished, tmp_path: Path) -> None:
    """After kill -9 in a launch its process is gone too, finished launches are kept, and --resume completes the bundle."""
    command = [sys.executable, "-c", _DRIVER, str(tmp_path), str(finished.root / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(definitions.PACKAGE.parent)}
    store = Store(tmp_path / "reports")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240
        while not list(store.runs.glob("*/.launch-02/process.json")):
            assert time.monotonic() < deadline, "the launch did not begin"
            assert process.poll() is None, "the run ended too early"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert list(store.bundles.glob("*")) == []
    left = store.unfinished("cpu-openvino")
    assert left is not None
    assert len(left.finished()) == 1
    kept = {index: record.started for index, record in left.finished().items()}
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,), torn = store.load_all()
    assert (torn, found.faults, failures(found.bundle.launches)) == ([], (), 0)
    assert {record.index: record.started for record in found.bundle.launches if record.index in kept} == kept
    assert list(store.runs.glob("*/run.json")) == []


def test_a_real_bundle_is_judged(finished: Finished) -> None:
    """Two launches are too few to be trusted, and every number says so."""
    evidence = load(finished.bundle)
    clean = evidence.bundle.source.model_copy(update={"commit": "c" * 40, "dirty": ()})
    whole = type(evidence)(
        evidence.bundle.model_copy(update={"source": clean}), evidence.name, evidence.measured, evidence.arrays
    )
    judged = judge([whole], ledger_of([whole]), rules(today=Today(datetime.now(UTC), definitions.suite_digests())))
    timed = [one for one in judged if one.finding.metric == "p50_s"]
    assert timed
    assert {one.state.reasons[0].number for one in timed} == {"2 launches"}
    assert json.loads((finished.bundle / "bundle.json").read_text(encoding="utf-8"))["profile"]["name"] == "tiny"


def test_what_is_told_to_another_pytest_is_not_told_to_the_suites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options of the user's, and the worker of pytest-xdist whose child would measure nothing."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    told = "import os; print(sorted(name for name in os.environ if name.startswith('PYTEST_')))"
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    processes.call(["-c", told], tmp_path, Silent().event, variables=variables, timeout_s=60)
    assert (tmp_path / "log.txt").read_text() == "['PYTEST_DISABLE_PLUGIN_AUTOLOAD']\n"
