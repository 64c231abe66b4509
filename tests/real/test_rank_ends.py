"""Nothing is left of two processes, however they end; and they need no network."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from matrix.errors import IncompleteError
from matrix.workloads.distill import ranks
from tests.real.test_ranks import STACKS, batch, begin, shuffled, work

pytestmark = pytest.mark.frameworks
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", STACKS)
def test_closing_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process, group, file or variable; the threads as before; and a student of plain tensors, which evaluates and trains."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made, environment, threads = shuffled(), dict(os.environ), torch.get_num_threads()
    kind = type(made.student)
    torch.set_num_threads(2)
    run = begin(name, made)
    assert torch.get_num_threads() == 1
    run.step()
    child = run.peer.process
    assert list(tmp_path.iterdir())
    run.close()
    run.close()
    assert (child.returncode, torch.get_num_threads(), dist.is_initialized()) == (0, 2, False)
    assert dict(os.environ) == environment
    assert not psutil.pid_exists(child.pid)
    assert not list(tmp_path.iterdir())
    torch.set_num_threads(threads)
    assert type(made.student) is kind
    assert {type(one) for one in made.student.parameters()} == {torch.nn.Parameter}
    copied = copy.deepcopy(made.student).eval()
    assert torch.isfinite(copied(input_ids=batch()["input_ids"]).logits).all()
    made.student(input_ids=batch()["input_ids"]).logits.sum().backward()
    assert all(one.grad is not None for one in made.student.parameters())


def hangs(half: ranks.Half) -> None:
    """Rank 0 in a collective, as in the middle of a step."""
    dist.all_reduce(torch.zeros(1))


def dies(half: ranks.Half) -> None:
    """Rank 1 in the middle of a step, killed as by the kernel."""
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def fails(half: ranks.Half) -> None:
    """An error in one rank alone."""
    raise FloatingPointError("the loss exploded")


@pytest.mark.parametrize(
    ("theirs", "told"),
    [(dies, "rank 1 ended (exit code -9)"), (fails, "rank 1 ended (FloatingPointError: the loss exploded)")],
)
@pytest.mark.parametrize("name", STACKS)
def test_the_end_of_rank_1_is_raised_within_seconds(name: str, theirs: Callable[[Any], None], told: str) -> None:
    """In the middle of a collective, and again for whoever goes on; closing ends well and leaves no process."""
    run = begin(name, work())
    started = time.monotonic()
    with pytest.raises(IncompleteError, match=f"^{re.escape(told)}"):
        run.both(hangs, theirs)
    with pytest.raises(IncompleteError, match="rank 1 ended"):
        run.step()
    run.close()
    assert time.monotonic() - started < 20
    assert not psutil.pid_exists(run.peer.process.pid)
    assert not dist.is_initialized()


def test_rank_1_killed_between_steps_is_raised() -> None:
    """The next step says so."""
    with closing(begin("ddp", work())) as run:
        run.step()
        run.peer.process.kill()
        run.peer.process.wait()
        with pytest.raises(IncompleteError, match=r"rank 1 ended \(exit code -9\)"):
            run.step()


def test_an_error_of_rank_0_is_its_own_and_closing_ends_the_other() -> None:
    """Rank 1 waits in a collective that never comes: it is killed."""
    run = begin("ddp", work())
    with pytest.raises(FloatingPointError, match="the loss exploded"):
        run.both(fails, hangs)
    started = time.monotonic()
    run.close()
    assert time.monotonic() - started < 10
    assert run.peer.process.returncode == -signal.SIGKILL
    assert not dist.is_initialized()


_STEPPING = """
from tests.real.test_ranks import begin, work
run = begin({name!r}, work())
print(run.peer.process.pid, flush=True)
while True:
    run.step()
"""


@pytest.fixture
def stepping(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that steps for ever, and its rank 1's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", _STEPPING.format(name=request.param)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("stepping", STACKS, indirect=True)
def test_rank_1_dies_with_its_parent(stepping: tuple[subprocess.Popen[bytes], int]) -> None:
    """`kill -9` of a process in the middle of its steps."""
    process, child = stepping
    found = psutil.Process(child)
    time.sleep(0.5)
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs([found], timeout=5)
    assert (len(gone), alive) == (1, [])


_ISOLATED = """
import fcntl, socket, struct
with socket.socket() as any_socket:  # containers without a network have the loopback up; a new namespace has it down
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
from tests.real.test_ranks import STACKS, begin, work
for name in STACKS:
    run = begin(name, work())
    run.step()
    run.close()
print([name for _, name in socket.if_nameindex()])
"""


@pytest.mark.skipif(
    sys.platform != "linux"
    or subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0,  # noqa: S607 - util-linux, wherever it is
    reason="this kernel gives a process no network of its own",
)
def test_two_processes_need_no_network() -> None:
    """In a network namespace with nothing but the loopback, as in a container of `network none`."""
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", _ISOLATED],  # noqa: S607 - likewise
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1:] == ["['lo']"], done.stderr
