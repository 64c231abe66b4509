"""What a host tells of others on its GPU, and what it keeps to itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from matrix import host

LISTED = """GPU-1, /usr/bin/python3
GPU-2, /opt/other
GPU-1, [Not Found]
GPU-1, python /home/me/train.py, --fast"""


@pytest.mark.parametrize(
    ("listed", "found"),
    [(LISTED, ("python3", "[Not Found]", "python")), ("", ()), (None, None)],
)
def test_who_computes_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, listed: str | None, found: tuple[str, ...] | None
) -> None:
    """By name, without folders and arguments, those of this GPU alone; nobody is not the same as not told."""
    monkeypatch.setattr(host, "_output", lambda *_: listed)
    assert host.gpu_processes("GPU-1") == found


def test_evidence_names_no_folder_of_this_machine() -> None:
    """The environment's, the working one and the user's."""
    text = f"{sys.prefix}/lib/x.py {Path.cwd()}/y.py {Path.home()}/z.py"
    for private in (sys.prefix, str(Path.cwd())):
        assert private not in host.without_paths(text)
    assert "<env>/lib/x.py" in host.without_paths(text)
