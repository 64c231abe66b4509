"""Make the workload that a run measures: data, teacher, student, exports; each kept in a cache under the digest of its inputs.

A changed input has another key and is made anew; an equal one is never made twice. Everything is written beside its
place and renamed into it, so a killed process leaves no half student.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.errors import MatrixError
from matrix.host import die_with_parent
from matrix.canonical import digest, file_digest, tree_digest
from matrix.job import Artifact, DataIdentity, Event, Job, ModelIdentity, Prepared, SplitIdentity, Training
from matrix.strict import parse_json
from matrix.workloads import examples, export
from matrix.workloads.data import Split, Splits, load_splits
from matrix.workloads.models import build_student, build_teacher, load_model, load_tokenizer, train_tokenizer
from matrix.workloads.progress import Tell, teller
from matrix.workloads.serve import SERVINGS, torch_eager
from matrix.workloads.train import Encoded, Fit, accuracy, encode, fit, logits_of

_HERE = Path(__file__).parent
_TEACHER_JUDGED = 1_000
"""Validation examples that the teacher is judged on: enough to see that it learnt, a third of the time of all."""
_MAKERS = ("data.py", "mangaassist.py", "mangaassist.toml", "models.py", "train.py")
_EXPORT_PACKAGES = (
    "nncf",
    "onnx",
    "onnxruntime",
    "openvino",
    "optimum",
    "optimum-intel",
    "optimum-onnx",
    "torch",
    "transformers",
)


def kept(place: Path, make: Callable[[Path], None]) -> bool:
    """Fill `place` by `make` unless it exists; True when it did. The folder appears whole or not at all."""
    if place.exists():
        return True
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    make(beside)
    for path in beside.rglob("*"):
        if path.is_file():
            path.chmod(
                0o644
            )  # safetensors 0.8.0 writes 0600 whatever the umask: unreadable for another user of an image
    beside.rename(place)
    return False


def folder_of(job: Job, kind: str, key: str) -> Path:
    """Where the cache keeps `kind` ("teachers", "students", "exports") under `key`."""
    return Path(job.folders.cache) / kind / key


def formats_of(job: Job) -> tuple[str, ...]:
    """The export formats that the job's cells need, with those that they are made from."""
    wanted = {"torch_fp32"}
    for cell in job.cells:
        if cell.suite == "export_accuracy":
            wanted.add(cell.variant)
        elif cell.suite == "inference_latency":
            wanted.add(SERVINGS[cell.variant].format)
    for name in reversed(export.formats()):
        if name in wanted:
            wanted.update(export.exporter(name).NEEDS)
    return tuple(name for name in export.formats() if name in wanted)


class Preparation:
    """One workload in the making; each step is a method, in the order of `run`."""

    def __init__(self, job: Job, tell: Tell) -> None:
        self.job, self.tell = job, tell
        self.recipe = job.profile.recipe
        self.source_sha256 = tree_digest((_HERE / name for name in _MAKERS), _HERE)

    def run(self) -> Prepared:
        """Make or find everything, and say what it is.

        Raises:
            DataError: the data or a given model cannot be used.
        """
        self.tell(Event(stage="data", detail=self.job.spec.data))
        self.splits = load_splits(self.job.spec.data, self.recipe)
        key = self._student_key()
        student = folder_of(self.job, "students", key)
        reused = kept(student, self._make_student)
        self.model, self.tokenizer = load_model(str(student), self.splits.names), load_tokenizer(student)
        exports = self._exports_key(student)
        artifacts = {name: self._artifact(student, exports, name) for name in formats_of(self.job)}
        keys = {"student": key, "exports": exports, "examples": self._examples_key(student)}
        kept(folder_of(self.job, "examples", keys["examples"]), lambda out: self._make_examples(student, out))
        return self._identities(student, keys, artifacts, reused=reused)

    def _student_key(self) -> str:
        spec = self.job.spec
        if spec.student is not None:
            return digest(["given", spec.student, _given_digest(spec.student), self.splits.evaluation.sha256])
        recipe = self.recipe.model_dump(mode="json", exclude={"calibration_examples"})
        teacher = spec.teacher and [spec.teacher, _given_digest(spec.teacher)]
        return digest([self.source_sha256, recipe, self.splits.train.sha256, list(self.splits.names), teacher])

    def _teacher_key(self) -> str:
        recipe = self.recipe.model_dump(
            mode="json",
            exclude={
                "student",
                "student_epochs",
                "student_lr",
                "student_batch",
                "calibration_examples",
                "temperature",
                "alpha",
            },
        )
        return digest([self.source_sha256, recipe, self.splits.train.sha256, list(self.splits.names)])

    def _report(self, stage: str, done: int, total: int) -> None:
        self.tell(Event(stage=stage, done=done, total=total))

    def _encode(self, tokenizer: PreTrainedTokenizerBase, split: Split) -> Encoded:
        return encode(tokenizer, split, self.recipe.max_length)

    def _teacher(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        given = self.job.spec.teacher
        if given is None:
            place = folder_of(self.job, "teachers", self._teacher_key())
            kept(place, self._make_teacher)
            given = str(place)
        return load_model(given, self.splits.names), load_tokenizer(given)

    def _make_teacher(self, out: Path) -> None:
        tokenizer = train_tokenizer(self.splits.train.texts)
        model = build_teacher(self.recipe, self.splits.names).to(self.job.device)
        how = Fit(
            "train the teacher",
            self.recipe.teacher_epochs,
            self.recipe.teacher_batch,
            self.recipe.teacher_lr,
            self.recipe.teacher_dropout,
        )
        fit(model, self._encode(tokenizer, self.splits.train), how, self.recipe, self._report)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)

    def _make_student(self, out: Path) -> None:
        if self.job.spec.student is not None:
            load_model(self.job.spec.student, self.splits.names).save_pretrained(out)
            load_tokenizer(self.job.spec.student).save_pretrained(out)
            return
        started = time.monotonic()
        teacher, tokenizer = self._teacher()
        teacher.to(self.job.device)
        train, validation = (self._encode(tokenizer, split) for split in (self.splits.train, self.splits.validation))
        soft = logits_of(teacher, train, self._report, "cache the teacher's logits")
        watched = Encoded(validation.ids[:_TEACHER_JUDGED], validation.labels[:_TEACHER_JUDGED])
        taught = accuracy(logits_of(teacher, watched, self._report, "judge the teacher"), watched.labels)
        student = build_student(self.recipe, self.splits.names).to(self.job.device)
        how = Fit(
            "distil the student",
            self.recipe.student_epochs,
            self.recipe.student_batch,
            self.recipe.student_lr,
            dropout=False,
            soft=soft,
        )
        fit(student, train, how, self.recipe, self._report)
        learnt = accuracy(logits_of(student, validation, self._report, "judge the student"), validation.labels)
        student.cpu().save_pretrained(out)
        tokenizer.save_pretrained(out)
        story = Training(teacher_accuracy=taught, student_accuracy=learnt, seconds=time.monotonic() - started)
        (out / "training.json").write_text(story.model_dump_json(), encoding="utf-8")

    def calibration(self) -> Sequence[dict[str, list[int]]]:
        """Encoded training utterances that quantisers may look at: never validation or evaluation ones."""
        texts = list(self.splits.train.texts[: self.recipe.calibration_examples])
        encoded = self.tokenizer(texts, truncation=True, max_length=self.recipe.max_length)
        names = ("input_ids", "attention_mask", "token_type_ids")
        rows = zip(
            *(encoded.get(name, [[0] * len(ids) for ids in encoded["input_ids"]]) for name in names), strict=True
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _exports_key(self, student: Path) -> str:
        code = tree_digest((_HERE / "export").glob("*.py"), _HERE)
        versions = {name: _version(name) for name in _EXPORT_PACKAGES}
        rows = digest(list(self.calibration()))
        return digest([file_digest(student / "model.safetensors"), code, versions, rows])

    def _artifact(self, student: Path, exports: str, name: str) -> Artifact:
        module, place = export.exporter(name), folder_of(self.job, "exports", exports)
        made = {other: place / other for other in module.NEEDS} | {"torch_fp32": student}

        def make(out: Path) -> None:
            self.tell(Event(stage="export", detail=name))
            started = time.monotonic()
            module.export(made, out, self.calibration())
            seconds = time.monotonic() - started
            facts = Artifact(
                format=name,
                model=module.MODEL,
                bytes=export.artifact_bytes(out, module.MODEL),
                sha256=tree_digest((p for p in out.rglob("*") if p.is_file()), out),
                seconds=seconds,
            )
            (out / "artifact.json").write_text(facts.model_dump_json(), encoding="utf-8")

        kept(place / name, make)
        return parse_json(Artifact, (place / name / "artifact.json").read_bytes(), f"{name}/artifact.json")

    def _examples_key(self, student: Path) -> str:
        code = tree_digest((_HERE / name for name in ("examples.py", "prepare.py")), _HERE)
        weights, tokenizer = file_digest(student / "model.safetensors"), file_digest(student / "tokenizer.json")
        lengths = list(self.job.profile.latency_lengths)
        return digest(
            [
                code,
                weights,
                tokenizer,
                self.splits.evaluation.sha256,
                self.splits.train.sha256,
                lengths,
                self.recipe.max_length,
            ]
        )

    def _make_examples(self, student: Path, out: Path) -> None:
        """Encode, and ask the checkpoint itself for the reference's answers to every probe."""
        self.tell(Event(stage="encode the examples"))
        evaluation, train = (
            self._encode(self.tokenizer, split) for split in (self.splits.evaluation, self.splits.train)
        )
        (held, held_starts), (seen, seen_starts) = examples.flat(evaluation.ids), examples.flat(train.ids)
        arrays = {
            "evaluation": held,
            "evaluation_starts": held_starts,
            "labels": evaluation.labels.numpy(),
            "train": seen,
            "train_starts": seen_starts,
            "train_labels": train.labels.numpy(),
        }
        found = examples.Examples(**arrays, reference={})
        predict = torch_eager.load(student / "model.safetensors", device="cpu", threads=torch.get_num_threads())
        answers = {
            f"logits_{n}": np.vstack([predict(x) for x in found.probes(n)]) for n in self.job.profile.latency_lengths
        }
        examples.write(out, **arrays, **answers)

    def _identities(
        self, student: Path, keys: dict[str, str], artifacts: dict[str, Artifact], *, reused: bool
    ) -> Prepared:
        story = student / "training.json"
        return Prepared(
            data=_data_identity(self.splits),
            tokenizer_sha256=file_digest(student / "tokenizer.json"),
            teacher_model=self._teacher_identity(),
            student_model=ModelIdentity(
                origin="given" if self.job.spec.student else "trained",
                parameters=_parameters(self.model),
                config_sha256=_config_digest(self.model),
                weights_sha256=file_digest(student / "model.safetensors"),
            ),
            training=parse_json(Training, story.read_bytes(), "training.json") if story.exists() else None,
            artifacts=artifacts,
            **keys,
            reused=reused,
        )

    def _teacher_identity(self) -> ModelIdentity:
        given = self.job.spec.teacher
        model = load_model(given, self.splits.names) if given else build_teacher(self.recipe, self.splits.names)
        return ModelIdentity(
            origin="given" if given else "configuration",
            parameters=_parameters(model),
            config_sha256=_config_digest(model),
            weights_sha256=_given_digest(given) if given else None,
        )


def _data_identity(splits: Splits) -> DataIdentity:
    train, validation, evaluation = (
        SplitIdentity(examples=len(part), sha256=part.sha256)
        for part in (splits.train, splits.validation, splits.evaluation)
    )
    return DataIdentity(
        source=splits.source,
        classes=splits.names,
        train=train,
        validation=validation,
        evaluation=evaluation,
        dropped=splits.dropped,
    )


def _given_digest(name: str) -> str | None:
    weights = Path(name) / "model.safetensors"
    return file_digest(weights) if weights.exists() else None


def _config_digest(model: PreTrainedModel) -> str:
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    for volatile in ("_name_or_path", "transformers_version", "architectures"):
        config.pop(volatile, None)
    return digest(config)


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def main(arguments: Sequence[str]) -> int:
    """Read the job file named first, write `prepared.json` into its `out` folder; a refusal goes to standard error."""
    die_with_parent()
    try:
        job = parse_json(Job, Path(arguments[0]).read_bytes(), arguments[0])
        prepared = Preparation(job, teller(Path(job.folders.out))).run()
    except MatrixError as error:
        sys.stderr.write(f"matrix: {error}\n")
        return int(error.exit_code)
    place = Path(job.folders.out) / "prepared.json"
    beside = place.with_suffix(".tmp")
    beside.write_text(prepared.model_dump_json(indent=1), encoding="utf-8")
    beside.replace(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
