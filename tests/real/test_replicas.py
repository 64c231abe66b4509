"""The workers of each real runtime: as many as its cell asks for, each of which answers as the checkpoint does, also at once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from threading import Thread
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch

from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.workloads import export, replicas
from matrix.workloads.concurrent import UnderLoad
from matrix.workloads.data import load_splits
from matrix.workloads.examples import inputs_of
from matrix.workloads.models import build_student, train_tokenizer
from matrix.workloads.serve import torch_eager
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
THREADS = 2
VARIANTS = ("torch_eager", "ort_fp32", "ort_int8", "openvino_fp32")


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A student of random weights, large enough that logits differ, its exports, and its own answers to 24 utterances."""
    root, recipe = tmp_path_factory.mktemp("replicas"), PROFILE.recipe
    splits = load_splits("embedded", recipe)
    tokenizer, student = train_tokenizer(splits.train.texts), build_student(recipe, splits.names)
    for weights in student.parameters():
        weights.data.mul_(5)
    student.save_pretrained(root / "torch_fp32")
    tokenizer.save_pretrained(root / "torch_fp32")
    folders = {"torch_fp32": root / "torch_fp32"}
    for name in ("onnx_fp32", "onnx_int8", "openvino_fp32"):
        folders[name] = root / name
        folders[name].mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what exporters say of each other's age is in a run's log
            export.exporter(name).export(folders, folders[name], [])
    models = {name: folder / export.exporter(name).MODEL for name, folder in folders.items()}
    probes = [inputs_of(np.array([ids])) for ids in tokenizer(list(splits.train.texts[:24]))["input_ids"]]
    answer = torch_eager.load(models["torch_fp32"], device="cpu", threads=1)
    reference = np.vstack([answer(probe) for probe in probes])
    examples = SimpleNamespace(probes=lambda length: probes, reference={"data": reference})  # noqa: ARG005 - of any length
    return SimpleNamespace(artifact=models.__getitem__, examples=examples)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """PyTorch's threads are the whole process's: the next test has those that it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def loaded(variant: str, mode: Literal["latency", "throughput"], **load: int) -> Cell:
    """A cell of this runtime and load."""
    return Cell(suite="concurrent_load", workload="intent", variant=variant, mode=mode, batch=1, length="data", **load)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_worker_answers_alike_alone_and_at_once(
    variant: str, mode: Literal["latency", "throughput"], launch: SimpleNamespace
) -> None:
    """One worker for latency, one a thread for throughput (OpenVINO chooses its streams); five clients get no wrong answer."""
    cell = loaded(variant, mode, clients=5)
    service = replicas.service(cell, launch, THREADS)
    if mode == "latency":
        assert len(service.workers) == 1
    elif not variant.startswith("openvino"):
        assert len(service.workers) == THREADS
    assert service.at_once == len(service.workers) >= 1
    alone = [worker(service.requests[0]) for worker in service.workers]
    assert all(service.alike(one, alone[0]) for one in alone)
    load = UnderLoad(service, cell, count=60, seed=1)
    answered = load.run()
    assert len(load.right(answered)) == len(answered) == 60


def test_arrivals_are_answered_by_every_worker_and_by_none_wrongly(launch: SimpleNamespace) -> None:
    """Half of its capacity: each request once, none before it is due."""
    cell = loaded("ort_fp32", "throughput", load=50)
    load = UnderLoad(replicas.service(cell, launch, THREADS), cell, count=60, seed=1)
    answered = load.run()
    assert len(load.right(answered)) == len(answered) == 60
    assert all(one.due <= one.begun <= one.ended for one in answered)


@pytest.mark.skipif((os.cpu_count() or 1) < THREADS, reason="one core: no worker could have two threads")
@pytest.mark.parametrize(("mode", "threads"), [("latency", THREADS), ("throughput", 1)])
def test_pytorchs_threads_are_those_of_the_cell_in_every_worker(
    mode: Literal["latency", "throughput"], threads: int, launch: SimpleNamespace
) -> None:
    """Workers run in threads of their own, to which `set_num_threads` of the loading one must reach."""
    service = replicas.service(loaded("torch_eager", mode, clients=1), launch, THREADS)
    seen = list[int]()

    def ask() -> None:
        service.workers[0](service.requests[0])
        seen.append(torch.get_num_threads())

    thread = Thread(target=ask)
    thread.start()
    thread.join()
    assert seen == [threads]


def test_a_runtime_that_answers_otherwise_is_not_put_under_load(launch: SimpleNamespace) -> None:
    """Before the first client: a load on a wrong model would measure nothing."""
    turned = SimpleNamespace(probes=launch.examples.probes, reference={"data": -launch.examples.reference["data"]})
    other = SimpleNamespace(artifact=launch.artifact, examples=turned)
    with pytest.raises(EvidenceError, match="fp32 logits differ"):
        replicas.service(loaded("ort_fp32", "latency", clients=1), other, THREADS)
