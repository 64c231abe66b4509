"""Makes what a run of a target needs: the image where an engine answers, else its packages in this Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from matrix import definitions, images
from matrix.choose import executor_of
from matrix.errors import HostError
from matrix.executors import EXECUTORS
from matrix.target import Executor, Target, Targets


def provide(targets: Targets, name: str, wanted: Executor | None, say: Callable[[str], None]) -> None:
    """Make what the target `name` and the one that prepares for it lack; what is there already is left as it is.

    Raises:
        HostError: this host can run it in no way, or the packages cannot be installed.
        IncompleteError: an image could not be built.
    """
    target = targets.of(name)
    executor = executor_of(target, wanted)
    if executor is None:
        raise HostError(f"this host cannot run {name}", remedy="`matrix doctor` says what is missing")
    if EXECUTORS[executor].unready(target) is not None:
        if executor == "native":
            _install(target, say)
        else:
            images.build(str(target.image), say)
    if target.prepared_by:
        provide(targets, target.prepared_by, None, say)


def _install(target: Target, say: Callable[[str], None]) -> None:
    """The extra of the target's group, into this environment."""
    root = definitions.PACKAGE.parent
    where = [f"--editable={root}[host,{target.group}]"] if (root / "pyproject.toml").exists() else []
    command = [sys.executable, "-m", "pip", "install", "--progress-bar=off"]
    say(f"installing the packages of {target.title}")
    done = subprocess.run([*command, *(where or [f"distill-matrix[host,{target.group}]"])], check=False)  # noqa: S603 - fixed command
    if done.returncode:
        raise HostError("the packages could not be installed", remedy="pip says why above")
