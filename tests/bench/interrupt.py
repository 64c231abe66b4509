"""kill -9 at random moments of a run: no torn bundle, nothing left running, and `--resume` completes it.

    python -m tests.bench.interrupt [--kills 10]

Real runs of the tiny profile of tests/real, each with an empty cache, so that training, exporting, launches and sealing are
all hit. The moment is drawn from the length of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from matrix import definitions
from matrix.run import failures, run
from matrix.store import Store
from tests.real.tiny import Silent, request, targets


@contextmanager
def started(root: Path, *, resume: bool) -> Iterator[subprocess.Popen[bytes]]:
    """The run in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.interrupt", "--one", str(root), *(["--resume"] if resume else [])]
    environment = {**os.environ, "PYTHONPATH": str(definitions.PACKAGE.parent), "OMP_WAIT_POLICY": "PASSIVE"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        yield process


def left_running(root: Path) -> list[str]:
    """Processes that still work in `root`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(root) in line and process.pid != os.getpid():
            found.append(line)
    return found


def interrupted(root: Path, after_s: float) -> str:
    """Kill a run after so many seconds and resume it; what was kept, or what went wrong."""
    store = Store(root / "reports")
    with started(root, resume=False) as process:
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    left = store.unfinished("cpu-openvino")
    kept = (
        f"{len(left.finished())} launches kept"
        if left
        else "no run had begun"
        if not list(store.bundles.glob("[!.]*"))
        else "sealed"
    )
    whole, torn = store.load_all()
    if torn or any(one.faults for one in whole) or (alive := left_running(root)):
        return f"WRONG after the kill: torn {torn}, faults {[one.faults for one in whole]}, running {alive}"
    if left or not whole:
        with started(root, resume=left is not None) as process:
            _, told = process.communicate()
        if process.returncode:
            return f"WRONG: the second run ended with {process.returncode}: {told.decode()[-500:]}"
    whole, torn = store.load_all()
    right = not torn and len(whole) == 1 and not whole[0].faults and failures(whole[0].bundle.launches) == 0
    return kept if right else f"WRONG at the end: {len(whole)} bundles, torn {torn}"


def main() -> int:
    """Run, print every kill, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", metavar="ROOT", help=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(request(Path(options.one), resume=options.resume), targets(), Silent())
        return 0
    rng, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        with started(Path(folder) / "whole", resume=False) as process:
            process.wait()
        length = time.monotonic() - begun
        print(f"a whole run takes {length:.0f} s", flush=True)
        for number in range(options.kills):
            moment = rng.uniform(0, length)
            answer = interrupted(Path(folder) / f"run{number}", moment)
            wrong += answer.startswith("WRONG")
            print(f"kill {number + 1} after {moment:.1f} s: {answer}", flush=True)
    print(f"{options.kills - wrong} of {options.kills} runs were whole after all")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
