"""What the harness adds: its claimed samples beside a plain pinned loop, in turns, of a real latency and of an empty call.

    python -m tests.bench.overhead

Asks: medians agree within 5 %, and the harness adds less than 2 us to a call. One thread, pinned; ten blocks of each, in
turns, so that drift falls on both.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from matrix.profile import Sampling
from matrix.workloads.clock import on_device
from matrix.workloads.examples import inputs_of
from matrix.workloads.launch import pinned
from matrix.workloads.sampling import Arguments, Sampler

BLOCKS, ROUNDS, LENGTH = 10, 500, 64
RULES = Sampling(
    min_rounds=ROUNDS,
    max_rounds=ROUNDS,
    cap_s=9.0,
    width=0.01,
    doubt_width=0.05,
    warmup_calls=20,
    warmup_cap_s=2.0,
    steady=0.05,
)
FOUND: dict[tuple[str, str], list[float]] = {}


def plain(call: Callable[..., Any], inputs: Iterator[Arguments]) -> list[float]:
    """The loop that anyone would write by hand."""
    times = []
    for _ in range(ROUNDS):
        arguments, _ = next(inputs)
        start = time.perf_counter()
        call(*arguments)
        times.append(time.perf_counter() - start)
    return times


@pytest.fixture(scope="module")
def calls() -> dict[str, Callable[..., Any]]:
    """A real latency (ORT INT8 at 64 tokens), and a call that does nothing."""
    from matrix.workloads.serve import onnx_runtime  # noqa: PLC0415 - beside its framework
    from tests.bench.artifact import student_int8  # noqa: PLC0415 - beside its framework

    with tempfile.TemporaryDirectory() as folder, pinned(1):
        return {
            "ORT INT8, 64 tokens": onnx_runtime.load(student_int8(Path(folder)), device="cpu", threads=1),
            "nothing": lambda _: None,
        }


@pytest.mark.parametrize("name", ["ORT INT8, 64 tokens", "nothing"])
@pytest.mark.parametrize("block", range(BLOCKS))
def test_block(name: str, block: int, calls: dict[str, Callable[..., Any]], benchmark: Any) -> None:  # noqa: ANN401 - pytest-benchmark's fixture
    """One block of each, the first of them in turns."""
    rng = np.random.default_rng(0)
    probes = [inputs_of(rng.integers(0, 30_000, (1, LENGTH))) for _ in range(64)]
    call = calls[name]

    def inputs() -> Iterator[Arguments]:
        return itertools.cycle(((probe,), {}) for probe in probes)

    def harness() -> list[float]:
        Sampler(on_device(call, "cpu"), inputs, RULES, lambda _: None, name).confirm(benchmark, ROUNDS)
        return list(benchmark.stats.stats.data)

    with pinned(1):
        plain(call, inputs())
        ways: list[tuple[str, Callable[[], list[float]]]] = [
            ("plain", lambda: plain(call, inputs())),
            ("harness", harness),
        ]
        for way, times in ways[:: 1 if block % 2 else -1]:
            FOUND.setdefault((name, way), []).append(median(times()))


def test_what_was_found() -> None:
    """Print, and judge."""
    own, ours = (median(FOUND["ORT INT8, 64 tokens", way]) for way in ("plain", "harness"))
    empty = [1e6 * median(FOUND["nothing", way]) for way in ("plain", "harness")]
    print(
        f"\nORT INT8, {LENGTH} tokens: plain loop {1e3 * own:.3f} ms, harness {1e3 * ours:.3f} ms: ratio {ours / own:.4f}"
    )
    print(
        f"an empty call: plain loop {empty[0]:.2f} us, harness {empty[1]:.2f} us: it adds {empty[1] - empty[0]:.2f} us"
    )
    assert abs(ours / own - 1) < 0.05
    assert empty[1] - empty[0] < 2.0


if __name__ == "__main__":
    sys.exit(
        pytest.main(
            [
                __file__,
                "-q",
                "-s",
                "--benchmark-disable-gc",
                "--benchmark-quiet",
                "-W",
                "ignore",
                "-p",
                "no:cacheprovider",
            ]
        )
    )
