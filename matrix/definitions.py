"""The project's own definition files and source trees, read from where this package lies."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, get_args

from matrix.bundle import Source
from matrix.canonical import digest, tree_digest
from matrix.cell import Suite
from matrix.errors import DataError

PACKAGE = Path(__file__).parent
_DECIDING = ("matrix", "suites", "images", "pyproject.toml", "tox.ini")
"""What decides a number: a change elsewhere (a README, a report) leaves evidence clean."""
_COUNTING: Final = ("plugin.py", "energy.py", "load.py", "ranks.py", "flops.py")
"""Modules outside `workloads` with which a suite measures."""
_CALLED_BY_NAME: Final[dict[Suite, tuple[str, ...]]] = {
    "training_step": ("distill",),
    "training_quality": ("distill",),
    "export_accuracy": ("export", "serve"),
    "inference_latency": ("export", "serve"),
    "response_quality": ("language",),
    "generation": ("language",),
    "concurrent_load": ("export", "serve", "language"),
}
"""Packages of `workloads` of which a suite calls every module, by its name: no import statement tells that."""


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
    """Digest of all source that decides what any measured number means: what planned a run is what an image must hold."""
    workloads = [path for path in (PACKAGE / "workloads").rglob("*") if path.suffix in {".py", ".toml"}]
    deciding = (*workloads, *(PACKAGE / name for name in _COUNTING))
    return digest([tree_digest(deciding, PACKAGE), tree_digest(_suite_files(), suites())])


def suite_digests() -> dict[Suite, str]:
    """Digest of the source that decides what a number means, suite by suite: what the suite and the plug-in import of it.

    A change that a suite never reaches (another suite's, a new variant of another one) leaves its evidence what it was.
    """
    read: dict[Path, tuple[Path, ...]] = {}
    return {suite: _digest_of(suite, read) for suite in get_args(Suite)}


def _suite_files() -> list[Path]:
    return [*suites().glob("*.py"), suites() / "pytest.ini"]


def _digest_of(suite: Suite, read: dict[Path, tuple[Path, ...]]) -> str:
    reached = deciding(suite, read)
    own = {path for path in reached if path.parent == suites()}
    return digest([tree_digest(reached - own, PACKAGE), tree_digest(own, suites())])


def deciding(suite: Suite, read: dict[Path, tuple[Path, ...]]) -> set[Path]:
    """Every file that decides what the numbers of `suite` mean; `read` keeps what each file needs, for the next suite."""
    own = [path for path in _suite_files() if path.name in {f"test_{suite}.py", "pytest.ini", "conftest.py"}]
    named = [
        path for folder in _CALLED_BY_NAME.get(suite, ()) for path in (PACKAGE / "workloads" / folder).glob("*.py")
    ]
    reached: set[Path] = set()
    ahead = [PACKAGE / "plugin.py", *own, *named]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            if path not in read:
                read[path] = tuple(_needs(path))
            ahead += read[path]
    return reached


def _needs(path: Path) -> Iterator[Path]:
    """The deciding files that a file needs: modules that it imports, wherever it does, and data of `workloads` that it names."""
    if path.suffix != ".py":
        return
    text = path.read_text(encoding="utf-8")
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update((node.module, *(f"{node.module}.{one.name}" for one in node.names)))
    for name in names:
        place = PACKAGE.parent.joinpath(*name.split("."))
        for found in (place.with_suffix(".py"), place / "__init__.py"):
            deciding = PACKAGE / "workloads" in found.parents or (found.parent == PACKAGE and found.name in _COUNTING)
            if deciding and found.is_file():
                yield found
    yield from (data for data in (PACKAGE / "workloads").glob("*.toml") if f'"{data.name}"' in text)


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
        suites=suite_digests(),
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
