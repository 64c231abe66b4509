"""Trials: every stack learns from the same weights and examples, judging leaves no trace, and what is learnt is real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from matrix import definitions, processes
from matrix.cell import Cell
from matrix.errors import DataError
from matrix.job import BENCHMARK, Folders, Job, WorkloadSpec
from matrix.profile import Trial as Spec
from matrix.sample import EXTRA, OUTCOMES
from matrix.workloads import trial, works
from matrix.workloads.distill.raw_torch import RawTorch
from matrix.workloads.launch import Launch
from matrix.workloads.models import load_model
from matrix.workloads.prepare import Preparation
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
SPEC = Spec(examples=1_600, epochs=3, batch=8, length=16, lr=2e-3, goal=0.25)
PROFILED = PROFILE.model_copy(update={"trial": SPEC, "suites": ("training_quality",)})
CELLS = {
    name: Cell(suite="training_quality", workload="intent", variant=name, batch=8, length=16, examples=4_800)
    for name in ("raw_torch", "hf_trainer", "multi_teacher")
}


def job(root: Path, **changes: object) -> Job:
    """A job of every cell, at the tiny profile, on this machine."""
    (root / "out").mkdir(exist_ok=True)
    made = Job(
        target="cpu-openvino",
        device="cpu",
        profile=PROFILED,
        spec=WorkloadSpec(),
        suite_sha256=definitions.suite_digest(),
        cells=tuple(CELLS.values()),
        folders=Folders(cache=str(root / "cache"), out=str(root / "out")),
        threads=1,
    )
    return made.model_copy(update=changes)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A prepared first launch."""
    made = job(tmp_path_factory.mktemp("trial"))
    return made.model_copy(update={"prepared": Preparation(made, lambda _: None).run(), "launch": 1})


def launch(prepared: Job, index: int = 1, **trial_changes: object) -> Launch:
    """One launch, with other settings of its trial."""
    spec = SPEC.model_copy(update=trial_changes)
    profile = prepared.profile.model_copy(update={"trial": spec})
    return Launch(prepared.model_copy(update={"launch": index, "profile": profile}))


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All of a model's parameters as one vector."""
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def train(found: trial.Trial) -> None:
    """The whole trial, without a clock."""
    for (part,), _ in found.parts():
        found.advance(part)
    found.rest()


@pytest.fixture
def untimed() -> Iterator[None]:
    """One thread, as every test: a trial sets its own number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_stacks_of_a_launch_begin_alike(prepared: Job) -> None:
    """The same student, teacher and examples in the same order; another launch has other weights and another order."""
    first, same, other = (works.trial(launch(prepared, index)) for index in (1, 1, 2))
    assert torch.equal(weights(first.student), weights(same.student))
    assert not torch.equal(weights(first.student), weights(other.student))
    batches = [next(iter(one.loader)) for one in (first, same, other)]
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    assert not torch.equal(batches[0]["input_ids"], batches[2]["input_ids"])
    assert torch.equal(weights(first.teacher), weights(other.teacher))


def test_the_teacher_is_the_one_that_prepare_trained(prepared: Job) -> None:
    """It answers the validation split far above chance, and the second one, of another seed, does so otherwise."""
    held = launch(prepared)
    work = works.trial(held)
    right = []
    for teacher in (work.teacher, work.another_teacher()):
        logits = trial.logits_of(teacher, held.examples.validation_ids(), "cpu")
        right.append(float((logits.argmax(1) == held.examples.validation_labels).mean()))
    assert min(right) > 0.6
    assert not torch.equal(weights(work.teacher), weights(work.another_teacher()))


def test_examples_are_real_padded_and_cut(prepared: Job) -> None:
    """Each row is its utterance, masked to its length; a longer one keeps its [SEP]; labels are the data's."""
    held = launch(prepared)
    rows = list(works.trial(held).loader.dataset)  # type: ignore[call-overload]  # a list is a dataset
    ids, labels = held.examples.train_ids(), held.examples.train_labels
    assert len(rows) == SPEC.examples
    assert any(len(one) > SPEC.length for one in ids[: SPEC.examples])
    for row, own, label in zip(rows, ids, labels, strict=False):
        kept = list(own) if len(own) <= SPEC.length else [*own[: SPEC.length - 1], own[-1]]
        assert row["input_ids"].tolist() == kept + [0] * (SPEC.length - len(kept))
        assert row["attention_mask"].tolist() == [1] * len(kept) + [0] * (SPEC.length - len(kept))
        assert row["labels"] == label


@pytest.mark.usefixtures("untimed")
def test_judging_leaves_no_trace_in_the_training(prepared: Job) -> None:
    """With dropout: judged at all ten points (nobody reaches 99 %), the student ends bit-equal to one that never was."""
    held = launch(prepared, examples=160, epochs=1, goal=0.99)
    with trial.prepared(CELLS["raw_torch"], held) as judged:
        train(judged)
        student = judged.work.student
        assert judged.done == 20
        assert student.training
        assert all(one.grad is None for one in student.parameters())
    work = works.trial(held)
    torch.manual_seed(work.seed)
    plain = RawTorch(work)
    for _ in range(20):
        plain.step()
    assert torch.equal(weights(student), weights(work.student))
    assert any(module.p > 0 for module in student.modules() if isinstance(module, torch.nn.Dropout))


@pytest.mark.usefixtures("untimed")
def test_a_copy_answers_as_the_student_does(prepared: Job) -> None:
    """The judged logits are the student's own in evaluation mode, and the generator's state is as it was."""
    held = launch(prepared)
    student, ids = works.trial(held).student, held.examples.validation_ids()[:1]
    state = torch.get_rng_state()
    found = trial.logits_of(student, ids, "cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert student.training
    with torch.no_grad():
        own = student.eval()(input_ids=torch.from_numpy(ids[0])[None]).logits
    assert np.allclose(found, own.numpy(), atol=1e-6)


def test_a_training_is_cut_into_equal_parts() -> None:
    """Ten parts that differ by a step at most, and fewer where there are fewer steps."""
    assert trial.parts_of(25) == [2, 3, 2, 3, 2, 3, 2, 3, 2, 3]
    assert trial.parts_of(4) == [1, 1, 1, 1]


def test_too_few_examples_are_refused(prepared: Job) -> None:
    """The data has 3,000: a trial of more would show some twice as often as others."""
    with pytest.raises(DataError, match="takes 3200 training examples and the data has 3000"):
        works.trial(launch(prepared, examples=3_200))


def test_a_given_student_needs_a_teacher_of_its_tokens(prepared: Job, tmp_path: Path) -> None:
    """Without one none knows its tokens; one that reads others is no better; with the teacher of its tokens there is a trial."""
    cache = Path(prepared.folders.cache)
    assert prepared.prepared
    student = str(cache / "students" / prepared.prepared.student)
    teacher = cache / "teachers" / prepared.prepared.teachers[0]
    alone = job(tmp_path, spec=WorkloadSpec(student=student))
    with pytest.raises(DataError, match="needs a trained teacher that reads its tokens"):
        Preparation(alone, lambda _: None).run()
    both = job(tmp_path, spec=WorkloadSpec(student=student, teacher=str(teacher)))
    made = both.model_copy(update={"prepared": Preparation(both, lambda _: None).run(), "launch": 1})
    work = works.trial(launch(made))
    loaded = load_model(str(teacher), made.prepared.data.classes, "distilbert")
    assert torch.equal(weights(work.teacher), weights(loaded))
    with pytest.raises(DataError, match="learns from 2 trained teachers and has 1"):
        work.another_teacher()


def test_a_launch_leaves_what_a_trial_needs(prepared: Job, tmp_path: Path) -> None:
    """The suite itself in a process of its own: two stacks learn, each part is a sample, and its facts are the machine's."""
    cells = (CELLS["raw_torch"], CELLS["hf_trainer"])
    folders = prepared.folders.model_copy(update={"out": str(tmp_path)})
    file = tmp_path / "job.json"
    made = prepared.model_copy(update={"cells": cells, "folders": folders})
    file.write_text(made.model_dump_json(), encoding="utf-8")
    variables = {**processes.inherited(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *made.command(str(definitions.suites()), str(file))]
    ended = subprocess.run(command, check=False, env=variables)
    assert ended.returncode == 0, (tmp_path / OUTCOMES).read_text()
    told = json.loads((tmp_path / BENCHMARK).read_text())["benchmarks"]
    assert len(told) == len(cells)
    for one in told:
        samples, found = one["stats"]["data"], one["extra_info"][EXTRA]
        assert len(samples) == 1 + trial.POINTS
        logits, labels = (np.load(tmp_path / "outputs" / f"{found[name]}.npy") for name in ("outputs", "labels"))
        assert logits.shape == (PROFILE.recipe.validation_examples, 10)
        assert (logits.argmax(1) == labels).mean() > 0.25, found["cell"]["variant"]
        assert samples[0] + samples[1] <= found["facts"]["time_to_accuracy_s"] <= sum(samples) + 1e-9
        assert found["facts"]["peak_bytes"] > 1e8
