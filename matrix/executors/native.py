"""Runs a target's processes on this host, with this interpreter and no image: isolation is a fresh process and its threads.

What it cannot promise (limits, a locked image) the bundle says: its executor is `native`.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from typing import Final

from matrix import host, processes
from matrix.job import End, Order, Watch
from matrix.sample import Confinement
from matrix.target import Target

_STACKS: Final = ("torch", "transformers", "accelerate", "greenlet", "lightning", "peft", "textbrewer", "trl")
_NEEDED: Final = {
    "cpu": (*_STACKS, "onnxruntime", "optimum", "openvino", "nncf"),
    "cuda": _STACKS,
    "mps": _STACKS,
}


def missing(target: Target) -> str | None:  # noqa: ARG001 - this way asks nothing of a host but what the target expects
    """A host that the target expects can always start a process."""
    return None


def unready(target: Target) -> str | None:
    """What this environment lacks: packages, or a torch that can use the target's device."""
    return _lacking(target.device)


def cores(target: Target) -> int:  # noqa: ARG001 - a process takes all that this one may
    """Cores that this process may use."""
    return host.usable_cores()


def asked(target: Target) -> Confinement | None:  # noqa: ARG001 - no limit is asked for
    """Nothing confines a process of this host."""
    return None


@cache
def _lacking(device: str) -> str | None:
    absent = [name for name in _NEEDED[device] if find_spec(name) is None]
    if absent:
        return f"needs {', '.join(absent)} in this Python (install the target's extra, or use its tox environment)"
    if device == "cpu":
        return None
    asks = f"import sys, torch; sys.exit(not torch.{'cuda' if device == 'cuda' else 'backends.mps'}.is_available())"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, check=False)  # noqa: S603 - our own line
    return (
        f"needs a torch that can use {device} (this one cannot: its build or the driver)" if done.returncode else None
    )


def execute(order: Order, watch: Watch) -> End:
    """Run the process to its end or its time limit, passing its events on as they come."""
    return processes.run(order, watch)
