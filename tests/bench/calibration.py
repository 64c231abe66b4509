"""How many utterances does static INT8 need to calibrate, by which method, and what does it matter which ones?

    python -m tests.bench.calibration --student DIR [--data embedded|PATH] [--sizes 32 128 300 1000] [--draws 5] [--examples 3000]

Every draw takes other training utterances, at their own lengths; each size has draws of its own. A cost is that of the quantised
graph against the checkpoint on the evaluation examples: mean KL, flipped labels, accuracy. The table has the median of the draws
and their range; size matters where a Welch interval of two sizes' mean KL leaves out zero, at 95 % over all pairs of a method
(Bonferroni). Draws of a size near the training split share utterances: their spread is a lower bound.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from matrix import definitions, host, stats
from matrix.profile import parse_profiles
from matrix.quality import kl_divergences
from matrix.stats import Interval
from matrix.workloads import export, serve
from matrix.workloads.data import load_splits
from matrix.workloads.examples import Float, Int, predict_all
from matrix.workloads.models import load_tokenizer
from matrix.workloads.serve import INPUTS, torch_eager
from matrix.workloads.train import encode
from tests.bench.fast import shown

METHODS: Final = {
    "MinMax": "onnx_static_int8",
    "Percentile": "onnx_static_int8_percentile",
    "Entropy": "onnx_static_int8_entropy",
}
BATCH: Final = 64
"""Examples of one length answered at once: static scales do not depend on what else is in a batch."""


class Cost(NamedTuple):
    """What quantising cost: mean KL to the checkpoint, share of labels that changed, and the change of accuracy."""

    kl: float
    flips: float
    delta: float


def cost(expected: Float, found: Float, labels: npt.NDArray[np.int64]) -> Cost:
    """The cost of the logits `found` beside `expected` (both examples x classes)."""
    before, after = expected.argmax(1), found.argmax(1)
    return Cost(
        float(kl_divergences(expected.astype(np.float64), found.astype(np.float64)).mean()),
        float((before != after).mean()),
        float((after == labels).mean() - (before == labels).mean()),
    )


def drawn(count: int, size: int, draw: int) -> list[int]:
    """`size` of `count` training utterances, the same ones for the same draw."""
    return random.Random(f"{draw} of {size}").sample(range(count), size)


def spread(values: Sequence[float]) -> Interval:
    """The median and the range."""
    return Interval(median(values), min(values), max(values))


def sentence(method: str, kls: Mapping[int, Sequence[float]]) -> str:
    """Whether the mean KL depends on the size beyond the spread of its draws; `kls` has those of each size."""
    pairs = list(combinations(sorted(kls), 2))
    if not pairs or min(map(len, kls.values())) < 2:
        return f"{method}: whether size matters cannot be told from one size or one draw."
    apart: list[tuple[float, str]] = []
    for fewer, more in pairs:
        found = stats.welch_interval(kls[more], kls[fewer], 1 - 0.05 / len(pairs))
        if found and not found.low <= 0 <= found.high:
            ratio = mean(kls[more]) / mean(kls[fewer])
            apart.append((abs(found.value), f"the mean KL of {more} is {ratio:.2f} times that of {fewer}"))
    if apart:
        return f"{method}: size matters beyond the spread of draws; {max(apart)[1]}."
    return f"{method}: no size differs from another beyond the spread of draws."


def table(found: Mapping[str, Mapping[int, Sequence[Cost]]]) -> str:
    """A row a method and size."""
    lines = [
        "| method | utterances | mean KL x 1000, median [range] | flips, % | - checkpoint, points |",
        "|---|---|---|---|---|",
    ]
    for method, sizes in found.items():
        for size, costs in sizes.items():
            scaled = ([1000 * one.kl for one in costs], *([100 * one[at] for one in costs] for at in (1, 2)))
            cells = [shown(spread(values), digits) for values, digits in zip(scaled, (3, 2, 2), strict=True)]
            lines.append(f"| {' | '.join((method, str(size), *cells))} |")
    return "\n".join(lines)


class Sweep:
    """A student with its fp32 graph, its training utterances, and its own answers to the evaluation examples."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        recipe = parse_profiles(definitions.text("profiles.toml")).of("quick").recipe
        splits, tokenizer = load_splits(options.data, recipe), load_tokenizer(options.student)
        evaluation, train = (encode(tokenizer, part, recipe.max_length) for part in (splits.evaluation, splits.train))
        self.train: Sequence[Sequence[int]] = train.ids
        self.asked: list[Int] = [np.array(row, dtype=np.int64) for row in evaluation.ids[: options.examples]]
        self.labels = evaluation.labels.numpy()[: len(self.asked)]
        self.root, self.classes, self.source = root, len(splits.names), splits.source
        reference = torch_eager.load(options.student / "model.safetensors", device="cpu", threads=1)
        self.expected = predict_all(reference, self.asked, BATCH, self.classes)
        self.made = {"torch_fp32": options.student, "onnx_fp32": root / "onnx_fp32"}
        self.made["onnx_fp32"].mkdir()
        export.exporter("onnx_fp32").export(self.made, self.made["onnx_fp32"], [])

    def cost(self, method: str, size: int, draw: int) -> Cost:
        """Calibrate on one draw, quantise, answer."""
        print(f"{method}, {size} utterances, draw {draw}", file=sys.stderr)
        ids = [list(self.train[index]) for index in drawn(len(self.train), size, draw)]
        rows = [dict(zip(INPUTS, (row, [1] * len(row), [0] * len(row)), strict=True)) for row in ids]
        module = export.exporter(METHODS[method])
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            module.export(self.made, Path(folder), rows)
            predict = serve.runtime_of(METHODS[method]).load(Path(folder) / module.MODEL, device="cpu", threads=1)
            return cost(self.expected, predict_all(predict, self.asked, BATCH, self.classes), self.labels)


def swept(sweep: Sweep, sizes: Sequence[int], draws: int) -> Iterator[tuple[str, dict[int, list[Cost]]]]:
    """Every method's costs, by size."""
    for method in METHODS:
        yield method, {size: [sweep.cost(method, size, draw) for draw in range(draws)] for size in sizes}


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep, print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128, 300, 1000])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--examples", type=int, default=3_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="matrix-calibration-") as folder:
        sweep = Sweep(options, Path(folder))
        if max(options.sizes) > len(sweep.train):
            parser.error(f"the training split has {len(sweep.train)} utterances: --sizes asks for {max(options.sizes)}")
        right = float((sweep.expected.argmax(1) == sweep.labels).mean())
        print(
            f"{options.student.name}, {sweep.source}, {host.host_class().isa}: {len(sweep.asked):,} examples, of which the "
            f"checkpoint has {100 * right:.2f} % right; {options.draws} draws a size\n",
            flush=True,
        )
        found: dict[str, dict[int, list[Cost]]] = dict(swept(sweep, options.sizes, options.draws))
    print(table(found) + "\n")
    for method, sizes in found.items():
        print(sentence(method, {size: [one.kl for one in costs] for size, costs in sizes.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
