"""One real run, shared by the tests that look at what it left."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from matrix.run import run
from tests.real.tiny import Silent, request, targets


class Finished(NamedTuple):
    """A run that ended: its root folder, its bundle, and what its watcher was told."""

    root: Path
    bundle: Path
    watcher: Silent


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tiny run of the CPU target on this machine."""
    root, watcher = tmp_path_factory.mktemp("run"), Silent()
    return Finished(root, run(request(root), targets(), watcher), watcher)
