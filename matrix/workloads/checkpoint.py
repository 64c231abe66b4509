"""What a killed training goes on from: tensors in files that appear whole, named by their own digest, the newest two kept.

A file that is not what its name says is told and passed over for the one before. Refuses a file of other work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from matrix import whole
from matrix.errors import DataError

Tensors = Mapping[str, torch.Tensor]

_KEPT: Final = 2
_DIGITS: Final = 16
"""Of the digest in a file's name: 64 bits find any accident."""
_DONE, _SPENT, _RANDOM, _ON_GPU = "done", "spent_s", "random", "random_on_gpu"


class Kept(NamedTuple):
    """How many steps were done, and what they had led to (on the CPU)."""

    done: int
    tensors: dict[str, torch.Tensor]


class Checkpoints:
    """The checkpoints of one piece of work, called `key`, in a folder of its own; at most one each `every_s` seconds."""

    def __init__(self, folder: Path, key: str, every_s: float, say: Callable[[str], None]) -> None:
        self.folder, self.key, self.every_s, self.say = folder, key, every_s, say
        self._before_s, self._began = 0.0, time.monotonic()
        self._saved = self._began

    @property
    def spent_s(self) -> float:
        """Seconds that the work took so far; those that a kill lost are not in it."""
        return self._before_s + time.monotonic() - self._began

    def latest(self) -> Kept | None:
        """The newest checkpoint that is whole; None where there is none. The clock goes on from there.

        Raises:
            DataError: it is of other work.
        """
        for path in reversed(self._files()):
            data = path.read_bytes()
            if not path.stem.endswith(_name(data)):
                self.say(f"{path} is corrupt: going on from the checkpoint before it")
                path.unlink()  # its number is the highest: it would outlive those that are kept from here on
                continue
            with safe_open(path, "pt") as opened:
                other = (opened.metadata() or {}).get("key") != self.key
            if other:
                raise DataError(f"{path} is a checkpoint of other work", remedy="remove its folder to start anew")
            found: dict[str, torch.Tensor] = load(data)
            self._before_s, self._began = float(found.pop(_SPENT)), time.monotonic()
            return Kept(int(found.pop(_DONE)), found)
        return None

    def offer(self, done: int, make: Callable[[], Tensors]) -> None:
        """Keep what `make` gives after `done` steps, if the interval is over."""
        if time.monotonic() - self._saved >= self.every_s:
            self.keep(done, make())

    def keep(self, done: int, state: Tensors) -> None:
        """Keep `state`, as it is after `done` steps."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        tensors |= {_DONE: torch.tensor(done), _SPENT: torch.tensor(self.spent_s, dtype=torch.float64)}
        data = save(tensors, {"key": self.key})
        whole.write(self.folder / f"{done:012d}-{_name(data)}.safetensors", data)
        for old in self._files()[:-_KEPT]:
            old.unlink()
        self._saved = time.monotonic()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.safetensors"))


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def packed(trained: Tensors, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Parameters, the optimizer's state and the random numbers' by names; `unpack` is the way back."""
    found: dict[str, torch.Tensor] = {_RANDOM: torch.get_rng_state()}
    if torch.cuda.is_available():
        found[_ON_GPU] = torch.cuda.get_rng_state()
    for name, parameter in trained.items():
        found[f"trained.{name}"] = parameter
        found |= {f"{kind}.{name}": value for kind, value in optimizer.state[parameter].items()}
    return found


def unpack(state: Tensors, trained: Tensors, optimizer: torch.optim.Optimizer) -> None:
    """Put `state` back where `packed` took it from.

    Raises:
        DataError: a tensor is missing or has another shape.
    """
    kept = optimizer.state_dict()
    for index, (name, parameter) in enumerate(trained.items()):
        here = state.get(f"trained.{name}")
        if here is None or here.shape != parameter.shape:
            raise DataError(f"the checkpoint has no {name} of this shape", remedy="remove its folder to start anew")
        with torch.no_grad():
            parameter.copy_(here)
        kinds = [kind for kind in ("step", "exp_avg", "exp_avg_sq") if f"{kind}.{name}" in state]
        kept["state"][index] = {kind: state[f"{kind}.{name}"] for kind in kinds}
    optimizer.load_state_dict(kept)
    torch.set_rng_state(state[_RANDOM])
    if _ON_GPU in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[_ON_GPU])
