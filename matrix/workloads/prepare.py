"""Prepares the workload that a run measures: data, student, exports, encoded examples; and says what all of it is.

`python -m matrix.workloads.prepare JOB` reads a job file and writes `prepared.json` into the job's `out` folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from matrix.canonical import digest, file_digest, tree_digest
from matrix.errors import DataError, MatrixError, UsageError
from matrix.job import Artifact, DataIdentity, Event, Job, ModelIdentity, Prepared, ResponseIdentity, SplitIdentity
from matrix.strict import parse_json
from matrix.workloads import conversations, examples, export
from matrix.workloads.cache import Cache, versions
from matrix.workloads.data import Splits, load_splits
from matrix.workloads.export import parity
from matrix.workloads.language import making as language_student
from matrix.workloads.models import build_teacher, check_vocabulary, load_model, load_tokenizer
from matrix.workloads.progress import Tell, teller
from matrix.workloads.serve import INPUTS, SERVINGS, runtime_of, torch_eager
from matrix.workloads.student import StudentMaker, given_digest, story_of
from matrix.workloads.teacher import Teachers
from matrix.workloads.train import encode

_HERE = Path(__file__).parent
_BATCH = 64
"""Evaluation examples that the checkpoint answers at once: fp32 is exact up to rounding at any batch."""
_EXPORTERS = (
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
"""Packages whose versions decide an artifact's bytes."""


def formats_of(job: Job) -> tuple[str, ...]:
    """The export formats that the job's cells need, with those that they are made from."""
    wanted = {"torch_fp32"}
    for cell in job.cells:
        if cell.suite == "export_accuracy":
            wanted.add(cell.variant)
        elif cell.variant in SERVINGS and cell.suite in ("inference_latency", "concurrent_load"):
            wanted.add(SERVINGS[cell.variant].format)
    for name in reversed(export.formats()):
        if name in wanted:
            wanted.update(export.exporter(name).NEEDS)
    return tuple(name for name in export.formats() if name in wanted)


class Preparation:
    """One workload in the making; each step is a method, in the order of `run`."""

    def __init__(self, job: Job, tell: Tell) -> None:
        self.job, self.tell, self.cache = job, tell, Cache(Path(job.folders.cache))
        self.recipe = job.profile.recipe

    def run(self) -> Prepared:
        """Make or find everything, and say what it is.

        Raises:
            DataError: the data or a given model cannot be used.
        """
        self.tell(Event(stage="data", detail=self.job.spec.data))
        self.splits = load_splits(self.job.spec.data, self.recipe)
        maker = StudentMaker(self.job, self.splits, self.cache, self.tell)
        keys = {"student": maker.key()}
        self.student = self.cache.folder("students", keys["student"])
        reused = self.cache.keep(self.student, maker.make)
        self.model, self.tokenizer = (
            load_model(str(self.student), self.splits.names, "bert"),
            load_tokenizer(self.student),
        )
        teachers = self._trial_teachers()
        keys |= {"exports": self._exports_key(), "examples": self._examples_key()}
        artifacts = {name: self._artifact(keys["exports"], name) for name in formats_of(self.job)}
        self.cache.keep(self.cache.folder("examples", keys["examples"]), self._make_examples)
        return Prepared(
            data=_data_identity(self.splits),
            tokenizer_sha256=file_digest(self.student / "tokenizer.json"),
            teacher_model=self._teacher_identity(),
            student_model=ModelIdentity(
                origin="given" if self.job.spec.student else "trained",
                parameters=_parameters(self.model),
                config_sha256=_config_digest(self.model),
                weights_sha256=file_digest(self.student / "model.safetensors"),
            ),
            training=story_of(self.student),
            artifacts=artifacts,
            reused=reused,
            response=self._response(),
            teachers=teachers,
            **keys,
        )

    def _trial_teachers(self) -> tuple[str, ...]:
        """Keys of the trained teachers that the job's trials learn from; none where one was given.

        Raises:
            DataError: no teacher that knows the given student's tokens can be had.
        """
        variants = {cell.variant for cell in self.job.cells if cell.suite == "training_quality"}
        given, student = self.job.spec.teacher, self.job.spec.student
        if not variants:
            return ()
        if given and load_tokenizer(given).get_vocab() != self.tokenizer.get_vocab():
            raise DataError(
                "the given teacher reads other tokens than the student: a trial has one input for both",
                remedy="give two of one tokenizer, or a profile without training_quality",
            )
        if given is None and student:
            raise DataError(
                "a trial of the given student needs a trained teacher that reads its tokens",
                remedy="give --teacher too, or a profile without training_quality",
            )
        seeds = [self.recipe.seed, *([self.recipe.seed + 2] if "multi_teacher" in variants else [])]
        return () if given else tuple(self._trained_teacher(seed).name for seed in seeds)

    def _trained_teacher(self, seed: int) -> Path:
        recipe = self.job.profile.seeded(seed).recipe
        return Teachers(None, recipe, self.job.device, self.splits, self.cache, self.tell).trained()

    def calibration(self) -> Sequence[dict[str, list[int]]]:
        """Encoded training utterances that quantisers may look at: never validation or evaluation ones."""
        texts = list(self.splits.train.texts[: self.recipe.calibration_examples])
        ids = self.tokenizer(texts, truncation=True, max_length=self.recipe.max_length)["input_ids"]
        return [dict(zip(INPUTS, (row, [1] * len(row), [0] * len(row)), strict=True)) for row in ids]

    def _exports_key(self) -> str:
        code = tree_digest((_HERE / "export").glob("*.py"), _HERE)
        return digest(
            [
                file_digest(self.student / "model.safetensors"),
                code,
                versions(_EXPORTERS),
                digest(list(self.calibration())),
            ]
        )

    def _artifact(self, key: str, name: str) -> Artifact:
        module, place = export.exporter(name), self.cache.folder("exports", key)
        made = {other: place / other for other in module.NEEDS} | {"torch_fp32": self.student}

        def make(out: Path) -> None:
            self.tell(Event(stage="export", detail=name))
            started = time.monotonic()
            module.export(made, out, self.calibration())
            if name in export.EXACT:
                self._prove(name, out / module.MODEL)
            facts = Artifact(
                format=name,
                model=module.MODEL,
                bytes=export.artifact_bytes(out, module.MODEL),
                sha256=tree_digest((path for path in out.rglob("*") if path.is_file()), out),
                seconds=time.monotonic() - started,
            )
            (out / "artifact.json").write_text(facts.model_dump_json(), encoding="utf-8")

        self.cache.keep(place / name, make)
        return parse_json(Artifact, (place / name / "artifact.json").read_bytes(), f"{name}/artifact.json")

    def _prove(self, name: str, model: Path) -> None:
        """A full-precision export answers as the checkpoint does.

        Raises:
            DataError: it does not.
        """
        config, threads = self.model.config, torch.get_num_threads()
        predict = runtime_of(name).load(model, device="cpu", threads=threads)
        reference = torch_eager.load(self.student / "model.safetensors", device="cpu", threads=threads)
        asked = list(parity.probes(config.vocab_size, config.max_position_embeddings))
        parity.check(name, predict, reference, asked)

    def _examples_key(self) -> str:
        code = tree_digest((_HERE / name for name in ("examples.py", "prepare.py")), _HERE)
        files = [file_digest(self.student / name) for name in ("model.safetensors", "tokenizer.json")]
        data = [split.sha256 for split in (self.splits.evaluation, self.splits.train, self.splits.validation)]
        return digest([code, files, data, list(self.job.profile.latency_lengths), self.recipe.max_length])

    def _make_examples(self, out: Path) -> None:
        """Encode, and ask the checkpoint itself for the reference's answers to every probe."""
        self.tell(Event(stage="encode the examples"))
        three = (self.splits.evaluation, self.splits.train, self.splits.validation)
        evaluation, train, validation = (encode(self.tokenizer, split, self.recipe.max_length) for split in three)
        (held, held_starts), (seen, seen_starts) = examples.flat(evaluation.ids), examples.flat(train.ids)
        watched, watched_starts = examples.flat(validation.ids)
        arrays = {
            "evaluation": held,
            "evaluation_starts": held_starts,
            "labels": evaluation.labels.numpy(),
            "train": seen,
            "train_starts": seen_starts,
            "train_labels": train.labels.numpy(),
            "validation": watched,
            "validation_starts": watched_starts,
            "validation_labels": validation.labels.numpy(),
            "texts": np.array(self.splits.evaluation.texts[: examples.OWN_LENGTHS], dtype=np.str_),
        }
        predict = torch_eager.load(self.student / "model.safetensors", device="cpu", threads=torch.get_num_threads())
        rows = np.split(held, held_starts[1:])
        arrays["checkpoint"] = examples.predict_all(predict, rows, _BATCH, len(self.splits.names))
        found = examples.Examples(**arrays, reference={})
        answers = {
            f"logits_{n}": np.vstack([predict(x) for x in found.probes(n)]) for n in self.job.profile.latency_lengths
        }
        examples.write(out, **arrays, **answers)

    def _response(self) -> ResponseIdentity | None:
        """The response workload's conversations; None where no cell needs them."""
        if all(cell.workload != "response" for cell in self.job.cells):
            return None
        source, shape = self.job.spec.answers, self.job.profile.response
        if shape.student.vocabulary != shape.teacher.vocabulary:
            raise UsageError(
                f"the profile {self.job.profile.name} gives the response student {shape.student.vocabulary} tokens and its "
                f"teacher {shape.teacher.vocabulary}",
                remedy="give both one vocabulary: they are compared token by token",
            )
        self.tell(Event(stage="cut the teacher's answers", detail=source))
        answered = conversations.load_answers(source)
        sha256 = conversations.answers_digest(answered)
        code = file_digest(_HERE / "conversations.py")
        sizes = [shape.batch, shape.length, shape.answer, shape.student.vocabulary]
        key = digest([code, sha256, sizes, versions(("tokenizers", "transformers"))])
        place = self.cache.folder("conversations", key)

        def make(out: Path) -> None:
            tokenizer = conversations.train_tokenizer(answered, shape.student.vocabulary)
            conversations.write(out, tokenizer, conversations.cut(tokenizer, answered, shape))

        self.cache.keep(place, make)
        found = ResponseIdentity(
            source=source if source == conversations.EMBEDDED else Path(source).name,
            examples=len(answered),
            sha256=sha256,
            tokenizer_sha256=file_digest(place / "tokenizer.json"),
            conversations=key,
        )
        return language_student.made(self.job, found, answered, self.cache, self.tell)

    def _teacher_identity(self) -> ModelIdentity:
        given = self.job.spec.teacher
        names = self.splits.names
        model = load_model(given, names, "distilbert") if given else build_teacher(self.recipe, names)
        check_vocabulary(model, self.tokenizer)
        return ModelIdentity(
            origin="given" if given else "configuration",
            parameters=_parameters(model),
            config_sha256=_config_digest(model),
            weights_sha256=given_digest(given) if given else None,
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


def _config_digest(model: PreTrainedModel) -> str:
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    for volatile in ("_name_or_path", "transformers_version", "architectures"):
        config.pop(volatile, None)
    return digest(config)


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main(arguments: Sequence[str]) -> int:
    """Read the job file named first, write `prepared.json` into its `out` folder; a refusal goes to standard error."""
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
