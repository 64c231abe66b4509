"""Makes the intent student, or takes the one that was given; both are kept in the cache with their tokenizer."""

from __future__ import annotations

import time
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.canonical import digest, tree_digest
from matrix.job import Event, Job, Training
from matrix.strict import parse_json
from matrix.workloads.cache import Cache
from matrix.workloads.data import Split, Splits
from matrix.workloads.models import (
    build_student,
    build_teacher,
    check_vocabulary,
    load_model,
    load_tokenizer,
    train_tokenizer,
)
from matrix.workloads.progress import Tell
from matrix.workloads.train import Encoded, Fit, accuracy, encode, first_losses, fit, logits_of

_HERE = Path(__file__).parent
_MAKERS = ("data.py", "mangaassist.py", "mangaassist.toml", "models.py", "student.py", "train.py")
"""The source that decides a student: a change in one of these files makes another student."""

_TEACHER_JUDGED = 1_000
"""Validation examples that the teacher is judged on: enough to see that it learnt, a third of the time of all."""

_STORY = "training.json"
_NOT_TEACHER = {"student", "student_epochs", "student_lr", "student_batch", "temperature", "alpha"}
_NOT_STUDENT = {"calibration_examples", "evaluation_examples"}


def given_digest(name: str) -> str | None:
    """Digest of every file of a given checkpoint's folder; None for a hub id, which only its name identifies."""
    folder = Path(name)
    return tree_digest((path for path in folder.rglob("*") if path.is_file()), folder) if folder.is_dir() else None


def story_of(student: Path) -> Training | None:
    """How the student in this folder was trained; None when it was given."""
    path = student / _STORY
    return parse_json(Training, path.read_bytes(), str(path)) if path.exists() else None


class StudentMaker:
    """Knows the keys of teacher and student, and makes what the cache does not have."""

    def __init__(self, job: Job, splits: Splits, cache: Cache, tell: Tell) -> None:
        self.job, self.splits, self.cache, self.tell = job, splits, cache, tell
        self.recipe = job.profile.recipe
        self._source = tree_digest((_HERE / name for name in _MAKERS), _HERE)

    def _key(self, *parts: object, without: set[str]) -> str:
        recipe = self.recipe.model_dump(mode="json", exclude=without | _NOT_STUDENT)
        return digest([self._source, recipe, self.splits.train.sha256, list(self.splits.names), *parts])

    def key(self) -> str:
        """The student's key in the cache."""
        given, teacher = self.job.spec.student, self.job.spec.teacher
        if given is not None:
            return digest(["given", given, given_digest(given), list(self.splits.names)])
        return self._key(self.splits.validation.sha256, teacher and [teacher, given_digest(teacher)], without=set())

    def make(self, out: Path) -> None:
        """Fill the folder `out` with checkpoint, tokenizer and story."""
        if self.job.spec.student is not None:
            load_model(self.job.spec.student, self.splits.names, "bert").save_pretrained(out)
            load_tokenizer(self.job.spec.student).save_pretrained(out)
            return
        started = time.monotonic()
        teacher, tokenizer = self._teacher()
        teacher.to(self.job.device)
        train, validation = (self._encoded(tokenizer, split) for split in (self.splits.train, self.splits.validation))
        watched = Encoded(validation.ids[:_TEACHER_JUDGED], validation.labels[:_TEACHER_JUDGED])
        soft = logits_of(teacher, train, self._report, "cache the teacher's logits")
        taught = accuracy(logits_of(teacher, watched, self._report, "judge the teacher"), watched.labels)
        recipe = self.recipe
        student = build_student(recipe, self.splits.names).to(self.job.device)
        check_vocabulary(student, tokenizer)
        how = Fit(
            "distil the student",
            recipe.student_epochs,
            recipe.student_batch,
            recipe.student_lr,
            dropout=False,
            soft=soft,
        )
        first = first_losses(student, self._untrained(teacher), train, how, recipe)
        fit(student, train, how, recipe, self._report)
        learnt = accuracy(logits_of(student, validation, self._report, "judge the student"), validation.labels)
        student.cpu().save_pretrained(out)
        tokenizer.save_pretrained(out)
        story = Training(
            teacher_accuracy=taught,
            student_accuracy=learnt,
            seconds=time.monotonic() - started,
            seed=recipe.seed,
            device=self.job.device,
            first_losses=first,
        )
        (out / _STORY).write_text(story.model_dump_json(), encoding="utf-8")

    def _teacher(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        given = self.job.spec.teacher
        if given is None:
            place = self.cache.folder("teachers", self._key(without=_NOT_TEACHER | {"validation_examples"}))
            self.cache.keep(place, self._make_teacher)
            given = str(place)
        return load_model(given, self.splits.names, "distilbert"), load_tokenizer(given)

    def _untrained(self, teacher: PreTrainedModel) -> PreTrainedModel:
        """The teacher before this project trained it: a given one is as it came."""
        if self.job.spec.teacher is not None:
            return teacher
        return build_teacher(self.recipe, self.splits.names).to(self.job.device)

    def _make_teacher(self, out: Path) -> None:
        recipe, tokenizer = self.recipe, train_tokenizer(self.splits.train.texts)
        model = build_teacher(recipe, self.splits.names).to(self.job.device)
        how = Fit(
            "train the teacher", recipe.teacher_epochs, recipe.teacher_batch, recipe.teacher_lr, recipe.teacher_dropout
        )
        fit(model, self._encoded(tokenizer, self.splits.train), how, recipe, self._report)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)

    def _encoded(self, tokenizer: PreTrainedTokenizerBase, split: Split) -> Encoded:
        return encode(tokenizer, split, self.recipe.max_length)

    def _report(self, stage: str, done: int, total: int) -> None:
        self.tell(Event(stage=stage, done=done, total=total))
