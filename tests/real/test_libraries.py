"""The libraries' own loops: each one's traps, and that none leaves a trace for the next stack of the same process."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from matrix.workloads import distill
from matrix.workloads.distill import CLIP, Run, Work, inputs_of
from matrix.workloads.distill.lightning import Distillation
from matrix.workloads.phases import Phases
from matrix.workloads.train import dropout_off
from tests.real.test_stacks import rows, work

pytestmark = pytest.mark.frameworks
ROOT = Path(__file__).parents[2]

OUTPUT = ("accelerate", "lightning", "textbrewer")
MINE = (*OUTPUT, "textbrewer_features", "multi_teacher")

ALONE = (
    ("hf_trainer", "float32"),
    ("accelerate", "bfloat16"),
    ("lightning", "float32"),
    ("textbrewer", "float32"),
    ("accelerate", "float32"),
    ("textbrewer_features", "float32"),
    ("lightning", "bfloat16"),
    ("multi_teacher", "float32"),
)
"""Stacks and precisions, alternating: what one leaves behind would change the next."""


@contextmanager
def at_work(name: str, made: Work) -> Iterator[Run]:
    """The stack, closed afterwards."""
    run = distill.stack(name)(made)
    try:
        yield run
    finally:
        run.close()


def shuffled(*, dropout: bool = True, **changes: object) -> Work:
    """The tiny work, its loader shuffled by a seed, eight steps an epoch; models that have an opinion: random ones have none."""
    loader = DataLoader(rows(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3))  # type: ignore[arg-type, var-annotated]  # a list is a dataset
    made = dataclasses.replace(work(), loader=loader, **changes)  # type: ignore[arg-type]  # named by the tests
    if not dropout:
        dropout_off(made.student)
    with torch.no_grad():
        for model in (made.student, made.teacher):
            model.classifier.weight.mul_(50)
    return made


def weights(model: torch.nn.Module) -> torch.Tensor:
    """Every parameter, flat, copied."""
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def trained(name: str, dtype: str) -> list[float]:
    """What three steps with dropout make of the student, on one thread: each tensor's sum, in fp64."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # their number decides bits, and a test before may have left another
    try:
        torch.manual_seed(11)
        made = shuffled(dtype=dtype)
        with at_work(name, made) as run:
            for _ in range(3):
                run.step()
        return [float(one.detach().double().sum()) for one in made.student.parameters()]
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fresh() -> dict[tuple[str, str], list[float]]:
    """`trained` of each case in a process of its own, forked from one that has imported and run nothing else."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    with processes.Pool(1, maxtasksperchild=1) as pool:
        return dict(zip(ALONE, pool.starmap(trained, ALONE, chunksize=1), strict=True))


@pytest.mark.parametrize("order", [ALONE, ALONE[::-1]], ids=["forth", "back"])
def test_each_stack_leaves_the_next_one_alone(
    order: Sequence[tuple[str, str]], fresh: dict[tuple[str, str], list[float]]
) -> None:
    """One after the other in one process, in two orders, precisions alternating: bit for bit what a fresh process trains."""
    for case in order:
        assert trained(*case) == fresh[case], case


@pytest.mark.parametrize("name", MINE)
def test_a_closed_stack_leaves_the_process_as_it_was(name: str) -> None:
    """Signal handlers, torch's switches, the environment; the models' mode, device and own forward."""

    def state() -> tuple[object, ...]:
        handlers = {one: signal.getsignal(one) for one in signal.valid_signals()}
        switches = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(),
            torch.is_anomaly_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.benchmark,
            torch.get_num_threads(),
        )
        return handlers, switches, dict(os.environ)

    distill.stack(name)  # what an import alone does is the import cell's matter
    before, made = state(), shuffled(dtype="bfloat16")
    with at_work(name, made) as run:
        run.step()
    assert state() == before
    assert not made.teacher.training
    assert made.student.training
    for model in (made.teacher, made.student):
        assert model.forward.__func__ is type(model).forward
        assert "_original_forward" not in vars(model)


@pytest.mark.parametrize("name", OUTPUT)
def test_a_library_trains_what_the_plain_loop_trains(name: str) -> None:
    """An epoch without dropout: the same data in the same order, rate, decay, clipping, to rounding."""
    found = {}
    for each in ("raw_torch", name):
        made = shuffled(dropout=False, lr=1e-3)
        before = weights(made.student)
        with at_work(each, made) as run:
            for _ in range(8):
                run.step()
        found[each] = weights(made.student) - before
    assert float((found[name] - found["raw_torch"]).norm() / found["raw_torch"].norm()) < 1e-3


@pytest.mark.parametrize("name", MINE)
def test_an_epoch_holds_every_example_once(name: str) -> None:
    """The second too, in an order of its own: Lightning 2.6.6 draws another than a plain loop, from the same generator."""
    made, seen = shuffled(), list[tuple[int, ...]]()

    def look(_: object, __: object, inputs: dict[str, torch.Tensor]) -> None:
        seen.extend(tuple(row.tolist()) for row in inputs["input_ids"])

    made.student.register_forward_pre_hook(look, with_kwargs=True)
    with at_work(name, made) as run:
        for _ in range(16):
            run.step()
    once = sorted(tuple(row["input_ids"].tolist()) for row in rows())
    assert sorted(seen[:32]) == sorted(seen[32:]) == once
    assert seen[:32] != seen[32:]


def first_gradient(name: str, made: Work) -> tuple[torch.Tensor, ...]:
    """Each trained gradient as the optimizer finds it in the first step."""
    caught: list[tuple[torch.Tensor, ...]] = []
    with at_work(name, made) as run:

        def look(*_: object) -> None:
            caught.append(tuple(one.grad.clone() for one in run.trained if one.grad is not None))

        run.optimizer.register_step_pre_hook(look)
        run.step()
    return caught[-1]


def norm(gradients: Sequence[torch.Tensor]) -> float:
    """Of all of them together."""
    return float(torch.cat([one.flatten() for one in gradients]).norm())


@pytest.mark.parametrize("name", [*OUTPUT, "multi_teacher"])
def test_gradients_are_clipped_as_in_the_plain_loop(name: str) -> None:
    """The gradient of opinionated models is longer than 1; the optimizer finds it at length 1, in both precisions."""
    with at_work("raw_torch", shuffled(dropout=False)) as raw:
        assert float(raw.gradients(next(iter(raw.work.loader))).gradient.norm()) > 1.2 * CLIP
    for dtype in ("float32", "bfloat16"):
        assert norm(first_gradient(name, shuffled(dtype=dtype, dropout=False))) == pytest.approx(CLIP, rel=1e-3)


@pytest.mark.parametrize("name", MINE)
def test_phases_see_a_step_of_each_library(name: str) -> None:
    """Shares that sum to 1, none negative: the update begins after the backward pass, in Lightning's closure too."""
    made = shuffled()
    with at_work(name, made) as run:
        phases = Phases("cpu")
        phases.watch(run.teachers, made.student, run.optimizer)
        step = phases.wrap(run.step)
        for _ in range(2):
            step()
            spans = phases._spans
            phases.collect()
        shares = phases.shares(2)
        phases.close()
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    assert len(spans["teacher_forward"]) == run.teacher_passes
    assert len(spans["optimizer"]) == 1


def test_accelerate_computes_the_teacher_in_bf16_too() -> None:
    """Under mixed precision: a teacher that is not prepared, as in the seed, computes in fp32."""
    seen: list[torch.dtype] = []
    made = shuffled(dtype="bfloat16")
    made.teacher.classifier.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    batch = next(iter(made.loader))
    made.teacher(**inputs_of(batch))
    with at_work("accelerate", made) as run:
        run.loss(batch)
    made.teacher(**inputs_of(batch))
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


def test_accelerate_ignores_what_a_trainer_of_another_precision_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TrainingArguments with bf16 leave the precision in the environment and in a state that all Accelerators share."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert TrainingArguments(output_dir=str(tmp_path), bf16=True, use_cpu=True, report_to="none").device.type == "cpu"
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    with at_work("accelerate", shuffled()) as run:
        run.step()
        assert AcceleratorState().mixed_precision == "no"
        assert GradientState().in_dataloader
    for state in (AcceleratorState, PartialState, GradientState):
        assert not state._shared_state


def test_lightnings_teacher_is_neither_put_into_training_mode_nor_saved(tmp_path: Path) -> None:
    """A fit with validation, the module's own `train()`, and a checkpoint; as a submodule the teacher is in both (trap 10)."""

    class Seed(Distillation):
        """The teacher as the seed has it."""

        def __init__(self, made: Work) -> None:
            super().__init__(made, made.optimizer())
            self.teacher = made.teacher

    seen: list[bool] = []

    class Validated(Distillation):
        """With a validation step between epochs."""

        def validation_step(self, _: distill.Batch, __: int) -> None:
            """Whether the teacher is as it was."""
            seen.append(self.work.teacher.training)

        def on_train_batch_end(self, *_: object) -> None:
            """Likewise."""
            seen.append(self.work.teacher.training)

    made = shuffled()
    module = Validated(made, made.optimizer())
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=2,
        limit_val_batches=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, made.loader, DataLoader(rows(), batch_size=4))
    module.train()
    assert len(seen) >= 6
    assert not any(seen)
    assert not made.teacher.training
    trainer.save_checkpoint(tmp_path / "kd.ckpt")
    saved = torch.load(tmp_path / "kd.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == {f"student.{name}" for name in made.student.state_dict()}

    seeds = Seed(shuffled())
    assert any(name.startswith("teacher.") for name in seeds.state_dict())
    assert seeds.train().teacher.training
