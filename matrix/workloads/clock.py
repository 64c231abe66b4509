"""A device-aware clock: the region ends when the device is idle, and the clock tests itself before it is believed.

pytest-benchmark synchronises no device, and torch's own timer did not synchronise MPS before pytorch #152199 (22.75 us
instead of 245 us): the synchronisation is inside the timed callable here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any, Protocol

from matrix.sample import ClockCheck

Work = Callable[[], Any]


def synchroniser(device: str) -> Callable[[], None] | None:
    """A function that returns when the device has nothing left to do; None for the CPU, whose calls already end so."""
    if device == "cpu":
        return None
    import torch  # noqa: PLC0415 - the CPU clock needs no framework

    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else torch.mps.synchronize
    return wait


def on_device(call: Callable[..., Any], device: str) -> Callable[..., Any]:
    """`call` that ends when the device is idle; on the CPU `call` itself, so that nothing is added to it."""
    wait = synchroniser(device)
    if wait is None:
        return call

    def finished(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passes through what it is given
        result = call(*args, **kwargs)
        wait()
        return result

    return finished


class Mark(Protocol):
    """A moment on the device's own time line."""

    def elapsed_time(self, end: Any) -> float:  # noqa: ANN401 - an event of the same device
        """Milliseconds from this moment to `end`."""


class _Now:
    """A moment of the CPU's clock, in the shape of a device event."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: _Now) -> float:
        return 1e3 * (end.at - self.at)


def marker(device: str) -> Callable[[], Mark]:
    """A function that marks a moment: CUDA and MPS events are read after the step, so that marking does not synchronise."""
    if device == "cpu":
        return _Now
    import torch  # noqa: PLC0415 - the CPU clock needs no framework

    kind = torch.cuda.Event if device == "cuda" else torch.mps.event.Event

    def mark() -> Mark:
        event: Mark = kind(enable_timing=True)
        event.record()  # type: ignore[attr-defined]
        return event

    return mark


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _unit(device: str) -> Callable[[int], Work]:
    """Work in units: hashing on the CPU (one thread, no framework), matrix products on a GPU."""
    if device == "cpu":
        block = bytes(1 << 16)

        def hashing(units: int) -> None:
            for _ in range(units):
                hashlib.sha256(block).digest()

        return lambda units: partial(hashing, units)
    import torch  # noqa: PLC0415 - the CPU clock needs no framework

    left = torch.ones(1024, 1024, device=device)

    def products(units: int) -> None:
        for _ in range(units):
            left @ left

    return lambda units: on_device(partial(products, units), device)


def _units_of(make: Callable[[int], Work], seconds: float) -> int:
    make(1)()
    units = 1
    while _seconds(make(units)) < seconds:
        units *= 2
    return units


def interleaved(works: Sequence[Work], rounds: int) -> list[float]:
    """Median seconds of each of `works`, run in turns, so that drift falls on all alike."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, times, strict=True):
            found.append(_seconds(work))
    return [median(found) for found in times]


def check(device: str, *, rounds: int = 31, seconds: float = 2e-3) -> ClockCheck:
    """Test the clock: an empty region, N against 2N units of work, and the same work under two names, interleaved."""
    make = _unit(device)
    units = _units_of(make, seconds)
    (empty,) = interleaved([on_device(lambda: None, device)], 1001)
    once, twice, again = interleaved([make(units), make(2 * units), make(units)], rounds)
    return ClockCheck(empty_s=empty, doubling=twice / once, same=again / once)


def matmul_peak(device: str, dtype: str, *, size: int | None = None, rounds: int = 12) -> float:
    """Best rate of a square matrix product on this device, FLOP/s: `2 n^3` over the shortest of `rounds` times.

    n = 1024 on a CPU and 8192 on a GPU unless `size` says otherwise. The peak is measured, not looked up: it is what this
    machine gives today, on the threads that training uses.
    """
    import torch  # noqa: PLC0415 - only training asks for the peak

    n = size or (1024 if device == "cpu" else 8192)
    left = torch.randn(n, n, device=device, dtype=getattr(torch, dtype))
    product = on_device(lambda: left @ left, device)
    product()
    return float(2 * n**3 / min(_seconds(product) for _ in range(rounds)))
