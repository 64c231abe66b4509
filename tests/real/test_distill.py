"""`matrix distill`: killed at any time it goes on to the same bits, it never writes over anything, and its students load."""

from __future__ import annotations

import csv
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from matrix.commands import child, distill
from matrix.distillation import STORY, Distilled, working_folder
from matrix.errors import ExitCode, HostError
from matrix.strict import parse_json
from matrix.workloads.data import load_splits
from matrix.workloads.models import build_student, build_teacher, load_model, load_tokenizer, train_tokenizer
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
RECIPE = PROFILE.recipe.model_copy(
    update={"train_examples": 400, "validation_examples": 40, "evaluation_examples": 100}
)
EPOCHS = 6
STEPS = EPOCHS * -(-324 // 8)
"""Epochs of the 60 % of 540 rows, in batches of 8."""


class Answer(NamedTuple):
    """What the command said."""

    code: int
    out: str
    err: str


class Place:
    """Data, a teacher and a student to start from, all tiny, and the command on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        splits = load_splits("embedded", RECIPE)
        with (root / "data.csv").open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["text", "label"])
            for split in (splits.train, splits.validation, splits.evaluation):
                rows.writerows(
                    (text, splits.names[label]) for text, label in zip(split.texts, split.labels, strict=True)
                )
        names, tokenizer = sorted(splits.names), train_tokenizer(splits.train.texts)
        for name, model in {"teacher": build_teacher(RECIPE, names), "start": build_student(RECIPE, names)}.items():
            model.save_pretrained(root / name)
            tokenizer.save_pretrained(root / name)

    def started(self, out: str, *options: str) -> subprocess.Popen[str]:
        """The command as a shell would start it."""
        given = {"data": self.root / "data.csv", "teacher": self.root / "teacher", "student": self.root / "start"}
        command = [
            sys.executable,
            "-m",
            "matrix",
            "distill",
            "--out",
            out,
            "--epochs",
            str(EPOCHS),
            "--batch",
            "8",
            "--device",
            "cpu",
        ]
        command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
        environment = {**os.environ, "MATRIX_CACHE": str(self.root / "cache"), "OMP_WAIT_POLICY": "PASSIVE"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, *options], cwd=self.root, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def said(self, out: str, *options: str) -> Answer:
        """The command, to its end."""
        process = self.started(out, *options)
        said, told = process.communicate(timeout=200)
        return Answer(process.returncode, said, told)

    def weights(self, out: str) -> bytes:
        """The bytes of a finished student."""
        return (self.root / out / "model.safetensors").read_bytes()

    def checkpoints(self, out: str, part: str) -> list[Path]:
        """Those of an unfinished one, in their order."""
        return sorted((working_folder(self.root / out) / part).glob("[0-9]*"))

    def kill_when(self, process: subprocess.Popen[str], out: str, reached: Callable[[], bool]) -> None:
        """`kill -9` at this moment; the process that trained goes too, which its lock tells."""
        while not reached():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with (working_folder(self.root / out) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert not (self.root / out).exists()


def done(paths: list[Path]) -> int:
    """Steps that the newest checkpoint holds."""
    return int(paths[-1].name[:12]) if paths else 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with all that the command is given."""
    return Place(tmp_path_factory.mktemp("distill"))


@pytest.fixture(scope="module")
def whole(place: Place) -> Answer:
    """A student that nobody interrupted, with dropout: random numbers have to go on too."""
    return place.said("whole", "--dropout")


def test_a_student_is_made_told_and_loads(place: Place, whole: Answer) -> None:
    """With tokenizer and story; where `matrix run --student` looks, too; nothing else is left beside it."""
    assert (whole.code, whole.err.count("matrix:")) == (0, 0), whole
    folder = place.root / "whole"
    story = parse_json(Distilled, (folder / STORY).read_bytes(), STORY)
    assert f"accuracy {story.student_accuracy:.4f}" in whole.out
    assert (story.steps, story.asked.dropout, story.asked.random_order) == (STEPS, True, False)
    assert story.seconds > 0
    assert story.examples_per_s == pytest.approx(EPOCHS * 324 / story.seconds)
    names = load_splits(str(place.root / "data.csv"), RECIPE).names
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    start = AutoModelForSequenceClassification.from_pretrained(place.root / "start")
    assert not torch.equal(model.classifier.weight, start.classifier.weight)
    assert load_model(str(folder), names, "bert").num_labels == 10
    assert load_tokenizer(folder).get_vocab() == load_tokenizer(place.root / "teacher").get_vocab()
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    assert not working_folder(folder).exists()


def test_killed_again_and_again_it_comes_to_the_same_bits(place: Place, whole: Answer) -> None:
    """While the teacher answers, early and late in training; each time it goes on from where it was, not from the start."""
    assert whole.code == 0
    options = ("killed", "--dropout", "--checkpoint-every", "0")
    for path in (place.root / "cache" / "logits").iterdir():
        (path / "logits.safetensors").unlink()
        path.rmdir()
    process = place.started(*options)
    place.kill_when(process, "killed", lambda: bool(place.checkpoints("killed", "logits")))
    for moment in (20, 60):
        before = done(place.checkpoints("killed", "student"))
        process = place.started(*options)
        place.kill_when(process, "killed", lambda: done(place.checkpoints("killed", "student")) >= moment)  # noqa: B023
        assert before < done(place.checkpoints("killed", "student")) < STEPS
    ended = place.said("killed", "--dropout")  # an interval of a minute: what it keeps is its end
    assert ended.code == 0, ended
    assert place.weights("killed") == place.weights("whole")
    assert not working_folder(place.root / "killed").exists()


def test_a_corrupt_checkpoint_is_told_and_passed_over(place: Place, whole: Answer) -> None:
    """One bit of the newest: the one before it leads to the same student."""
    assert whole.code == 0
    process = place.started("bitten", "--dropout", "--checkpoint-every", "0")
    place.kill_when(process, "bitten", lambda: len(place.checkpoints("bitten", "student")) == 2)
    newest = place.checkpoints("bitten", "student")[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    ended = place.said("bitten", "--dropout")
    assert f"{newest} is corrupt: going on from the checkpoint before it" in ended.err.replace("\n", "")
    assert place.weights("bitten") == place.weights("whole")


def test_another_command_in_the_same_folder_is_refused(place: Place) -> None:
    """By what differs; the work that is there stays, and a third process waits for nobody."""
    first = place.started("shared", "--checkpoint-every", "0")
    place.kill_when(first, "shared", lambda: bool(place.checkpoints("shared", "student")))
    kept = place.checkpoints("shared", "student")
    answer = place.said("shared", "--lr", "0.1", "--random-order")
    assert answer.code == ExitCode.USAGE
    assert "holds another student in the making; repeat the command that began it" in answer.err
    assert "(not the same: random order, student_lr)" in answer.err
    assert place.checkpoints("shared", "student") == kept
    with (working_folder(place.root / "shared") / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = place.said("shared")
    assert answer.code == ExitCode.USAGE
    assert "another process works in" in answer.err


def test_nothing_is_written_over(place: Place, whole: Answer) -> None:
    """A student of another command, a file, a folder of somebody's; the same command finds its own student again."""
    before = place.weights("whole")
    (place.root / "file").write_text("mine")
    (place.root / "full").mkdir()
    (place.root / "full" / "mine").write_text("mine")
    for out, options in (("whole", ("--seed", "5")), ("file", ()), ("full", ())):
        answer = place.said(out, *options)
        assert answer.code == ExitCode.USAGE
        assert f"something else is at {place.root / out}; name another --out" in answer.err
        assert not working_folder(place.root / out).exists()
    again = place.said("whole", "--dropout")
    assert again == whole
    assert place.weights("whole") == before


def test_a_refusal_of_the_process_is_the_commands(place: Place) -> None:
    """A student of another vocabulary: its sentence and its code, and nothing is left behind."""
    other = place.root / "other"
    build_student(RECIPE, sorted(load_splits("embedded", RECIPE).names)).save_pretrained(other)
    train_tokenizer(["a b c"]).save_pretrained(other)
    answer = place.said("refused", "--student", str(other))
    assert answer.code == ExitCode.USAGE
    assert "has another vocabulary than its teacher; give two of one tokenizer" in answer.err
    assert not (place.root / "refused").exists()
    answer = place.said("refused", "--data", "nowhere.csv")
    assert (answer.code, answer.err.splitlines()[-1]) == (
        ExitCode.USAGE,
        "matrix: no file is at nowhere.csv; give the path of a .json, .csv or .jsonl file, or a hub id",
    )


def test_a_python_without_torch_is_told_which_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any folder is made."""
    monkeypatch.setattr(child, "find_spec", lambda name: None if name == "torch" else object())
    asked = distill.Asked(spec=distill.WorkloadSpec(), recipe=RECIPE)
    live = distill.Live(distill.Console())
    with pytest.raises(HostError, match=r"needs torch in this Python; install distill-matrix\[cpu\]"):
        distill.run(asked, tmp_path / "student", live, every_s=60)
    assert not list(tmp_path.iterdir())
