"""A target: an image or none, a way to run it, and the machine that it must find.

Refuses a machine that differs: an H200 never lands in the A100's column.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matrix.errors import UsageError
from matrix.strict import Strict, parse_toml

Kind = Literal["time", "throughput", "memory", "ratio", "static", "quality", "export_delta"]
"""What sort of claim a number makes; trust has one rule a kind.

time, throughput, memory: absolute, of one device. ratio: to the reference variant, same host, paired launches.
static: a property of the artifact or of the arithmetic (bytes, FLOPs). quality: accuracy. export_delta: what an export
changed against its reference.
"""

Executor = Literal["native", "docker"]


class Expectation(Strict):
    """The machine that a target must find; `None` and empty mean 'any'."""

    system: str
    machine: str
    cpu_flags: tuple[str, ...] = ()
    gpu_name: str | None = None
    bare_metal: bool = False


class Target(Strict):
    """One row of the matrix."""

    title: str
    group: str
    image: str | None
    executors: tuple[Executor, ...] = Field(min_length=1)
    platform: str
    device: Literal["cpu", "cuda", "mps"]
    expect: Expectation
    authority: tuple[Kind, ...]
    emulates: tuple[Kind, ...] = ()
    serves_only: bool = False
    memory_mb: tuple[int, ...] = ()


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
