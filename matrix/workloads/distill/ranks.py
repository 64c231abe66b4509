"""A stack of two processes on one machine: this one, which is measured, is rank 0; rank 1 is a child that does as it is told.

Rank 0 fetches each batch and deals its halves, so that both see the batches of every other stack in the same order, and
nobody else reads the data. With halves of one size the mean of the ranks' gradients is the gradient of the whole batch.
A step is over when both have done it. Peak memory, phases and time are those of rank 0.

Refuses a batch that has no halves, and a GPU without a second one. The child dies with this process, never outlives `close`,
and whatever ends it is raised here. Nothing listens beyond the loopback: the ranks meet in a file.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import pickle
import socket
import sys
import tempfile
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from matrix.errors import HostError, UsageError
from matrix.workloads.distill import Batch, Gradients, Run, Work
from matrix.workloads.distill.peer import DONE, PATIENCE_S, Peer

RANKS: Final = 2
_START_S: Final = 180  # a new interpreter imports torch and transformers, on a cold disk
_INTERFACE: Final = "GLOO_SOCKET_IFNAME"


class Half(ABC):
    """One process's part of a stack: the same code in both, made of equal work. Each method is collective: both call it."""

    optimizer: torch.optim.Optimizer

    def __init__(self, work: Work) -> None:
        self.work = work

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss on this rank's half of a batch, with a gradient."""

    @abstractmethod
    def step(self, batch: Batch) -> None:
        """One optimizer step, this rank seeing its half of a batch."""

    @abstractmethod
    def gradients(self, batch: Batch) -> Gradients:
        """Loss and whole gradient of the whole batch, of which this rank sees its half."""


Act = Callable[[Any], Any]
"""What both ranks do: a function of a `Half`, which pickle can name."""


def over_ranks(loss: torch.Tensor) -> torch.Tensor:
    """The mean of the ranks' losses, without gradient."""
    whole = loss.detach().clone()
    dist.all_reduce(whole)
    return whole / RANKS


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of `model` whose parameters have shapes and no values."""
    blank = {id(one): torch.nn.Parameter(one.detach().to("meta"), one.requires_grad) for one in model.parameters()}
    return copy.deepcopy(model, blank)


def filled(model: PreTrainedModel, values: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """A copy of the `bare` model with these parameters, by name."""
    whole = copy.deepcopy(model)
    whole.load_state_dict(values, strict=False, assign=True)
    return whole


def _send(model: PreTrainedModel) -> None:
    """Rank 0's part of handing `model` over."""
    for one in model.parameters():
        dist.broadcast(one.detach(), src=0)


def _received(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """Rank 1's part: the `bare` model with rank 0's parameters."""
    values = {name: torch.empty_like(one, device=device) for name, one in model.named_parameters()}
    for value in values.values():
        dist.broadcast(value, src=0)
    return filled(model, values).to(device)


def _no_teacher() -> PreTrainedModel:
    raise UsageError("rank 1 has no second teacher", remedy="make it in rank 0's work")


class _Start(NamedTuple):
    """What rank 1 begins with: the work without weights and data, its stack's half, and where the ranks meet."""

    work: Work
    half: Callable[[Work], Half]
    place: str


@contextmanager
def _loopback() -> Iterator[None]:
    """Loopback for gloo while groups are made: without a network it finds no other address. The variable is put back."""
    before = os.environ.get(_INTERFACE)
    os.environ[_INTERFACE] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    try:
        yield
    finally:
        del os.environ[_INTERFACE]
        if before is not None:
            os.environ[_INTERFACE] = before


@contextmanager
def _joined(rank: int, work: Work, place: str) -> Iterator[None]:
    """This process in the group of both ranks: gloo on the CPU, NCCL on CUDA with a GPU for each."""
    gpu = torch.device("cuda", rank) if work.device == "cuda" else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    with _loopback():
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=dist.FileStore(place, RANKS),
            rank=rank,
            world_size=RANKS,
            timeout=timedelta(seconds=PATIENCE_S),
            device_id=gpu,
        )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _serve(line: Connection) -> None:
    """Be rank 1 until the line ends or says nothing."""
    start: _Start = pickle.loads(line.recv_bytes())  # noqa: S301 - from the process that started this one
    work = start.work
    torch.set_num_threads(work.threads)
    line.send_bytes(DONE)
    with _joined(1, work, start.place):
        teacher, student = (_received(model, work.device) for model in (work.teacher, work.student))
        torch.manual_seed(work.seed + 1)  # its dropout masks are its own
        half = start.half(dataclasses.replace(work, teacher=teacher, student=student))
        line.send_bytes(DONE)
        while request := line.recv_bytes():
            training, act = pickle.loads(request)  # noqa: S301 - likewise
            half.work.student.train(training)
            act(half)
            line.send_bytes(DONE)


def follow(descriptor: int) -> None:
    """The child's whole life, on the line that it was started with. What fails is told before it ends, at once."""
    line = Connection(descriptor)
    try:
        _serve(line)
    except EOFError:  # rank 0 is gone
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - told to rank 0, which raises it
        traceback.print_exc()
        with suppress(OSError):
            line.send_bytes(f"{type(error).__name__}: {error}".encode())
        sys.stderr.flush()
        os._exit(1)  # not through the group's end, which may wait for rank 0


def _check(work: Work) -> None:
    """Refuse what two processes cannot share.

    Raises:
        UsageError: a batch, or the last one of an epoch, has no two halves.
        HostError: there is no device for each rank.
    """
    last = 0 if work.loader.drop_last else len(work.loader.dataset) % work.batch
    for size, which in ((work.batch, "a batch"), (last, "the last batch of an epoch")):
        if size % RANKS:
            raise UsageError(
                f"{which} of {size} has no two equal halves for two processes",
                remedy="choose an even number of examples",
            )
    seen = {"cpu": RANKS, "cuda": torch.cuda.device_count()}.get(work.device, 1)
    if seen < RANKS:
        raise HostError(
            f"two processes need a {work.device} device each and see {seen}",
            remedy="run this stack on the CPU target, or where two GPUs are visible",
        )


def _on_device(name: str, batch: Batch, half: Half) -> Any:  # noqa: ANN401 - passes through the method's result
    """The method `name` of `half` on its part of a batch."""
    return getattr(half, name)({key: tensor.to(half.work.device) for key, tensor in batch.items()})


class Ranks(Run):
    """Rank 0 of two. `kind` makes a rank's half; it must be importable by its name."""

    def __init__(self, work: Work, kind: Callable[[Work], Half]) -> None:
        super().__init__(work)
        _check(work)
        share = max(1, work.threads // RANKS)
        with ExitStack() as begun:
            begun.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(share)
            place = str(Path(begun.enter_context(tempfile.TemporaryDirectory(prefix="matrix-ranks-"))) / "meeting")
            self.peer = Peer()
            begun.callback(self.peer.reap)
            self.peer.tell(_Start(_without_weights(work, share), kind, place))
            self.peer.heard(_START_S)
            begun.enter_context(_joined(0, work, place))
            begun.callback(self.peer.dismiss)
            for model in (work.teacher, work.student):
                _send(model)
            self.half = kind(work)
            self.peer.heard()
            self._end = begun.pop_all()
        self.optimizer = self.half.optimizer
        self._feed = itertools.chain.from_iterable(itertools.repeat(work.loader))

    def both(self, mine: Act, theirs: Act) -> Any:  # noqa: ANN401 - passes through rank 0's result
        """Have both ranks do their part at once; the result of rank 0's, when both are done.

        Raises:
            IncompleteError: rank 1 failed or ended; its error is told.
        """
        self.peer.tell((self.work.student.training, theirs))
        try:
            found = mine(self.half)
        except Exception:
            self.peer.blame()
            raise
        self.peer.heard()
        return found

    def _dealt(self, name: str, batch: Batch) -> Any:  # noqa: ANN401 - passes through rank 0's result
        """The method `name` of both halves, each on its half of `batch`."""
        size = len(batch["labels"])
        if size % RANKS:
            raise UsageError(f"a batch of {size} has no two equal halves", remedy="give an even number of examples")
        first = {key: tensor[: size // RANKS] for key, tensor in batch.items()}
        second = {key: tensor[size // RANKS :].cpu().clone() for key, tensor in batch.items()}
        return self.both(partial(_on_device, name, first), partial(_on_device, name, second))

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean over both ranks' halves, without gradient: a backward pass is both ranks' own (`gradients`)."""
        return torch.tensor(self.gradients(batch).loss)

    def step(self) -> None:
        """One step of both ranks, each on its half of the loader's next batch."""
        self._dealt("step", next(self._feed))

    def gradients(self, batch: Batch) -> Gradients:
        """Loss and gradient of the whole batch, as the ranks' collectives make them of its halves."""
        found: Gradients = self._dealt("gradients", batch)
        return found

    def close(self) -> None:
        """End rank 1 and the process group; give this process its threads back."""
        self._end.close()


def _without_weights(work: Work, threads: int) -> Work:
    """The work as rank 1 is told it: small, because weights are broadcast and batches dealt."""
    return dataclasses.replace(
        work,
        teacher=bare(work.teacher),
        student=bare(work.student),
        loader=DataLoader([]),
        another_teacher=_no_teacher,
        threads=threads,
    )
