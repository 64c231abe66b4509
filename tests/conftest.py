"""What every test shares: unit tests cannot start processes or reach the network, and a missing tool skips with its reason."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from matrix import engine

settings.register_profile("same everywhere", deadline=None, derandomize=True, database=None)
settings.load_profile("same everywhere")
"""A property holds for the same examples on a busy machine and on a quiet one, and a run leaves nothing behind."""

REQUIRED = frozenset(filter(None, os.environ.get("MATRIX_REQUIRE", "").split(",")))
"""Tools whose tests must fail rather than skip where the tool is missing: CI sets it, a user's machine does not."""

_REAL = Path(__file__).parent / "real"


def _lacking() -> dict[str, str]:
    """What tests of each marker lack on this machine."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    llama = all(map(find_spec, ("llama_cpp", "gguf")))
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        docker = engine.lacking("linux/amd64", gpu=False)
        gc.collect()  # docker 7.2 leaves a refused connection's socket to the collector: some test would be blamed for it
    found = {
        "browser": None if browser else "no Chromium here",
        "engine": docker,
        "llama": None if llama else "no llama-cpp-python here: `tox -x testenv:tests.extras+=llama` compiles it",
    }
    return {marker: reason for marker, reason in found.items() if reason and marker not in REQUIRED}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; never where MATRIX_REQUIRE asks for it."""
    for marker, reason in _lacking().items():
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"{reason} (MATRIX_REQUIRE={marker} makes this a failure)"))


@pytest.fixture(autouse=True)
def _own_keys(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees or makes a key of the user's."""
    monkeypatch.setenv("MATRIX_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _hands_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside tests/real, a process or a connection is a mistake of the test."""
    if request.path.is_relative_to(_REAL):
        return

    def refuse(what: str) -> Callable[..., None]:
        def refused(*_: object, **__: object) -> None:
            pytest.fail(f"a unit test tried to {what}; tests that do belong in tests/real")

        return refused

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse("start a process"))
    monkeypatch.setattr(socket.socket, "connect", refuse("connect"))
