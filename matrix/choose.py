"""Which target a name means on this host, how it would run there, and what is missing where it cannot."""

from __future__ import annotations

from matrix import engine, host
from matrix.errors import HostError
from matrix.executors import EXECUTORS
from matrix.target import Executor, Target, Targets


def executor_of(target: Target, wanted: Executor | None = None) -> Executor | None:
    """The first of the target's executors that this host has, or `wanted` if it is one of those; None without one."""
    names = [name for name in target.executors if wanted in (None, name)]
    return next((name for name in names if EXECUTORS[name].missing(target) is None), None)


def how(target: Target, executor: Executor) -> str:
    """How a target's launches run, and why not otherwise, for people."""
    if executor == "docker":
        return f"in containers of the image {target.image}"
    if executor == "emulator":
        return f"against containers of the image {target.image}, which emulate the service"
    others = [EXECUTORS[name].missing(target) for name in target.executors if name != "native"]
    why = "; ".join(reason for reason in others if reason) or "as asked"
    return f"natively, without an image ({why})"


def obstacles(targets: Targets, name: str, wanted: Executor | None = None, *, environment: bool = True) -> list[str]:
    """Why this host cannot run the target `name`, each a clause; empty when it can.

    Without `environment`, only the machine and its engine count: what `matrix provide` can still make does not.
    """
    target = targets.of(name)
    if not target.executors:
        return ["is measured elsewhere: no executor here calls the real service"]
    far = "docker" in target.executors and engine.is_far()  # then the launches say what they ran on
    if found := host.mismatches(target.expect):
        if not far:
            return found
        wanted = "docker"
    executor = executor_of(target, wanted)
    if executor is None:
        if wanted and wanted not in target.executors:
            return [f"runs by {' or '.join(target.executors)}, not by {wanted}"]
        return [lack for one in target.executors if wanted in (None, one) and (lack := EXECUTORS[one].missing(target))]
    found = [EXECUTORS[executor].unready(target) or ""] if environment else []
    if target.prepared_by:
        found += obstacles(targets, target.prepared_by, environment=environment)
    return [reason for reason in found if reason]


def choose(
    targets: Targets, name: str, wanted: Executor | None = None, *, environment: bool = True
) -> tuple[str, Target]:
    """The target that `name` means on this host: itself, or the first of its group whose expectation the host meets.

    Raises:
        UsageError: nothing is called so.
        HostError: this host cannot run it.
    """
    refused = []
    for member in targets.named(name):
        found = obstacles(targets, member, wanted, environment=environment)
        if not found:
            return member, targets.of(member)
        refused.append(f"{member} {' and '.join(found)}")
    raise HostError(
        f"this host cannot run {name}: {', '.join(refused)}",
        remedy="`matrix doctor` shows what it can run, `matrix provide` makes what can be made",
    )
