"""Processes that outlive whoever waits for them. Standard library only: a cold start pays for what it imports."""

from __future__ import annotations

import ctypes
import os
import platform
import signal

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which started it, dies: a killed run measures no more (Linux)."""
    if platform.system() == "Linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)
