"""Which target a name means on this host, how it would run there, and what is missing where it cannot."""

from __future__ import annotations

from matrix import host
from matrix.errors import HostError
from matrix.executors import EXECUTORS
from matrix.target import Target, Targets


def obstacles(target: Target, *, environment: bool = True) -> list[str]:
    """Why this host cannot run `target`, each a clause; empty when it can.

    Without `environment`, only the machine and the executors count: what a package manager can still install does not.
    """
    found = host.mismatches(target.expect)
    if found:
        return found
    lacks: list[str] = []
    for name in target.executors:
        module = EXECUTORS.get(name)
        lacking = (
            f"needs the {name} executor, which is not built yet"
            if module is None
            else module.missing(target.device)
            if environment
            else None
        )
        if lacking is None:
            return []
        lacks.append(lacking)
    return lacks


def choose(targets: Targets, name: str, *, environment: bool = True) -> tuple[str, Target]:
    """The target that `name` means on this host: itself, or the first of its group whose expectation the host meets.

    Raises:
        UsageError: nothing is called so.
        HostError: this host cannot run it.
    """
    refused = []
    for member in targets.named(name):
        target = targets.of(member)
        found = obstacles(target, environment=environment)
        if not found:
            return member, target
        refused.append(f"{member} {' and '.join(found)}")
    raise HostError(
        f"this host cannot run {name}: {', '.join(refused)}", remedy="`matrix doctor` shows what it can run"
    )


def executor_of(target: Target) -> str:
    """The first of the target's executors that this host has."""
    return next(
        name for name in target.executors if name in EXECUTORS and EXECUTORS[name].missing(target.device) is None
    )
