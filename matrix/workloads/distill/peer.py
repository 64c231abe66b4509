"""Rank 1 as rank 0 sees it: a child process at the end of a line, told what to do and heard when it is done.

It dies with its parent, however that ends (Linux), or at the line's end; what ends it is raised here, never waited for.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from typing import Final

from matrix.errors import IncompleteError

DONE: Final = b""
"""What rank 1 answers when it has done what it was told; anything else is its error."""

PATIENCE_S: Final = 60
"""How long a collective, or an answer of rank 1, may take before the run is given up."""

_GRACE_S: Final = 5
_CHILD: Final = """
import sys
from matrix.orphans import die_with
die_with(int(sys.argv[1]))
from matrix.workloads.distill.ranks import follow
follow(int(sys.argv[2]))
"""


class Peer:
    """Rank 1, seen from rank 0."""

    def __init__(self) -> None:
        self._line, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, by this interpreter
                [sys.executable, "-c", _CHILD, str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self.waits = False
        """Whether it waits to be told something, and has ended nothing badly."""
        self._leaves = False

    def tell(self, what: object) -> None:
        """Tell it what to do.

        Raises:
            IncompleteError: it has ended.
        """
        self.waits = False
        try:
            self._line.send_bytes(pickle.dumps(what))
        except OSError:
            self.heard()
            raise

    def heard(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until it has done what it was told, or stands ready.

        Raises:
            IncompleteError: it failed, was killed, or took longer.
        """
        if not self._line.poll(patience_s):
            raise IncompleteError(
                f"rank 1 has not answered for {patience_s} s",
                remedy="run the launch again on a machine that is not stuck",
            )
        try:
            said = self._line.recv_bytes().decode()
        except (EOFError, OSError):
            said = f"exit code {self.process.wait()}"
        if said:
            raise IncompleteError(
                f"rank 1 ended ({said})", remedy="its traceback, if it left one, is on standard error"
            )
        self.waits = True

    def blame(self) -> None:
        """After an error here in the middle of both ranks' doing: raise rank 1's end if that was the cause."""
        if self._line.poll(_GRACE_S):
            self.heard()

    def dismiss(self) -> None:
        """Let it go; in the middle of something that it may never end, kill it."""
        if self.waits:
            with suppress(OSError):
                self._line.send_bytes(b"")
                self._leaves = True
        if not self._leaves:
            self.process.kill()
        self.waits = False

    def reap(self) -> None:
        """Leave nothing of it running."""
        if not self._leaves:
            self.process.kill()
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._line.close()
