"""The same cells natively and in a container, launch by launch in turns: what does a container cost?

    python -m tests.bench.contained [--rounds 6] [--cache DIR]

Each round runs one launch of profile quick each way, in a drawn order, with the same student; the ratio of a cell is that of
its medians, paired by round, with a t-interval on logarithms. Packages whose versions differ between the two are named: a
difference that they make is none of the container's. Needs an engine, the image (`matrix provide cpu`) and the cpu extra.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from pathlib import Path

import numpy as np

from matrix import definitions, stats
from matrix.bundle import Evidence
from matrix.job import WorkloadSpec
from matrix.profile import Profile, parse_profiles
from matrix.run import Request, run
from matrix.sample import Environment
from matrix.store import Store, load
from matrix.target import Executor, parse_targets
from tests.real.tiny import Silent

WORTH_A_WORD = 0.03
BOTH: tuple[Executor, ...] = ("native", "docker")


def one_launch() -> Profile:
    """Profile quick with one launch, and few evaluation examples: accuracy is not compared here."""
    quick = parse_profiles(definitions.text("profiles.toml")).of("quick")
    recipe = quick.recipe.model_copy(update={"evaluation_examples": 1_500})
    return quick.model_copy(update={"launches": 1, "recipe": recipe})


def measured(root: Path, cache: Path, executor: Executor) -> Evidence:
    """One launch."""
    request = Request("cpu-openvino", one_launch(), WorkloadSpec(), Store(root / executor), cache, executor=executor)
    return load(run(request, parse_targets(definitions.text("targets.toml")), Silent()))


def medians(evidence: Evidence) -> dict[str, float]:
    """Each cell's median seconds."""
    return {cell: float(np.median(one.samples)) for (cell, _), one in evidence.measured.items()}


def software(evidence: Evidence) -> dict[str, str]:
    """Versions that the launch recorded."""
    environment = evidence.bundle.launches[0].environment
    assert isinstance(environment, Environment)
    return environment.packages | {"python": environment.python, "system": environment.system}


def main() -> None:
    """Measure in turns, print a line a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cache", type=Path, default=definitions.cache())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, found = random.Random(options.seed), {name: [] for name in BOTH}  # type: dict[Executor, list[dict[str, float]]]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for executor in rng.sample(BOTH, 2):
                evidence = measured(Path(folder) / str(number), options.cache, executor)
                found[executor].append(medians(evidence))
                versions = software(evidence)
                print(f"round {number + 1}: {executor}, {len(evidence.measured)} cells", flush=True)
                if number == 0:
                    print(
                        "   " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())), flush=True
                    )
    for cell in sorted(set(found["native"][0]) & set(found["docker"][0])):
        logs = [math.log(b[cell] / a[cell]) for a, b in zip(found["native"], found["docker"], strict=True)]
        interval = stats.geometric_interval([math.exp(value) for value in logs])
        assert interval is not None
        proven = interval.low > 1 + WORTH_A_WORD or interval.high < 1 - WORTH_A_WORD
        base = float(np.median([one[cell] for one in found["native"]]))
        print(
            f"{cell:75} native {1e3 * base:9.3f} ms, container/native {interval.value:.3f} "
            f"[{interval.low:.3f}, {interval.high:.3f}]{'  more than 3 %' if proven else ''}"
        )


if __name__ == "__main__":
    main()
