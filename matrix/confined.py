"""What confines this process, read from inside: what an engine was asked for is believed only when it is seen here."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from matrix.host import cpu_quota, read_text
from matrix.sample import Confinement

_V1_UNLIMITED = 1 << 60
"""Version 1 of control groups writes a number near 2^63 where there is no limit."""


def _limit(two: str, one: str) -> int | None:
    """A limit of this control group: the file of version 2, or else of version 1; None without a limit."""
    text = read_text(f"/sys/fs/cgroup/{two}") or read_text(f"/sys/fs/cgroup/{one}")
    if text is None or text.strip() == "max":
        return None
    value = int(text)
    return None if value >= _V1_UNLIMITED else value


def _memory_swap(memory: int | None) -> int | None:
    """Memory and swap together; where the machine has no swap, memory is all there is."""
    if memory is None or psutil.swap_memory().total == 0:
        return memory
    if (swap := _limit("memory.swap.max", "")) is not None:
        return memory + swap
    return _limit("memory.memsw.limit_in_bytes", "memory/memory.memsw.limit_in_bytes")


def _status() -> dict[str, str]:
    lines = (read_text("/proc/self/status") or "").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def confinement() -> Confinement | None:
    """The limits of this process; None where /proc does not tell (not Linux)."""
    if platform.system() != "Linux":
        return None
    status = _status()
    memory, quota = _limit("memory.max", "memory/memory.limit_in_bytes"), cpu_quota()
    return Confinement(
        user=os.getuid(),
        read_only=bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        interfaces=tuple(sorted(path.name for path in Path("/sys/class/net").glob("*"))),
        capabilities=int(status.get("CapEff", "0"), 16) | int(status.get("CapBnd", "0"), 16),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        seccomp=status.get("Seccomp") == "2",
        pids=_limit("pids.max", "pids/pids.max"),
        memory_bytes=memory,
        memory_swap_bytes=_memory_swap(memory),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        quota_us=quota[0] if quota else None,
        period_us=quota[1] if quota else None,
    )
