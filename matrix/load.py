"""What this machine does while something is measured: CPU time of others, steal, throttling, and this process' memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from matrix.host import read_text
from matrix.sample import Load

CpuSeconds = Callable[[], float]
"""Tells seconds of CPU time that only grow."""


def trim_memory() -> None:
    """Give freed memory back to the system, so that a cell's peak is its own and not an earlier cell's (glibc)."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak_memory() -> bool:
    """Restart the high-water mark of this process' resident memory; False where the system cannot (not Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def peak_memory() -> int | None:
    """High-water mark of this process' resident memory since `reset_peak_memory`, in bytes; None where not told."""
    status = read_text("/proc/self/status") or ""
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else None


@dataclass(frozen=True)
class LoadMark:
    """A moment's counters of this process and this machine, in seconds of CPU time."""

    wall: float
    own: float
    busy: float
    steal: float
    total: float
    throttled: float | None

    @classmethod
    def now(cls, elsewhere: CpuSeconds = lambda: 0.0) -> LoadMark:
        """The counters now; `elsewhere` tells the CPU time of work that is ours though no child of this process did it."""
        machine = psutil.cpu_times()
        steal = float(getattr(machine, "steal", 0.0))
        idle = machine.idle + float(getattr(machine, "iowait", 0.0))
        guests = float(getattr(machine, "guest", 0.0)) + float(
            getattr(machine, "guest_nice", 0.0)
        )  # Linux counts them twice
        total = sum(machine) - guests
        return cls(time.monotonic(), _own_s() + elsewhere(), total - idle - steal, steal, total, _throttled_s())

    def until_now(self, elsewhere: CpuSeconds = lambda: 0.0) -> Load:
        """What happened since this mark, which was made with the same `elsewhere`."""
        now = LoadMark.now(elsewhere)
        wall, own = now.wall - self.wall, now.own - self.own
        total = now.total - self.total
        told = total > 0
        throttled = None if self.throttled is None or now.throttled is None else now.throttled - self.throttled
        return Load(
            wall_s=wall,
            cpu_s=own,
            foreign_cores=max(0.0, (now.busy - self.busy - own) / wall) if told and wall > 0 else None,
            steal_share=max(0.0, (now.steal - self.steal) / total) if told else None,
            throttled_s=throttled,
        )


def _own_s() -> float:
    """CPU time of this process and of its children; the system adds a child's to ours only when it has ended."""
    own = psutil.Process()
    spent = sum(own.cpu_times()[:4])
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            spent += sum(child.cpu_times()[:4])
    return float(spent)


def _throttled_s() -> float | None:
    for path, key, scale in (
        ("/sys/fs/cgroup/cpu.stat", "throttled_usec", 1e-6),
        ("/sys/fs/cgroup/cpu/cpu.stat", "throttled_time", 1e-9),
    ):
        for line in (read_text(path) or "").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value) * scale
    return None
