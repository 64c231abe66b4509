"""Training, of a student and of a teacher, and a teacher's pass over the data go on to the same bits after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from matrix.errors import DataError
from matrix.workloads.checkpoint import Checkpoints
from matrix.workloads.data import load_splits
from matrix.workloads.distill import fast
from matrix.workloads.distill.fast import Fast, Switches
from matrix.workloads.models import build_student, build_teacher, train_tokenizer
from matrix.workloads.train import Encoded, Fit, encode, fit, logits_of
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
RECIPE = PROFILE.recipe.model_copy(
    update={"train_examples": 400, "validation_examples": 40, "evaluation_examples": 100}
)


def done(path: Path) -> int:
    """Steps that a checkpoint holds."""
    return int(path.name[:12])


class Killed(Exception):  # noqa: N818 - what happened
    """Stands for a kill, inside a process."""


def killer(at: int, seen: list[int] | None = None) -> Callable[[str, int, int], None]:
    """A report that kills at a step, and remembers those that it saw."""

    def report(_stage: str, step: int, _total: int) -> None:
        if seen is not None:
            seen.append(step)
        if step == at:
            raise Killed

    return report


def kept_in(folder: Path, said: list[str] | None = None) -> Checkpoints:
    """Checkpoints of every step."""
    return Checkpoints(folder, "this work", 0.0, (said if said is not None else []).append)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("buckets", [False, True])
def test_training_goes_on_to_the_same_bits(tmp_path: Path, *, dropout: bool, buckets: bool) -> None:
    """Killed at the end of an epoch, in the middle of one, and after the last step; no step is done twice."""
    names = tuple("abcdefghij")
    data = Encoded([[5 + row, *[6] * (row % 4), 7] for row in range(20)], torch.arange(20) % 10)
    soft = torch.randn(20, 10, generator=torch.Generator().manual_seed(1))
    how = Fast(3, 4, 1e-3, seed=2, temperature=4.0, alpha=0.7, switches=Switches(dropout=dropout, buckets=buckets))
    expected = build_student(RECIPE, names)
    fast.train(expected, data, soft, how, killer(99))
    for at in (5, 7, 15):
        seen: list[int] = []
        with pytest.raises(Killed):
            fast.train(build_student(RECIPE, names), data, soft, how, killer(at, seen), kept_in(tmp_path))
        assert seen == list(range({5: 1, 7: 6, 15: 8}[at], at + 1))
    student = build_student(RECIPE, names)
    torch.manual_seed(99)
    fast.train(student, data, soft, how, killer(0), kept_in(tmp_path))
    pairs = zip(student.state_dict().values(), expected.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_teachers_training_and_its_answers_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """With dropout in training; answers of a pass that was killed are not asked twice."""
    names, splits = tuple("abcdefghij"), load_splits("embedded", RECIPE)
    data = encode(train_tokenizer(splits.train.texts), splits.train, 32)
    how = Fit("train", 1, 16, 1e-3, dropout=True)
    expected, killed, teacher = (build_teacher(RECIPE, names) for _ in range(3))
    fit(expected, data, how, RECIPE, killer(99))
    with pytest.raises(Killed):
        fit(killed, data, how, RECIPE, killer(11), kept_in(tmp_path / "fit"))
    fit(teacher, data, how, RECIPE, killer(11), kept_in(tmp_path / "fit"))
    pairs = zip(teacher.state_dict().values(), expected.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    with pytest.raises(Killed):
        logits_of(teacher, data, killer(4), "", kept_in(tmp_path / "logits"))
    passes: list[int] = []
    teacher.register_forward_hook(lambda *_: passes.append(1))
    found = logits_of(teacher, data, killer(99), "", kept_in(tmp_path / "logits"))
    assert len(passes) == 7 - 3
    assert torch.equal(found, logits_of(teacher, data, killer(99), ""))


def test_checkpoints_of_other_work_are_refused_and_two_are_kept(tmp_path: Path) -> None:
    """Two of five; the time spent adds up; torn and foreign files are no checkpoints."""
    said: list[str] = []
    mine = kept_in(tmp_path, said)
    assert mine.latest() is None
    for step in range(1, 6):
        mine.offer(step, lambda step=step: {"x": torch.full((3,), float(step))})  # type: ignore[misc]
    assert [done(path) for path in sorted(tmp_path.iterdir())] == [4, 5]
    (tmp_path / ".000000000009-torn").write_bytes(b"torn")
    again = kept_in(tmp_path, said)
    found = again.latest()
    assert found is not None
    assert (found.done, found.tensors["x"].tolist(), said) == (5, [5.0] * 3, [])
    assert again.spent_s >= 0
    for path in tmp_path.glob("0*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert kept_in(tmp_path, said).latest() is None
    assert (len(said), list(tmp_path.glob("0*"))) == (2, [])
    mine.keep(6, {"x": torch.zeros(1)})
    with pytest.raises(DataError, match="is a checkpoint of other work; remove its folder to start anew"):
        Checkpoints(tmp_path, "other work", 0.0, said.append).latest()
    slow = Checkpoints(tmp_path, "this work", 60.0, said.append)
    slow.offer(7, lambda: pytest.fail("the interval is not over"))
