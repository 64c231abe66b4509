"""The project's own definition files and source trees, read from where this package lies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from matrix.bundle import Source
from matrix.canonical import digest, tree_digest
from matrix.errors import DataError

PACKAGE = Path(__file__).parent
_DECIDING = ("matrix", "suites", "images", "pyproject.toml", "tox.ini")
"""What decides a number: a change elsewhere (a README, a report) leaves evidence clean."""


def cache() -> Path:
    """Where this user's students and image records are kept: $MATRIX_CACHE, else the user's cache folder."""
    given = os.environ.get("MATRIX_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "distill-matrix"


def text(name: str) -> str:
    """The definition file `name` of this package (`targets.toml`, for instance)."""
    return (PACKAGE / name).read_text(encoding="utf-8")


def file_text(path: Path) -> str:
    """A definition file of the user's.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read", remedy=f"give a text file that exists ({error})") from None


def variant_sources(names: Iterable[str]) -> dict[str, str]:
    """The source of each variant that has a module of its own name; a runtime is a way to call one of another name."""
    folders = [PACKAGE / "workloads" / kind for kind in ("distill", "export", "serve")]
    paths = [folder / f"{name}.py" for name in names for folder in folders]
    return {path.stem: path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def suites() -> Path:
    """The folder of the suites: beside the package in a checkout, inside it in an installed wheel.

    Raises:
        DataError: they are in neither place.
    """
    for place in (PACKAGE.parent / "suites", PACKAGE / "_suites"):
        if (place / "pytest.ini").is_file():
            return place
    raise DataError("the suites are not installed", remedy="install distill-matrix from its checkout or its wheel")


def suite_digest() -> str:
    """Digest of all source that decides what a measured number means: suites, workloads, plug-in, what it counts with."""
    trees = [*suites().glob("*.py"), suites() / "pytest.ini"]
    workloads = [path for path in (PACKAGE / "workloads").rglob("*") if path.suffix in {".py", ".toml"}]
    deciding = (*workloads, *(PACKAGE / name for name in ("plugin.py", "energy.py", "load.py", "ranks.py", "flops.py")))
    return digest([tree_digest(deciding, PACKAGE), tree_digest(trees, suites())])


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - fixed commands
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def source() -> Source:
    """The code as it lies here now. Without an answer from git there is no commit, and the evidence will not count."""
    top = _git("rev-parse", "--show-toplevel")
    ours = (
        top is not None and Path(top.strip()) == PACKAGE.parent.resolve()
    )  # not a stranger's repository around a venv
    commit = _git("rev-parse", "HEAD") if ours else None
    changed = _git("status", "--porcelain", "--", *_DECIDING) if commit else None
    return Source(
        version=metadata.version("distill-matrix"),
        commit=commit.strip() if commit and changed is not None else None,
        tree=(_git("rev-parse", "HEAD^{tree}") or "").strip() or None if ours else None,
        dirty=tuple(line[3:] for line in (changed or "").splitlines()),
        suite_sha256=suite_digest(),
    )


def measured_by(before: Source) -> Source:
    """What measured a run that began with the source `before` and ends now: a change on the way leaves its tree dirty."""
    now = source()
    moved = (
        []
        if (now.commit, now.suite_sha256) == (before.commit, before.suite_sha256)
        else ["the source itself, meanwhile"]
    )
    return before.model_copy(update={"dirty": tuple(dict.fromkeys([*before.dirty, *now.dirty, *moved]))})
