"""The first Python process of a container: runs the launch, and ends it when whoever started the container is gone.

The engine closes standard input when its client's connection ends, however that happened (`kill -9` included). Events go to
standard output, everything else that the launch says to standard error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from matrix.job import EVENTS_DESCRIPTOR


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """Run Python with `arguments`; its exit code, or 128 and the number of the signal that killed it."""
    events = os.dup(1)
    process = subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=2,
        stderr=2,
        env={**os.environ, EVENTS_DESCRIPTOR: str(events)},
        pass_fds=(events,),
        start_new_session=True,
    )
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code)  # a thread still waits for input
