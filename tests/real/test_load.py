"""Whose work is whose, with real processes."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from matrix.load import LoadMark


def test_the_work_of_a_living_child_is_our_own() -> None:
    """A cold start's process has not ended when its cell's load is read: it is no stranger on this machine."""
    before = LoadMark.now()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        while sum(psutil.Process(child.pid).cpu_times()[:2]) < 0.3:
            time.sleep(0.05)
        spent = before.until_now().cpu_s
        child.kill()
    assert spent >= 0.3
