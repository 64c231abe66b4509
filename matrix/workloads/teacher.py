"""The intent teacher: the one that was given, or trained here and kept; and its logits on the training examples, kept too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.canonical import digest, tree_digest
from matrix.job import Event
from matrix.profile import Recipe
from matrix.workloads.cache import Cache
from matrix.workloads.checkpoint import Checkpoints
from matrix.workloads.data import Splits
from matrix.workloads.distill.teacher_cache import teacher_digest
from matrix.workloads.models import build_teacher, load_model, load_tokenizer, train_tokenizer
from matrix.workloads.progress import Tell
from matrix.workloads.train import Encoded, Fit, accuracy, encode, fit, logits_of

_HERE = Path(__file__).parent
_MAKERS = ("data.py", "mangaassist.py", "mangaassist.toml", "models.py", "teacher.py", "train.py")
"""The source that decides a teacher: a change in one of these files makes another one."""

_JUDGED = 1_000

_NOT_TEACHER = {
    "student",
    "student_epochs",
    "student_lr",
    "student_batch",
    "temperature",
    "alpha",
    "calibration_examples",
    "evaluation_examples",
    "validation_examples",
}

Keeper = Callable[[str, str], Checkpoints]
"""The checkpoints of a named part of the work, under the key of what decides it."""


@dataclass(frozen=True)
class Teachers:
    """Knows the teacher's key, and makes what the cache does not have.

    `given` is a checkpoint's folder or hub id, None for the teacher that is trained here; `checkpoints`, where there are any,
    are what a killed training or pass goes on from.
    """

    given: str | None
    recipe: Recipe
    device: str
    splits: Splits
    cache: Cache
    tell: Tell
    checkpoints: Keeper | None = None

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The teacher, on the device, and its tokenizer.

        Raises:
            DataError: a given one cannot be had, or is not for these classes.
        """
        name = self.given or str(self.trained())
        return load_model(name, self.splits.names, "distilbert").to(self.device), load_tokenizer(name)

    def untrained(self, teacher: PreTrainedModel) -> PreTrainedModel:
        """The teacher before this project trained it: a given one is as it came."""
        return teacher if self.given else build_teacher(self.recipe, self.splits.names).to(self.device)

    def logits(self, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: Encoded) -> torch.Tensor:
        """The teacher's logits on `train`, examples x classes: computed once for these weights, this tokenizer, these ids."""
        key = digest([teacher_digest(teacher), _tokenizer_digest(tokenizer), self.device, digest(list(train.ids))])
        place, checkpoints = self.cache.folder("logits", key), self._checkpoints("logits", key)

        def make(out: Path) -> None:
            found = logits_of(teacher, train, self.report, "cache the teacher's logits", checkpoints)
            save_file({"logits": found}, out / "logits.safetensors")

        self.cache.keep(place, make)
        return load_file(place / "logits.safetensors")["logits"]

    def judged(self, teacher: PreTrainedModel, validation: Encoded) -> float:
        """The teacher's accuracy on the first thousand of `validation`: enough to see that it learnt."""
        watched = Encoded(validation.ids[:_JUDGED], validation.labels[:_JUDGED])
        return accuracy(logits_of(teacher, watched, self.report, "judge the teacher"), watched.labels)

    def report(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is."""
        self.tell(Event(stage=stage, done=done, total=total))

    def trained(self) -> Path:
        """The folder of the recipe's own teacher and its tokenizer, named by its key; trained unless the cache has it."""
        recipe = self.recipe.model_dump(mode="json", exclude=_NOT_TEACHER)
        source = tree_digest((_HERE / name for name in _MAKERS), _HERE)
        key = digest([source, recipe, self.splits.train.sha256, list(self.splits.names)])
        place, checkpoints = self.cache.folder("teachers", key), self._checkpoints("teacher", key)

        def make(out: Path) -> None:
            recipe, tokenizer = self.recipe, train_tokenizer(self.splits.train.texts)
            model = build_teacher(recipe, self.splits.names).to(self.device)
            dropout, lr = recipe.teacher_dropout, recipe.teacher_lr
            how = Fit("train the teacher", recipe.teacher_epochs, recipe.teacher_batch, lr, dropout)
            fit(model, encode(tokenizer, self.splits.train, recipe.max_length), how, recipe, self.report, checkpoints)
            model.save_pretrained(out)
            tokenizer.save_pretrained(out)

        self.cache.keep(place, make)
        return place

    def _checkpoints(self, part: str, key: str) -> Checkpoints | None:
        return self.checkpoints(part, key) if self.checkpoints else None


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
