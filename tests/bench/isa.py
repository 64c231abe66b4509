"""One artifact on two instruction sets: how many answers differ, and by how much?

    python -m tests.bench.isa --store reports [--examples 1000] [--formats onnx_int8]

Compares the outputs in the newest lambda-x86 and lambda-arm bundles of a store (arm64 under emulated instructions), and answers
the same examples once more here and on an x86 CPU that has AVX2 and no AVX-512 (qemu's Haswell), with ONNX Runtime and
OpenVINO. Emulated kernels compute what the real ones do; their time says nothing and is not told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matrix import definitions
from matrix.bundle import Evidence
from matrix.store import Store
from matrix.workloads import examples, serve
from matrix.workloads.cache import Cache

Floats = npt.NDArray[np.float32]
FORMATS = ("onnx_fp32", "onnx_int8", "openvino_fp32", "openvino_int8")


def outputs(evidence: Evidence, variant: str) -> Floats:
    """The logits of an export of a bundle."""
    (cell,) = [c for c in evidence.bundle.planned if (c.suite, c.variant) == ("export_accuracy", variant)]
    return evidence.arrays[str(evidence.launches_of(cell.id)[1].evidence.outputs)]


def told(name: str, ours: Floats, theirs: Floats) -> None:
    """One line of a comparison."""
    flips, apart = int((ours.argmax(1) != theirs.argmax(1)).sum()), float(np.abs(ours - theirs).max())
    spread = float(theirs.std())
    print(
        f"{name}: {flips} of {len(ours)} labels differ, max |dlogit| {apart:.2e} (logits' spread {spread:.2f})",
        flush=True,
    )


def answer(cache: Path, exports: str, kept: str, variant: str, count: int, out: Path) -> None:
    """Answer the first examples in this process, one by one, and save the logits."""
    held = examples.Examples.read(Cache(cache).folder("examples", kept))
    folder = Cache(cache).folder("exports", exports) / variant
    (model,) = [*folder.glob("*.onnx"), *folder.glob("*.xml")]
    predict = serve.runtime_of(variant).load(model, device="cpu", threads=1)
    rows = held.evaluation_ids()[:count]
    np.save(out, np.vstack([predict(examples.inputs_of(row[None, :])) for row in rows]))


def main() -> None:
    """Compare bundles, then instruction sets here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("reports"))
    parser.add_argument("--cache", type=Path, default=definitions.cache())
    parser.add_argument("--examples", type=int, default=1_000)
    parser.add_argument("--formats", nargs="+", default=FORMATS, help="fp32 takes many minutes under emulation")
    parser.add_argument("--qemu", default="qemu-x86_64")
    parser.add_argument("--answer", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        exports, kept, variant, out = options.answer
        answer(options.cache, exports, kept, variant, options.examples, Path(out))
        return
    found, _ = Store(options.store).load_all()
    newest = {one.bundle.target: one for one in found}
    x86, arm = newest["lambda-x86"], newest["lambda-arm"]
    told("onnx_int8, arm64 against x86", *(outputs(one, "onnx_int8")[: options.examples] for one in (arm, x86)))
    prepared = x86.bundle.prepared
    with tempfile.TemporaryDirectory() as folder:
        for variant in options.formats:
            logits = []
            for name, prefix in (("here", []), ("avx2", [options.qemu, "-cpu", "Haswell-noTSX"])):
                out = Path(folder) / f"{variant}-{name}.npy"
                command = [*prefix, sys.executable, "-m", "tests.bench.isa", "--cache", str(options.cache)]
                command += ["--examples", str(options.examples)]
                command += ["--answer", prepared.exports, prepared.examples, variant, str(out)]
                subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
                logits.append(np.load(out))
            told(f"{variant}, AVX2 against this CPU", logits[1], logits[0])


if __name__ == "__main__":
    main()
