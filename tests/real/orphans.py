"""Waits for processes that are nobody's children any more."""

from __future__ import annotations

import time

import psutil


def ended(process: psutil.Process, within_s: float) -> bool:
    """Whether it ends in time; as a zombie it has ended, and stays one where nobody reaps orphans (a container without an init)."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False
