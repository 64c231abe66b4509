"""A/A: the same variant under two names, measured and compared as the matrix does. It must not be called faster.

    python -m tests.bench.aa [--runs 20]

A run is five launches (fresh processes); each measures both names once, in a random order, under the rules of `quick`. Asks:
equivalent or ambiguous in at least 19 of 20 runs. Keep the machine quiet: this is a measurement.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from matrix import definitions, stats
from matrix.compare import call
from matrix.profile import parse_profiles
from matrix.workloads.launch import pinned
from matrix.workloads.sampling import Sampler

LAUNCHES, LENGTH = 5, 64


class Fixture:
    """As pytest-benchmark's pedantic mode with one iteration: setup, then one timed call."""

    def __init__(self) -> None:
        self.data: list[float] = []

    def pedantic(self, target: Any, *, setup: Any, rounds: int, iterations: int) -> None:  # noqa: ANN401 - a Protocol's own
        """Time the rounds."""
        for _ in range(rounds * iterations):
            args, kwargs = setup()
            start = time.perf_counter()
            target(*args, **kwargs)
            self.data.append(time.perf_counter() - start)


def measured(model: Path) -> float:
    """Median latency of the model, loaded anew, in seconds: sampled under the rules of `quick`."""
    from matrix.workloads.examples import inputs_of  # noqa: PLC0415 - the launch's own process
    from matrix.workloads.serve import onnx_runtime  # noqa: PLC0415 - the launch's own process

    rng = np.random.default_rng(0)
    probes = [inputs_of(rng.integers(0, 30_000, (1, LENGTH))) for _ in range(64)]
    rules = parse_profiles(definitions.text("profiles.toml")).of("quick").inference
    fixture = Fixture()
    with pinned(1):
        predict = onnx_runtime.load(model, device="cpu", threads=1)
        inputs = lambda: itertools.cycle(((probe,), {}) for probe in probes)  # noqa: E731 - as the suite says it
        sampler = Sampler(predict, inputs, rules, lambda _: None, "aa")
        sampler.run(fixture, lambda: fixture.data)
    return median(fixture.data)


def launch(model: Path, seed: int) -> dict[str, float]:
    """One launch: both names in an order drawn from `seed`; their medians in seconds."""
    names = ["one", "two"]
    random.Random(seed).shuffle(names)
    return {name: measured(model) for name in names}


def main() -> int:
    """Run, print every run, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--launch", nargs=2, metavar=("MODEL", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.launch:
        print(json.dumps(launch(Path(options.launch[0]), int(options.launch[1]))))
        return 0
    from tests.bench.artifact import student_int8  # noqa: PLC0415 - not in a launch

    calls: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        model = student_int8(Path(folder))
        for run in range(options.runs):
            ratios = []
            for index in range(LAUNCHES):
                command = [sys.executable, "-m", "tests.bench.aa", "--launch", str(model), str(100 * run + index)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout)
                ratios.append(found["one"] / found["two"])
            ratio = stats.geometric_interval(ratios)
            assert ratio
            calls[answer := call(ratio.low, ratio.high)] += 1
            print(f"run {run + 1}: ratio {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]: {answer}", flush=True)
    told = calls["equivalent"] + calls["ambiguous"]
    print(f"{told} of {options.runs} runs: equivalent {calls['equivalent']}, ambiguous {calls['ambiguous']}")
    return int(told < 0.95 * options.runs)


if __name__ == "__main__":
    sys.exit(main())
