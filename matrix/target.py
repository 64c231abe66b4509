"""A target: an image or none, a way to run it, and the machine that it must find.

Refuses a machine that differs: an H200 never lands in the A100's column.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from matrix.errors import UsageError
from matrix.strict import Strict, parse_toml

Kind = Literal["time", "throughput", "memory", "ratio", "static", "quality", "export_delta", "tensors", "trained"]
"""What sort of claim a number makes; trust has one rule a kind.

time, throughput, memory: absolute, of one device. ratio: to the reference variant, same host, paired launches.
static: a property of the artifact or of the arithmetic (bytes, FLOPs). quality: accuracy. export_delta: what an export, or
a scheme of quantisation, changed against its reference. tensors: a training step beside its fp64 reference. trained:
accuracy of a student that this device trained.
"""

Executor = Literal["native", "docker", "emulator"]
"""How a target's processes run: on this host, in containers, or on this host against containers that emulate a service."""


class Limits(Strict):
    """What a container of the target may use. `cores` is None for all of the engine's; memory has no swap beside it."""

    memory_mb: int = Field(gt=0)
    pids: int = Field(gt=0)
    cores: int | None = Field(default=None, gt=0)


class Expectation(Strict):
    """The machine that a target must find; `None` and empty mean 'any'."""

    system: str
    machine: str
    cpu_flags: tuple[str, ...] = ()
    gpu_name: str | None = None
    bare_metal: bool = False


class Target(Strict):
    """One row of the matrix; without an executor it is measured elsewhere, and its bundles come from there.

    `confirmed_by` names, for each kind of which this target is no authority, the groups that are; `prepared_by` the target
    whose environment trains and exports for this one. `memory_mb` are a function's sizes, `every_ms` the intervals of its
    calls (0: a closed loop); `evaluation_examples` is how many examples it is judged on where all would take hours.
    """

    title: str
    group: str
    image: str | None
    executors: tuple[Executor, ...]
    platform: str
    device: Literal["cpu", "cuda", "mps"]
    expect: Expectation
    authority: tuple[Kind, ...]
    emulates: tuple[Kind, ...] = ()
    confirmed_by: dict[Kind, tuple[str, ...]] = Field(default_factory=dict)
    serves_only: bool = False
    memory_mb: tuple[int, ...] = ()
    every_ms: tuple[int, ...] = ()
    evaluation_examples: int | None = None
    limits: Limits | None = None
    prepared_by: str | None = None

    @model_validator(mode="after")
    def _confined(self) -> Self:
        if "docker" in self.executors and self.limits is None:
            raise ValueError("a target that runs in containers needs limits")
        return self


class Targets(Strict):
    """Every target, by name, in the order of the report's rows."""

    target: dict[str, Target] = Field(min_length=1)

    def of(self, name: str) -> Target:
        """The target called `name`.

        Raises:
            UsageError: there is none.
        """
        try:
            return self.target[name]
        except KeyError:
            known = ", ".join(self.target)
            raise UsageError(f"no target is called {name!r}", remedy=f"name one of {known}") from None

    def named(self, name: str) -> tuple[str, ...]:
        """The targets that `name` may mean: itself, or every member of the group of that name.

        Raises:
            UsageError: neither a target nor a group is called so.
        """
        members = tuple(key for key, target in self.target.items() if target.group == name)
        if name in self.target or not members:
            self.of(name)
            return (name,)
        return members


def parse_targets(text: str, where: str = "targets.toml") -> Targets:
    """The targets that `text` (TOML) declares.

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Targets, text, where)
