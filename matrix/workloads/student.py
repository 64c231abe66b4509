"""Makes the intent student, or takes the one that was given; both are kept in the cache with their tokenizer."""

from __future__ import annotations

import time
from pathlib import Path

from matrix.canonical import digest, tree_digest
from matrix.job import Job, Training
from matrix.profile import Recipe
from matrix.strict import parse_json
from matrix.workloads.cache import Cache
from matrix.workloads.data import Splits
from matrix.workloads.distill import fast
from matrix.workloads.models import build_student, check_vocabulary, load_model, load_tokenizer
from matrix.workloads.progress import Tell
from matrix.workloads.teacher import Teachers
from matrix.workloads.train import accuracy, encode, logits_of

_HERE = Path(__file__).parent
MAKERS = (
    "data.py",
    "distill/buckets.py",
    "distill/fast.py",
    "distill/fast_loop.py",
    "distill/fast_student.py",
    "distill/halves.py",
    "mangaassist.py",
    "mangaassist.toml",
    "models.py",
    "student.py",
    "teacher.py",
    "train.py",
)
"""The source that decides a student: a change in one of these files makes another student."""

_STORY = "training.json"
_NOT_STUDENT = {"calibration_examples", "evaluation_examples"}


def given_digest(name: str) -> str | None:
    """Digest of every file of a given checkpoint's folder; None for a hub id, which only its name identifies."""
    folder = Path(name)
    return tree_digest((path for path in folder.rglob("*") if path.is_file()), folder) if folder.is_dir() else None


def story_of(student: Path) -> Training | None:
    """How the student in this folder was trained; None when it was given."""
    path = student / _STORY
    return parse_json(Training, path.read_bytes(), str(path)) if path.exists() else None


def source_digest() -> str:
    """Digest of the source that decides a student."""
    return tree_digest((_HERE / name for name in MAKERS), _HERE)


def how_of(recipe: Recipe, device: str, switches: fast.Switches = fast.Switches()) -> fast.Fast:  # noqa: B008 - frozen
    """How the recipe's student is trained."""
    return fast.Fast(
        epochs=recipe.student_epochs,
        batch=recipe.student_batch,
        lr=recipe.student_lr,
        seed=recipe.seed,
        temperature=recipe.temperature,
        alpha=recipe.alpha,
        switches=switches,
        device=device,
    )


class StudentMaker:
    """Knows the student's key, and makes what the cache does not have."""

    def __init__(self, job: Job, splits: Splits, cache: Cache, tell: Tell) -> None:
        self.job, self.splits, self.cache, self.tell = job, splits, cache, tell
        self.recipe = job.profile.recipe

    def key(self) -> str:
        """The student's key in the cache."""
        given, teacher = self.job.spec.student, self.job.spec.teacher
        if given is not None:
            return digest(["given", given, given_digest(given), list(self.splits.names)])
        recipe, taught = (
            self.recipe.model_dump(mode="json", exclude=_NOT_STUDENT),
            teacher and [teacher, given_digest(teacher)],
        )
        data = [self.splits.train.sha256, self.splits.validation.sha256, list(self.splits.names)]
        return digest([source_digest(), recipe, *data, taught])

    def make(self, out: Path) -> None:
        """Fill the folder `out` with checkpoint, tokenizer and story."""
        if self.job.spec.student is not None:
            load_model(self.job.spec.student, self.splits.names, "bert").save_pretrained(out)
            load_tokenizer(self.job.spec.student).save_pretrained(out)
            return
        started = time.monotonic()
        recipe, device = self.recipe, self.job.device
        teachers = Teachers(self.job.spec.teacher, recipe, device, self.splits, self.cache, self.tell)
        teacher, tokenizer = teachers.load()
        both = (self.splits.train, self.splits.validation)
        train, validation = (encode(tokenizer, split, recipe.max_length) for split in both)
        soft = teachers.logits(teacher, tokenizer, train)
        taught = teachers.judged(teacher, validation)
        student = build_student(recipe, self.splits.names).to(device)
        check_vocabulary(student, tokenizer)
        how = how_of(recipe, device)
        first = fast.first_losses(student, teachers.untrained(teacher), train, how)
        fast.train(student, train, soft, how, teachers.report)
        learnt = accuracy(logits_of(student, validation, teachers.report, "judge the student"), validation.labels)
        student.cpu().save_pretrained(out)
        tokenizer.save_pretrained(out)
        story = Training(
            teacher_accuracy=taught,
            student_accuracy=learnt,
            seconds=time.monotonic() - started,
            seed=recipe.seed,
            device=device,
            first_losses=first,
        )
        (out / _STORY).write_text(story.model_dump_json(), encoding="utf-8")
