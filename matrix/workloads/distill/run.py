"""The process of `matrix distill`: makes one student, in steps that each go on from where a killed one was.

`python -m matrix.workloads.distill.run ORDER` reads an order (`matrix.distillation`). It tells its progress beside
that file. Its working folder says what is being made there, and refuses any other order; it holds the checkpoints, and goes when
the student is in its place.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix import whole
from matrix.canonical import digest, file_digest
from matrix.distillation import NOTE, STORY, Deciding, Distillation, Distilled
from matrix.errors import DataError, HostError, MatrixError, UsageError
from matrix.job import Event
from matrix.strict import parse_json
from matrix.workloads.cache import Cache, versions
from matrix.workloads.checkpoint import Checkpoints
from matrix.workloads.data import load_splits
from matrix.workloads.distill import fast
from matrix.workloads.models import build_student, check_vocabulary, load_model, load_tokenizer
from matrix.workloads.progress import Tell, teller
from matrix.workloads.student import given_digest, how_of, source_digest
from matrix.workloads.teacher import Teachers
from matrix.workloads.train import accuracy, encode, logits_of

Device = Literal["cpu", "cuda", "mps"]

_DECIDING = "deciding.json"
_STUDENT = "student"


def device_of(asked: Device | None) -> Device:
    """The device that was asked for, else the best one here.

    Raises:
        HostError: this torch cannot use it.
    """
    here: list[Device] = ["cpu"]
    here += ["mps"] if torch.backends.mps.is_available() else []
    here += ["cuda"] if torch.cuda.is_available() else []
    if asked is not None and asked not in here:
        raise HostError(f"this torch cannot use {asked}", remedy=f"choose one of {', '.join(here)}, or mend the driver")
    return asked or here[-1]


class Distilling:
    """One order at work; each step is a method, in the order of `run`."""

    def __init__(self, order: Distillation, tell: Tell) -> None:
        self.order, self.tell = order, tell
        self.asked, self.recipe = order.asked, order.asked.recipe
        self.out, self.working = Path(order.out), Path(order.working)
        self.device = device_of(self.asked.device)

    def run(self) -> None:
        """Make the student, or find that it is there.

        Raises:
            UsageError: another order's student, or its making, is in the way.
            DataError: the data or a given model cannot be used, or the training diverged.
        """
        self.tell(Event(stage="data", detail=self.asked.spec.data))
        self.splits = load_splits(self.asked.spec.data, self.recipe)
        self.deciding = self._deciding()
        if self.out.exists() and any(self.out.iterdir()):
            self._same_student()
        else:
            self._same_work()
            torch.set_num_threads(self.deciding.threads)
            made = self._make(*self._start())
            made.rename(self.out)
        shutil.rmtree(self.working)

    def _deciding(self) -> Deciding:
        asked, splits = self.asked, self.splits
        parts = {"train": splits.train, "validation": splits.validation, "evaluation": splits.evaluation}
        given = {"teacher": asked.spec.teacher, "student": asked.spec.student}
        facts: dict[str, object] = {
            **self.recipe.model_dump(mode="json"),
            **{f"the {name} examples": part.sha256 for name, part in parts.items()},
            **{f"the given {name}": [name_, given_digest(name_)] if name_ else None for name, name_ in given.items()},
            "dropout": asked.dropout,
            "random order": asked.random_order,
            "device": self.device,
            "this project's code": source_digest(),
            "library versions": versions(("numpy", "tokenizers", "torch", "transformers")),
        }
        return Deciding(facts={name: digest(value) for name, value in facts.items()}, threads=self.order.threads)

    def _same_student(self) -> None:
        story = parse_json(Distilled, (self.out / STORY).read_bytes(), str(self.out / STORY))
        if differing := self.deciding.differing(story.deciding):
            raise UsageError(
                f"{self.out} holds another student", remedy=f"name another folder, or remove it ({_named(differing)})"
            )

    def _same_work(self) -> None:
        """Go on as the process before did, with its number of threads."""
        place = self.working / _DECIDING
        if not place.exists():
            whole.write(place, self.deciding.model_dump_json().encode())
            return
        before = parse_json(Deciding, place.read_bytes(), str(place))
        if differing := self.deciding.differing(before):
            raise UsageError(
                f"{self.working} holds another student in the making",
                remedy=f"repeat the command that began it, name another --out, or remove it ({_named(differing)})",
            )
        self.deciding = before

    def _checkpoints(self, part: str, key: str) -> Checkpoints:
        def say(text: str) -> None:
            self.tell(Event(stage=NOTE, detail=text))

        return Checkpoints(self.working / part, key, self.order.every_s, say)

    def _start(self) -> tuple[PreTrainedModel, Teachers]:
        """The student before its training, and who knows the teacher: a given one is refused before an hour is spent."""
        given, names = self.asked.spec.student, self.splits.names
        student = load_model(given, names, "bert") if given else build_student(self.recipe, names)
        cache, teacher = Cache(Path(self.order.cache)), self.asked.spec.teacher
        teachers = Teachers(teacher, self.recipe, self.device, self.splits, cache, self.tell, self._checkpoints)
        return student.to(self.device), teachers

    def _make(self, student: PreTrainedModel, teachers: Teachers) -> Path:
        """The finished student's folder, still in the working folder."""
        teacher, tokenizer = teachers.load()
        self._check(student, tokenizer)
        train, validation, evaluation = (
            encode(tokenizer, split, self.recipe.max_length)
            for split in (self.splits.train, self.splits.validation, self.splits.evaluation)
        )
        soft = teachers.logits(teacher, tokenizer, train)
        taught = teachers.judged(teacher, validation)
        switches = fast.Switches(dropout=self.asked.dropout, buckets=not self.asked.random_order)
        how = how_of(self.recipe, self.device, switches)
        checkpoints = self._checkpoints(_STUDENT, digest(self.deciding.facts))
        fast.train(student, train, soft, how, teachers.report, checkpoints)
        seconds = checkpoints.spent_s
        learnt = accuracy(logits_of(student, evaluation, teachers.report, "judge the student"), evaluation.labels)
        folder = _saved(student, tokenizer, self.working / "finished")
        story = Distilled(
            asked=self.asked,
            deciding=self.deciding,
            weights_sha256=file_digest(folder / "model.safetensors"),
            teacher_accuracy=taught,
            student_accuracy=learnt,
            steps=how.steps(len(train)),
            seconds=seconds,
            examples_per_s=how.epochs * len(train) / seconds,
        )
        (folder / STORY).write_text(story.model_dump_json(indent=1), encoding="utf-8")
        return folder

    def _check(self, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        check_vocabulary(student, tokenizer)
        given = self.asked.spec.student
        if given and load_tokenizer(given).get_vocab() != tokenizer.get_vocab():
            raise DataError(
                f"the student {given!r} has another vocabulary than its teacher", remedy="give two of one tokenizer"
            )


def _named(facts: Sequence[str]) -> str:
    return f"not the same: {', '.join(facts)}"


def _saved(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    student.cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors 0.8.0 writes 0600 whatever the umask
    return folder


@contextmanager
def _alone(working: Path) -> Iterator[None]:
    """Hold the working folder.

    Raises:
        UsageError: another process does.
    """
    working.mkdir(parents=True, exist_ok=True)
    with (working / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process works in {working}", remedy="wait for it, or stop it") from None
        try:
            yield
        finally:
            if not (working / _DECIDING).exists():  # nothing to go on from
                shutil.rmtree(working, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Obey the order in the file named first; a refusal goes to standard error."""
    try:
        order = parse_json(Distillation, Path(arguments[0]).read_bytes(), arguments[0])
        with _alone(Path(order.working)):
            Distilling(order, teller(Path(arguments[0]).parent)).run()
    except MatrixError as error:
        sys.stderr.write(f"matrix: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
