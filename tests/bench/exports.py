"""This project's INT8 export beside optimum's default, OpenVINO's and fp32, call by call in turns: latency, accuracy, floor.

    python -m tests.bench.exports --student DIR [--data embedded|PATH] [--examples 10000] [--blocks 20] [--lengths 16 64 128]

Batch 1, one thread. Each block calls every export on the same inputs in an order drawn anew; a ratio is that of a block's medians,
its interval a t-interval of logarithms over blocks. The floor is the counted products of a full forward pass at the fastest
INT8 product that ONNX Runtime gives here on one thread (MatMulInteger, 1024 cubed); a fraction of it above one would mean that
cut-off work is not counted. Accuracy: paired with the checkpoint, Tango's 95 % interval; where the gate's limit lies inside it,
the number of examples that would decide it if the discordant pairs stay as they are. Keep the machine quiet.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from matrix import definitions, flops, stats
from matrix.policy import parse_policy
from matrix.profile import parse_profiles
from matrix.quality import kl_divergences
from matrix.workloads import export, serve
from matrix.workloads.data import load_splits
from matrix.workloads.examples import inputs_of, windows
from matrix.workloads.models import load_model, load_tokenizer
from matrix.workloads.serve import INPUTS, Predict, torch_eager
from matrix.workloads.train import encode
from tests.bench.fast import shown

OURS = "onnx_int8_fused"
CALLS = 30
Rows = Sequence[npt.NDArray[np.int64]]


class Export(NamedTuple):
    """An export at work."""

    name: str
    predict: Predict
    bytes: int


def made(student: Path, root: Path, calibration: Sequence[Mapping[str, list[int]]]) -> list[Export]:
    """Every format of the student."""
    folders = {"torch_fp32": student}
    found = []
    for name in export.formats():
        module = export.exporter(name)
        if name != "torch_fp32":
            print(f"export {name}", file=sys.stderr)
            folders[name] = root / name
            folders[name].mkdir()
            module.export(folders, folders[name], calibration)
        model = folders[name] / module.MODEL
        predict = serve.runtime_of(name).load(model, device="cpu", threads=1)
        found.append(Export(name, predict, export.artifact_bytes(folders[name], module.MODEL)))
    return found


def int8_peak() -> float:
    """The rate of ONNX Runtime's INT8 product on one thread, operations a second: the best of twenty."""
    n = 1024
    kinds = {"a": onnx.TensorProto.UINT8, "b": onnx.TensorProto.INT8, "c": onnx.TensorProto.INT32}
    values = {name: onnx.helper.make_tensor_value_info(name, kind, [n, n]) for name, kind in kinds.items()}
    node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "g", [values["a"], values["b"]], [values["c"]])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    drawn = np.random.default_rng(1)
    fed = {"a": drawn.integers(0, 255, (n, n), dtype=np.uint8), "b": drawn.integers(-64, 63, (n, n), dtype=np.int8)}
    spent = []
    for _ in range(20):
        start = time.perf_counter()
        session.run(None, fed)
        spent.append(time.perf_counter() - start)
    return 2 * n**3 / min(spent)


def latencies(exports: Sequence[Export], ids: Rows, length: int, blocks: int) -> dict[str, list[float]]:
    """Median seconds of a call, by export and block."""
    probes = [inputs_of(row[None]) for row in windows([list(row) for row in ids], length, CALLS)]
    found: dict[str, list[float]] = {one.name: [] for one in exports}
    order = random.Random(1)
    for block in range(blocks + 1):  # the first warms up
        for one in order.sample(list(exports), len(exports)):
            times = []
            for probe in probes:
                start = time.perf_counter()
                one.predict(probe)
                times.append(time.perf_counter() - start)
            found[one.name] += [median(times)] if block else []
    return found


def speed(exports: Sequence[Export], ids: Rows, length: int, blocks: int, floor: float) -> str:
    """The table of one length."""
    found = latencies(exports, ids, length, blocks)
    lines = [
        f"\n### {length} tokens; the INT8 floor is {1e3 * floor:.2f} ms\n",
        "| export | ms | fraction of the floor | x " + OURS + " |",
        "|---|---|---|---|",
    ]
    for one in exports:
        level = stats.geometric_interval(found[one.name])
        ratio = stats.geometric_interval([b / a for a, b in zip(found[OURS], found[one.name], strict=True)])
        share = f"{floor / level.value:.2f}" if level else "-"
        lines.append(
            f"| {one.name} | {shown(level and level.map(lambda one: 1e3 * one), 2)} | {share} | {shown(ratio, 2)} |"
        )
    return "\n".join(lines)


def decided_by(won: int, lost: int, n: int, limit: float) -> str:
    """What the gate would answer, and from how many examples where it cannot yet."""
    found = stats.tango_interval(won, lost, n, 0.9)  # its lower end is the one-sided 95 % bound
    if found.low >= limit:
        return "pass"
    if found.high < limit:
        return "fail"
    for times in (2, 3, 5, 10, 20, 50, 100):
        more = stats.tango_interval(times * won, times * lost, times * n, 0.9)
        if more.low >= limit or more.high < limit:
            return f"undecided: about {times * n:,} examples would decide it"
    return "undecided: more than a hundred times as many examples would decide it"


def accuracy(
    exports: Sequence[Export], reference: Predict, ids: Rows, labels: npt.NDArray[np.int64], limit: float
) -> str:
    """The table of accuracies: one example a call, as it is served."""

    def answers(predict: Predict, name: str) -> npt.NDArray[np.float32]:
        print(f"accuracy of {name}", file=sys.stderr)
        return np.vstack([predict(inputs_of(row[None])) for row in ids])

    expected = answers(reference, "the checkpoint")
    right = expected.argmax(1) == labels
    lines = [
        f"\n### Accuracy of {len(ids):,} examples; the checkpoint has {100 * right.mean():.2f} %\n",
        "| export | MB | accuracy, % | - checkpoint, points [95 %] | lost, won | McNemar p | flips, % | mean KL | gate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in exports:
        found = answers(one.predict, one.name)
        ours = found.argmax(1) == labels
        lost, won = int((right & ~ours).sum()), int((ours & ~right).sum())
        flips = float((found.argmax(1) != expected.argmax(1)).mean())
        kl = float(kl_divergences(expected.astype(np.float64), found.astype(np.float64)).mean())
        apart = shown(stats.tango_interval(won, lost, len(ids)).map(lambda one: 100 * one), 2)
        cells = (
            one.name,
            f"{one.bytes / 1e6:.1f}",
            f"{100 * ours.mean():.2f}",
            apart,
            f"{lost}, {won}",
            f"{stats.mcnemar_exact(lost, won):.2g}",
            f"{100 * flips:.2f}",
            f"{kl:.1e}",
            decided_by(won, lost, len(ids), limit),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Export, time in turns, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 128])
    options = parser.parse_args()
    recipe = parse_profiles(definitions.text("profiles.toml")).of("quick").recipe
    splits, tokenizer = load_splits(options.data, recipe), load_tokenizer(options.student)
    evaluation, train = (encode(tokenizer, part, recipe.max_length) for part in (splits.evaluation, splits.train))
    calibration = [list(row) for row in train.ids[: recipe.calibration_examples]]
    rows = [dict(zip(INPUTS, (row, [1] * len(row), [0] * len(row)), strict=True)) for row in calibration]
    asked = [np.array(row, dtype=np.int64) for row in evaluation.ids[: options.examples]]
    config, peak = load_model(str(options.student), splits.names, "bert").config, int8_peak()
    gates = parse_policy(definitions.text("gates.toml")).gate
    limit = next(gate.limit for gate in gates if gate.metric == "accuracy_delta" and "onnx_int8" in gate.variants)
    print(f"{options.student.name}, {splits.source}; INT8 products at {peak / 1e9:.0f} Gop/s on one thread")
    with tempfile.TemporaryDirectory(prefix="matrix-exports-") as folder:
        exports = made(options.student, Path(folder), rows)
        for length in options.lengths:
            shape = {"layers": config.num_hidden_layers, "dim": config.hidden_size, "hidden": config.intermediate_size}
            floor = flops.encoder_forward(**shape, batch=1, length=length) / peak
            print(speed(exports, asked[:2000], length, options.blocks, floor), flush=True)
        reference = torch_eager.load(options.student / "model.safetensors", device="cpu", threads=1)
        print(accuracy(exports, reference, asked, evaluation.labels.numpy()[: len(asked)], limit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
