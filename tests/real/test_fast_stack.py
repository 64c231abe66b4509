"""The fast path as a training stack, and its steps as CUDA graphs, whose bookkeeping needs no GPU to be tested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from matrix.workloads.distill import Work, fast, reference
from matrix.workloads.distill.buckets import Shape
from matrix.workloads.distill.graphs import Captured
from matrix.workloads.models import build_student, build_teacher
from tests.real.test_fast import NAMES, RECIPE, apart, flat

pytestmark = pytest.mark.frameworks


class Recorded:
    """A stand-in for `torch.cuda`'s graphs: what is captured does not run, and a replay runs it on its own inputs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capturing: Any = None
        stream = type("Stream", (), {"wait_stream": lambda *_: None})
        there = {"Stream": stream, "current_stream": stream, "graph_pool_handle": object, "stream": self._nowhere}
        for name, value in {**there, "CUDAGraph": self._graph, "graph": self._capture}.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def _graph(self) -> Any:  # noqa: ANN401 - stands for a graph
        graph = type("Graph", (), {})()
        graph.replay = lambda: graph.work()  # noqa: PLW0108 - it has no work yet
        return graph

    @contextmanager
    def _nowhere(self, _: object) -> Iterator[None]:
        yield

    @contextmanager
    def _capture(self, graph: Any, pool: object) -> Iterator[None]:  # noqa: ANN401 - stands for a graph
        assert pool is not None
        self.capturing = graph
        yield
        self.capturing = None


def test_a_shape_is_warmed_up_then_captured_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is computed once and on its own indices, though a graph reads but one buffer a shape."""
    recorder, seen = Recorded(monkeypatch), []

    def step(rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        def work() -> None:
            seen.append((rows.tolist(), shape.length))

        if recorder.capturing is None:
            work()
        else:
            recorder.capturing.work = work
        return torch.zeros(())

    run = Captured(step)
    told = [([row, row + 1], 5 + row % 2) for row in range(9)]
    for rows, length in told:
        run(torch.tensor(rows), Shape(2, length, masked=False))
    assert seen == told
    assert len(run._graphs) == 2


def work(length: int = 16) -> Work:
    """Tiny models, and padded examples that repeat."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for index in range(32):
        ids, mask = torch.randint(5, 500, (length,), generator=generator), torch.ones(length, dtype=torch.long)
        mask[length - index % 3 :] = 0
        rows.append({"input_ids": ids * mask, "attention_mask": mask, "labels": torch.tensor(index % 10)})
    return Work(
        teacher=build_teacher(RECIPE, NAMES).eval().requires_grad_(False),
        student=build_student(RECIPE, NAMES).train(),
        loader=DataLoader(rows, batch_size=4),  # type: ignore[arg-type]  # a list is a dataset
        batch=4,
        temperature=4.0,
        alpha=0.7,
        device="cpu",
        dtype="float32",
        another_teacher=lambda: build_teacher(RECIPE, NAMES),
    )


def test_as_a_stack_its_loss_and_gradients_are_the_definitions() -> None:
    """Before and after steps, on a batch of the loader and on one that it has never seen, without a teacher pass in a step."""
    made = work()
    run = fast.prepare(made)
    passes: list[int] = []
    made.teacher.register_forward_hook(lambda *_: passes.append(1))
    before = made.student.classifier.weight.detach().clone()
    for steps in (0, 20):
        for _ in range(steps):
            run.step()
        known = {name: tensor.clone() for name, tensor in next(iter(made.loader)).items()}
        new = {**known, "input_ids": known["input_ids"].flip(0).roll(1, 1) * known["attention_mask"]}
        for batch in (known, new):
            passes.clear()
            loss = run.loss(batch)
            assert len(passes) == int(batch is new and not steps)
            student = made.student.eval()
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            expected = reference.output_kd(
                student(**inputs).logits, made.teacher(**inputs).logits, batch["labels"], temperature=4.0, alpha=0.7
            )
            assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
            parameters = list(student.parameters())
            ours, theirs = (flat(list(torch.autograd.grad(one, parameters))) for one in (loss, expected))
            assert apart(ours, theirs.float()) < 1e-5
    assert not torch.equal(made.student.classifier.weight, before)
    run.close()
