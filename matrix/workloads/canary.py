"""The battery of canaries, asked before anything is timed, in a process of its own: nothing of it stays in the one that measures.

`python -m matrix.workloads.canary DEVICE OUT.json` writes a `Battery`. A process that crashes or takes too long has failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from matrix.errors import DataError
from matrix.host import without_paths
from matrix.sample import Battery, Canary
from matrix.strict import parse_json

TIMEOUT_S: Final = 240.0
"""The battery takes 6 s on two cores, and 17 s when inductor compiles its first kernels: this is a device that hangs."""

_LONGEST_TAIL: Final = 1_000


def _command(device: str, out: Path) -> list[str]:
    # faulthandler tells in which canary a kernel crashed
    return [sys.executable, "-X", "faulthandler", "-m", "matrix.workloads.canary", device, str(out)]


def _failed(device: str, why: str) -> Battery:
    canary = Canary(name="battery", error=None, limit=0.0, detail=without_paths(why)[-_LONGEST_TAIL:])
    return Battery(device=device, canaries=(canary,))


def _ran(command: list[str], log: Path, timeout_s: float) -> str | None:
    """Run it to its end; how it failed, None if it did not.

    Its words go to a file: a compiler that it started may outlive it, and would keep a pipe open.
    """
    with log.open("wb") as words:
        try:
            done = subprocess.run(  # noqa: S603 - our own module
                command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return f"it was stopped after {timeout_s:.0f} s"
    if done.returncode == 0:
        return None
    return f"its process ended with exit code {done.returncode}: {log.read_text(encoding='utf-8', errors='replace')}"


def ask(device: str, timeout_s: float = TIMEOUT_S) -> Battery:
    """What `device` answers, asked in a fresh process; one that does not live to tell is a battery with one failed canary."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "battery.json"
        failed = _ran(_command(device, out), Path(folder) / "log.txt", timeout_s)
        if failed:
            return _failed(device, failed)
        try:
            found = parse_json(Battery, out.read_bytes(), out.name)
        except (OSError, DataError) as error:
            return _failed(device, f"its process wrote no battery: {error}")
    told = [one.model_copy(update={"detail": without_paths(one.detail)}) for one in found.canaries]
    return found.model_copy(update={"canaries": tuple(told)})


def main(device: str, out: str) -> None:
    """Ask here, and write the answers."""
    from matrix.workloads.battery import battery  # noqa: PLC0415 - the process that measures imports this module

    Path(out).write_text(battery(device).model_dump_json(indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # all is written: taking torch's compiler apart takes a second (2.13), before each launch
