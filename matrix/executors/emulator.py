"""Runs the suites on this host against containers that emulate a function service; the suites start and stop those.

The process that measures is a client: it has no limits and needs no framework. What is measured is in the containers.
"""

from __future__ import annotations

from matrix import engine, host, images, processes
from matrix.job import End, Order, Watch
from matrix.sample import Confinement
from matrix.target import Target


def missing(target: Target) -> str | None:
    """A local engine, and one that can run the target's instructions."""
    if lacking := engine.lacking(target.platform, gpu=False):
        return lacking
    if not engine.is_local():
        return "needs a local engine (its functions are reached by their addresses on a network without a way out)"
    return engine.foreign(target.platform)


def unready(target: Target) -> str | None:
    """The function's image."""
    return images.stale(str(target.image))


def cores(target: Target) -> int:  # noqa: ARG001 - the client takes all that this process may
    """The client's cores."""
    return host.usable_cores()


def asked(target: Target) -> Confinement | None:  # noqa: ARG001 - each function's limits are its cells' own
    """The client is not confined."""
    return None


def execute(order: Order, watch: Watch) -> End:
    """Run the client, and sweep the functions that it left if it was killed."""
    try:
        return processes.run(order, watch)
    finally:
        engine.sweep(order.job.owner)
