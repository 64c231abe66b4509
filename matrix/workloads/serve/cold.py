"""A process that serves one answer: imports the runtime, loads the model, calls it once, and says where the time went.

Imports nothing of the matrix but the runtimes and one system call: a cold start holds what a deployment would pay, and not
the harness.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from matrix.orphans import die_with
from matrix.workloads import serve


def _resident() -> int | None:
    """Resident memory now, in bytes; None where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int | None:
    """High-water mark of resident memory, in bytes; None where /proc does not tell.

    Not getrusage: Linux hands the parent's mark on to a new process, and a 100 MB server seemed to need 1.4 GB.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def main(orders_text: str) -> None:
    """Answer once and print the logits with this process' own account: seconds and bytes, by metric name."""
    orders = json.loads(orders_text)
    die_with(orders["parent"])
    inputs = {name: np.array(rows, dtype=np.int64) for name, rows in orders["inputs"].items()}
    moments = [time.perf_counter()]
    module = serve.runtime(orders["variant"])
    moments.append(time.perf_counter())
    predict = module.load(Path(orders["model"]), device=orders["device"], threads=orders["threads"])
    moments.append(time.perf_counter())
    logits = predict(inputs)
    moments.append(time.perf_counter())
    spent = dict(
        zip(
            ("import_s", "load_s", "first_call_s"), (after - before for before, after in pairwise(moments)), strict=True
        )
    )
    facts = spent | {"resident_bytes": _resident(), "peak_bytes": _peak()}
    sys.stdout.write(json.dumps({"logits": logits.tolist(), "facts": facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
