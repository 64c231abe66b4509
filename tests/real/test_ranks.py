"""Two processes do the work of one: equal gradients and equal training."""

from __future__ import annotations

import dataclasses
import os
from contextlib import closing

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from matrix.errors import HostError, UsageError
from matrix.plan import make_plan
from matrix.workloads import distill, training
from matrix.workloads.distill import Work, ddp, ranks
from matrix.workloads.train import dropout_off
from tests.making import profiles, targets
from tests.real.test_stacks import rows, work

pytestmark = pytest.mark.frameworks
STACKS = ("ddp", "fsdp2")
STEPS = 8


def shuffled(threads: int = 2) -> Work:
    """Tiny models without dropout, and a loader whose order its generator draws, equal each time."""
    made = work()
    dropout_off(made.student)
    generator = torch.Generator().manual_seed(11)
    loader = DataLoader(rows(24), batch_size=4, shuffle=True, generator=generator)  # type: ignore[arg-type]  # a list is a dataset
    return dataclasses.replace(made, loader=loader, threads=threads)


def batch(size: int = 8) -> dict[str, torch.Tensor]:
    """A frozen batch."""
    found: dict[str, torch.Tensor] = next(iter(DataLoader(rows(), batch_size=size)))  # type: ignore[arg-type]  # likewise
    return found


def flat(model: torch.nn.Module) -> torch.Tensor:
    """Every parameter, in fp64."""
    return torch.cat([one.detach().flatten().double() for one in model.parameters()])


def begin(name: str, made: Work) -> ranks.Ranks:
    """A stack of two processes."""
    run = distill.stack(name)(made)
    assert isinstance(run, ranks.Ranks)
    return run


def any_rank(*, told: bool) -> bool:
    """Whether one rank or the other says so."""
    found = torch.tensor(float(told))
    dist.all_reduce(found)
    return bool(found)


@pytest.mark.parametrize("name", STACKS)
def test_gradients_are_those_of_one_process(name: str) -> None:
    """On a batch of eight, dropout off: the mean over two halves is raw PyTorch's gradient of the whole."""
    made = work()
    made.student.eval()
    single = distill.stack("raw_torch")(made).gradients(batch())
    with closing(begin(name, made)) as run:
        found = run.gradients(batch())
        assert run.loss(batch()).item() == pytest.approx(single.loss, rel=1e-6)
    assert found.loss == pytest.approx(single.loss, rel=1e-6)
    assert float((found.gradient - single.gradient).norm() / single.gradient.norm()) < 1e-6


def teacher_was_touched(half: ranks.Half) -> bool:
    """Whether either rank's teacher has a gradient, wants one, or trains."""
    teacher = half.work.teacher
    wants = any(one.grad is not None or one.requires_grad for one in teacher.parameters())
    return any_rank(told=wants or teacher.training)


def teachers_differ(half: ranks.Half) -> bool:
    """Whether the ranks' teachers have other weights."""
    mine = flat(half.work.teacher)
    first = mine.clone()
    dist.broadcast(first, src=0)
    return any_rank(told=not torch.equal(mine, first))


def masks_differ(half: ranks.Half) -> bool:
    """Whether the ranks draw other dropout masks."""
    drawn = torch.nn.functional.dropout(torch.ones(64))
    first = drawn.clone()
    dist.broadcast(first, src=0)
    return any_rank(told=not torch.equal(drawn, first))


@pytest.mark.parametrize("name", STACKS)
def test_the_frozen_teacher_receives_no_gradient_in_either_rank(name: str) -> None:
    """Two steps on; it is whole and equal in both, while dropout is each rank's own."""
    with closing(begin(name, work())) as run:
        run.step()
        run.step()
        assert not run.both(teacher_was_touched, teacher_was_touched)
        assert not run.both(teachers_differ, teachers_differ)
        assert run.both(masks_differ, masks_differ)


def test_stacks_of_one_process_train_alike_and_leave_each_other_alone() -> None:
    """Raw PyTorch, DDP, a Trainer, FSDP2 and DDP again in one process: where the order of the data is one, so is the student.

    Over the end of an epoch. AdamW moves a weight whose gradient is zero but for rounding (a key's bias) by a whole rate.
    """
    started, found = flat(shuffled().student), {}
    for turn, name in enumerate(("raw_torch", "ddp", "hf_trainer", "fsdp2", "ddp")):
        made, environment = shuffled(), dict(os.environ)
        with closing(distill.stack(name)(made)) as run:
            for _ in range(STEPS):
                run.step()
            between = flat(run.student())
        assert torch.equal(between, flat(made.student))
        assert not dist.is_initialized()
        if name == "hf_trainer":  # which sets ACCELERATE_MIXED_PRECISION (transformers 4.57) and leaves it
            assert run.trainer.args.world_size == 1
        else:
            assert dict(os.environ) == environment
        found[f"{turn} {name}"] = between - started
    raw = found.pop("0 raw_torch")
    del found["2 hf_trainer"]  # it draws its own order
    apart = {name: float((moved - raw).norm() / raw.norm()) for name, moved in found.items()}
    assert max(apart.values()) < 0.02, apart


def test_a_sharded_student_follows_the_mode_and_its_steps() -> None:
    """What FSDP2 gathers is in the student's mode, is gathered once, and anew after a step; `trained` are its parameters."""
    with closing(begin("fsdp2", shuffled())) as run:
        before = run.student()
        assert run.student() is before
        assert before.training
        assert [tuple(one.shape) for one in run.trained] == [tuple(one.shape) for one in work().student.parameters()]
        run.work.student.eval()
        assert not run.student().training
        run.work.student.train()
        assert training.apart(run, batch())["gradient"] < 1e-5
        run.step()
        assert not torch.equal(flat(before), flat(run.student()))


def test_a_frozen_teacher_in_ddp_raises() -> None:
    """Trap 2: it has no gradients to reduce, and stays a plain module."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match="doesn't have any parameter that requires a gradient"):
            DistributedDataParallel(work().teacher)
    finally:
        dist.destroy_process_group()


def _gradients_differ(half: ddp.Half, model: torch.nn.Module, given: dict[str, torch.Tensor]) -> bool:
    """Whether the ranks hold other gradients after a backward pass through `model`."""
    model(input_ids=given["input_ids"]).logits.square().sum().backward()
    mine = torch.cat([one.grad.flatten() for one in half.work.student.parameters() if one.grad is not None])
    half.optimizer.zero_grad()
    first = mine.clone()
    dist.broadcast(first, src=0)
    return any_rank(told=not torch.equal(mine, first))


class Through:
    """A forward pass through the wrapper, or around it, on this rank's rows."""

    def __init__(self, half: slice, *, around: bool) -> None:
        self.half, self.around = half, around

    def __call__(self, half: ddp.Half) -> bool:
        """Whether the ranks' gradients differ."""
        model = half.model.module if self.around else half.model
        return _gradients_differ(half, model, {key: tensor[self.half] for key, tensor in batch().items()})


def test_calling_the_wrapped_module_skips_the_reducer() -> None:
    """Trap 3: around the wrapper each rank keeps its own gradient, and says nothing; through it they are one."""
    with closing(begin("ddp", shuffled())) as run:
        mine, theirs = slice(0, 4), slice(4, 8)
        assert not run.both(Through(mine, around=False), Through(theirs, around=False))
        assert run.both(Through(mine, around=True), Through(theirs, around=True))


@pytest.mark.parametrize(
    ("count", "size", "told"),
    [(32, 1, "a batch of 1"), (32, 5, "a batch of 5"), (27, 4, "the last batch of an epoch of 3")],
)
def test_a_batch_without_halves_is_refused(count: int, size: int, told: str) -> None:
    """Before any process is started; the remedy is an even number."""
    loader = DataLoader(rows(count), batch_size=size)  # type: ignore[arg-type]  # a list is a dataset
    with pytest.raises(UsageError, match=f"^{told} has no two equal halves .*; choose an even number of examples$"):
        begin("ddp", dataclasses.replace(work(), loader=loader, batch=size))


def test_a_gpu_without_a_second_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA each rank needs its own, and a Mac has one; the plan says so before."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cuda", "mps"):
        with pytest.raises(
            HostError, match=f"two processes need a {device} device each and see 1; run this stack on the CPU"
        ):
            begin("fsdp2", dataclasses.replace(work(), device=device))
    for target in ("cuda-h200", "mps"):
        plan = make_plan(target, targets().of(target), profiles().of("quick"))
        reasons = {item.reason for item in plan.excluded if item.cell.variant in STACKS}
        assert reasons == {"each of its two processes needs a GPU of its own (NCCL), and a run has one"}
