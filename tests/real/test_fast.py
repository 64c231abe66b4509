"""The fast path is the reference's work to rounding, its batches hold every example once, and its switches are all that differs."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from matrix.errors import DataError
from matrix.profile import StudentShape
from matrix.workloads.distill import fast
from matrix.workloads.distill.buckets import Shape, draws, table
from matrix.workloads.distill.fast import Fast, Switches
from matrix.workloads.distill.fast_loop import Loop
from matrix.workloads.distill.fast_student import FastStudent
from matrix.workloads.distill.halves import LEAST
from matrix.workloads.models import build_student, build_teacher
from matrix.workloads.train import CLIP, Encoded, distillation_loss, dropout_off, logits_of, pad, rate
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
NAMES = tuple("abcdefghij")
RECIPE = PROFILE.recipe.model_copy(update={"student": StudentShape(layers=3, dim=52, heads=2, hidden=64)})
HOW = Fast(epochs=3, batch=8, lr=2e-3, seed=4, temperature=4.0, alpha=0.7)


class Lesson(NamedTuple):
    """A student that nobody trained, and what it learns."""

    student: PreTrainedModel
    data: Encoded
    soft: torch.Tensor


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """Whatever a test before left."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lesson() -> Lesson:
    """100 examples of 3 to 14 tokens of a vocabulary with gaps; logits as a teacher might give them."""
    generator = np.random.default_rng(3)
    ids = [generator.integers(1, 700, generator.integers(3, 15)).tolist() for _ in range(100)]
    labels = torch.from_numpy(generator.integers(0, 10, 100))
    soft = torch.from_numpy(generator.normal(0, 3, (100, 10))).float()
    return Lesson(build_student(RECIPE, NAMES), Encoded(ids, labels), soft)


def nothing(*_: object) -> None:
    """Report to nobody."""


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative distance."""
    return float(((ours - theirs).norm() / theirs.norm()).detach())


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """One vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("multiple", [1, 32], ids=["heads of 26", "padded to 32"])
@pytest.mark.parametrize("masked", [False, True], ids=["equal lengths", "padding"])
def test_logits_and_gradients_are_transformers(lesson: Lesson, multiple: int, *, masked: bool) -> None:
    """To 1e-5: through the student's parameters, and through the leaves that a step trains."""
    lengths = [len(row) for row in lesson.data.ids]
    rows = np.arange(12) if masked else np.flatnonzero(np.array(lengths) == lengths[0])
    whole, student = table(lesson.data, lesson.soft, "cpu"), lesson.student.eval()
    fed = pad(lesson.data.ids, rows)
    theirs = student(**fed).logits
    parameters = list(student.parameters())
    gradient = flat(list(torch.autograd.grad(theirs.square().sum(), parameters)))
    fast_student = FastStudent(student, whole.vocabulary, whole.ids.shape[1], multiple=multiple)
    drawn = whole.batch(torch.from_numpy(rows), Shape(len(rows), fed["input_ids"].shape[1], masked))
    ours = fast_student.logits(fast_student.weights(), *drawn)
    assert apart(ours, theirs) < 1e-5
    assert apart(flat(list(torch.autograd.grad(ours.square().sum(), parameters))), gradient) < 1e-5
    leaves = fast_student.leaves()
    again = fast_student.logits(leaves, *drawn)
    found = torch.autograd.grad(again.square().sum(), list(leaves.values()))
    assert apart(flat(fast_student.transposed(dict(zip(leaves, found, strict=True)))), gradient) < 1e-5


def test_dropout_drops_the_configured_shares(lesson: Lesson) -> None:
    """Its mean over many draws comes to the answer without; a single one does not; at the end of it all it is switched off."""
    student = lesson.student
    whole = table(lesson.data, lesson.soft, "cpu")
    fast_student = FastStudent(student, whole.vocabulary, whole.ids.shape[1])
    assert fast_student.dropout == (0.1, 0.1, 0.1)
    torch.manual_seed(1)
    drawn = whole.batch(torch.arange(100), Shape(100, whole.ids.shape[1], masked=True))
    with torch.no_grad():
        plain = fast_student.logits(fast_student.weights(), *drawn)
        ours = torch.stack([fast_student.logits(fast_student.weights(), *drawn, dropout=True) for _ in range(50)])
        fed = pad(lesson.data.ids, np.arange(100))
        theirs = torch.stack([student.train()(**fed).logits for _ in range(50)])
    assert apart(ours[0], plain) > 0.05
    assert float(ours.std(0).mean() / theirs.std(0).mean()) == pytest.approx(1, abs=0.05)
    halves = (ours[:25].mean(0), ours[25:].mean(0))  # as far apart as 50 draws let two means of one distribution be
    assert apart(ours.mean(0), theirs.mean(0)) < apart(*halves)


def reference(lesson: Lesson, how: Fast) -> PreTrainedModel:
    """The same batches through transformers' own forward, `clip_grad_norm_` and AdamW over all; some steps are clipped."""
    student = copy.deepcopy(lesson.student).train()
    dropout_off(student)
    optimizer = torch.optim.AdamW(student.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    with closing(Loop(copy.deepcopy(student), lesson.data, lesson.soft, how)) as loop:
        drawn = [loop.epoch(epoch) for epoch in range(how.epochs)]
    norms: list[float] = []
    for epoch in drawn:
        for draw in epoch:
            step = len(norms)
            optimizer.param_groups[0]["lr"] = how.lr * rate(step, loop.steps)
            logits = student(**pad(lesson.data.ids, draw.rows)).logits
            loss = distillation_loss(
                logits.float(),
                lesson.soft[draw.rows],
                lesson.data.labels[draw.rows],
                temperature=how.temperature,
                alpha=how.alpha,
            )
            optimizer.zero_grad()
            loss.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)))
            optimizer.step()
    assert len(norms) == loop.steps
    assert min(norms) < CLIP < max(norms)
    return student


@pytest.mark.parametrize(("buckets", "batch"), [(True, 8), (False, 8), (True, LEAST)], ids=["", "random", "halves"])
@pytest.mark.parametrize("decay", [0.0, 0.5], ids=["no decay", "a decay that is seen"])
@pytest.mark.usefixtures("_two_threads")
def test_training_is_the_references(lesson: Lesson, decay: float, batch: int, *, buckets: bool) -> None:
    """Each step in fp64 but for the loss and the clip's coefficient: every parameter, rows that never occur too, to 1e-7."""
    # the mean of more examples is shorter: without labels some steps are clipped all the same
    alpha = HOW.alpha if batch < LEAST else 1.0
    how = replace(HOW, batch=batch, alpha=alpha, weight_decay=decay, switches=Switches(buckets=buckets))
    exact = Lesson(lesson.student.double(), lesson.data, lesson.soft)
    before = copy.deepcopy(exact.student)
    theirs = reference(exact, how)
    fast.train(exact.student, exact.data, exact.soft, how, nothing)
    for (name, ours), other, old in zip(
        exact.student.named_parameters(), theirs.parameters(), before.parameters(), strict=True
    ):
        # a key's bias changes no softmax: its true gradient is zero, and Adam divides rounding by rounding
        if not name.endswith("key.bias"):
            assert torch.allclose(ours, other, rtol=1e-7, atol=1e-7), name
        # of the last layer it is exactly zero here, and zero it stays
        assert decay == 0 or not torch.equal(ours, old) or name.endswith("layer.2.attention.self.key.bias"), name


@pytest.mark.usefixtures("_two_threads")
def test_two_halves_come_to_the_same_bits_and_leave_no_thread(lesson: Lesson) -> None:
    """Trained twice: equal, though either half may end first; what dropout draws, one thread draws alone."""
    how, trained, others = replace(HOW, batch=LEAST), [], set(threading.enumerate())
    for _ in range(2):
        student = copy.deepcopy(lesson.student)
        fast.train(student, lesson.data, lesson.soft, how, nothing)
        trained.append(flat(list(student.parameters())))
        assert torch.get_num_threads() == 2
        assert set(threading.enumerate()) <= others
    assert torch.equal(*trained)
    for other in (replace(how, switches=Switches(dropout=True)), HOW):
        with closing(Loop(lesson.student, lesson.data, lesson.soft, other)):
            assert torch.get_num_threads() == 2
            assert set(threading.enumerate()) <= others


def test_rows_that_never_occur_only_decay(lesson: Lesson) -> None:
    """Word 900, position 100 and the second token type: `prod(1 - lr_t * decay)` of what they were, and nothing else."""
    tables = lesson.student.bert.embeddings
    before = [tables.word_embeddings.weight[900].clone(), tables.position_embeddings.weight[100].clone()]
    before.append(tables.token_type_embeddings.weight[1].clone())
    how = replace(HOW, weight_decay=0.5)
    fast.train(lesson.student, lesson.data, lesson.soft, how, nothing)
    steps = how.steps(100)
    kept = float(np.prod([1 - how.lr * rate(step, steps) * 0.5 for step in range(steps)]))
    after = [tables.word_embeddings.weight[900], tables.position_embeddings.weight[100]]
    after.append(tables.token_type_embeddings.weight[1])
    assert kept < 0.99
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new, old * kept)


def test_padded_heads_train_to_the_same_student(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA pads: the zero rows are zeros after 39 steps of AdamW, and the student is the same."""
    students = [copy.deepcopy(lesson.student).double() for _ in range(2)]
    for multiple, student in zip((1, 32), students, strict=True):
        monkeypatch.setattr("matrix.workloads.distill.fast_loop.head_multiple", lambda _, m=multiple: m)
        loop = Loop(student, lesson.data, lesson.soft, HOW)
        for step, rows, shape in loop.feed(0):
            loop.step(step, rows, shape)
            if step + 1 == loop.steps:
                break
        padded = loop.leaves["0.qkv.weight"].view(3, 2, -1, 52)
        assert padded.shape[2] == loop.fast.width == max(26, multiple)
        assert not padded[:, :, 26:].any()
        loop.write_back(loop.steps)
    for (name, ours), other in zip(students[1].named_parameters(), students[0].parameters(), strict=True):
        assert name.endswith("key.bias") or torch.allclose(ours, other, rtol=1e-7, atol=1e-7), name


@pytest.mark.parametrize("buckets", [True, False])
def test_an_epoch_draws_every_example_once(*, buckets: bool) -> None:
    """In the reference's number of batches; with buckets nearly nothing is padded, and the batches are in no order."""
    lengths = np.random.default_rng(1).integers(4, 30, 1000)
    found = draws(lengths, 16, np.random.default_rng(2), buckets=buckets)
    assert sorted(np.concatenate([draw.rows for draw in found])) == list(range(1000))
    assert len(found) == 63
    assert all(draw.shape == (len(draw.rows), lengths[draw.rows].max(), draw.shape.masked) for draw in found)
    assert all(draw.shape.masked == (len(set(lengths[draw.rows])) > 1) for draw in found)
    padded = sum(draw.shape.batch * draw.shape.length for draw in found) / lengths.sum()
    assert padded < 1.03 if buckets else padded > 1.3
    order = [draw.shape.length for draw in found]
    assert order != sorted(order)
    again, other = (draws(lengths, 16, np.random.default_rng(seed), buckets=buckets) for seed in (2, 3))
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(found, again, strict=True))
    assert not all(np.array_equal(a.rows, b.rows) for a, b in zip(found, other, strict=True))


def test_a_feed_that_goes_on_gives_what_an_uninterrupted_one_gives(lesson: Lesson) -> None:
    """From the middle of an epoch, and from its end."""
    loop = Loop(lesson.student, lesson.data, lesson.soft, HOW)
    whole = [(step, rows.tolist(), shape) for (step, rows, shape), _ in zip(loop.feed(0), range(39), strict=False)]
    for start in (0, 1, 12, 13, 14, 26, 38):
        step, rows, shape = next(loop.feed(start))
        assert (step, rows.tolist(), shape) == whole[start]


def test_a_step_waits_for_nothing(lesson: Lesson, monkeypatch: pytest.MonkeyPatch) -> None:
    """No number leaves the device between two steps: `item`, `tolist`, `cpu`, `float()` and `bool()` of a tensor."""
    loop = Loop(lesson.student, lesson.data, lesson.soft, HOW)
    feed = loop.feed(0)
    batches = [next(feed) for _ in range(5)]
    loop.step(*batches[0])  # the optimizer makes its state

    def waits(*_: object, **__: object) -> None:
        pytest.fail("a step waits for the device")

    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, waits)
    for one in batches[1:]:
        loop.step(*one)
    monkeypatch.undo()
    assert float(loop.losses) > 0


def test_a_training_that_diverges_is_no_student(lesson: Lesson) -> None:
    """Logits of a broken teacher: nothing is given to the student."""
    broken = lesson.soft.clone()
    broken[7, 3] = float("nan")
    with pytest.raises(DataError, match="the training diverged: its loss is not finite; lower the learning rate"):
        fast.train(lesson.student, lesson.data, broken, HOW, nothing)


def test_what_the_fast_path_cannot_compute_is_refused(lesson: Lesson) -> None:
    """Another family, relative positions, and more tokens than positions."""
    with pytest.raises(DataError, match="the fast path does not compute this student"):
        fast.train(build_teacher(RECIPE, NAMES), lesson.data, lesson.soft, HOW, nothing)
    lesson.student.config.position_embedding_type = "relative_key"
    with pytest.raises(DataError, match="the fast path does not compute this student"):
        fast.train(lesson.student, lesson.data, lesson.soft, HOW, nothing)
    lesson.student.config.position_embedding_type = "absolute"
    long = Encoded([[5] * 513], torch.tensor([0]))
    with pytest.raises(DataError, match="an example has 513 tokens and the student 512 positions"):
        fast.train(lesson.student, long, lesson.soft[:1], HOW, nothing)


def test_cached_logits_are_the_online_ones() -> None:
    """A frozen teacher on fixed inputs: bit-equal in a batch of the same shape, to rounding in another."""
    teacher = build_teacher(RECIPE, NAMES).eval()
    data = Encoded([[5 + i, 6, 7 + i] for i in range(20)], torch.zeros(20, dtype=torch.long))
    cached = logits_of(teacher, data, nothing, "")
    with torch.no_grad():
        same, padded = (
            teacher(**pad(data.ids, np.arange(20))).logits,
            teacher(**pad([*data.ids, [9] * 9], np.arange(21))),
        )
    assert torch.equal(cached, same)
    assert apart(padded.logits[:20], cached) < 1e-5
