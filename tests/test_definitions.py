"""Which code measured: said before the first launch, and compared after the last."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import pytest

from matrix import definitions
from matrix.bundle import Source
from matrix.cell import LANGUAGE, TRAINING, Suite

BEFORE = Source(version="0.1.0", commit="a" * 40, dirty=(), suite_sha256="s" * 64)


@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        ({}, ()),
        ({"commit": "b" * 40}, ("the source itself, meanwhile",)),
        ({"suite_sha256": "t" * 64}, ("the source itself, meanwhile",)),
        ({"dirty": ("matrix/x.py",)}, ("matrix/x.py",)),
        ({"commit": None}, ("the source itself, meanwhile",)),
    ],
)
def test_a_change_while_measuring_leaves_the_tree_dirty(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], dirty: tuple[str, ...]
) -> None:
    """A commit in the middle of a run did not measure its first half."""
    monkeypatch.setattr(definitions, "source", lambda: BEFORE.model_copy(update=change))
    found = definitions.measured_by(BEFORE)
    assert (found.commit, found.dirty) == (BEFORE.commit, dirty)


def test_a_tree_that_was_dirty_at_the_beginning_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Committing before --resume cleans nothing."""
    monkeypatch.setattr(definitions, "source", lambda: BEFORE)
    assert definitions.measured_by(BEFORE.model_copy(update={"dirty": ("x.py",)})).dirty == ("x.py",)


@pytest.mark.parametrize(
    ("answers", "commit", "dirty"),
    [
        (
            {"rev-parse --show-toplevel": str(definitions.PACKAGE.parent), "rev-parse HEAD": "c" * 40, "status": ""},
            "c" * 40,
            (),
        ),
        (
            {
                "rev-parse --show-toplevel": str(definitions.PACKAGE.parent),
                "rev-parse HEAD": "c" * 40,
                "status": " M a.py\n",
            },
            "c" * 40,
            ("a.py",),
        ),
        (
            {"rev-parse --show-toplevel": str(definitions.PACKAGE.parent), "rev-parse HEAD": "c" * 40, "status": None},
            None,
            (),
        ),
        ({"rev-parse --show-toplevel": "/somebody/else", "rev-parse HEAD": "c" * 40, "status": ""}, None, ()),
        ({"rev-parse --show-toplevel": None}, None, ()),
    ],
    ids=["clean", "dirty", "git fails", "a stranger's repository", "no repository"],
)
def test_without_an_answer_from_git_no_commit_is_claimed(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, str | None], commit: str | None, dirty: tuple[str, ...]
) -> None:
    """Evidence without a commit never counts."""
    monkeypatch.setattr(
        definitions,
        "_git",
        lambda *arguments: next((a for key, a in answers.items() if " ".join(arguments).startswith(key)), None),
    )
    found = definitions.source()
    assert (found.commit, found.dirty) == (commit, dirty)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all that decides numbers, which a test may change."""
    package = definitions.PACKAGE
    shutil.copytree(package, tmp_path / "matrix", ignore=shutil.ignore_patterns("__pycache__", "report", "commands"))
    shutil.copytree(definitions.suites(), tmp_path / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(definitions, "PACKAGE", tmp_path / "matrix")
    return tmp_path


EXPORTED: tuple[Suite, ...] = ("export_accuracy", "inference_latency", "concurrent_load")


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ("matrix/workloads/distill/fast_loop.py", TRAINING),
        ("matrix/workloads/distill/a_new_stack.py", TRAINING),
        (
            "matrix/workloads/mangaassist.toml",
            (*TRAINING, *LANGUAGE),
        ),  # what a student is trained on; an evaluation names its examples
        ("matrix/workloads/training.py", ("training_step",)),
        ("matrix/workloads/export/onnx_int8.py", EXPORTED),
        ("matrix/workloads/serve/openvino_cpu.py", EXPORTED),
        ("matrix/workloads/planted.py", ("quantization_schemes",)),
        ("matrix/workloads/language/gguf.py", LANGUAGE),
        ("matrix/workloads/replicas.py", ("concurrent_load",)),
        ("suites/test_packaging.py", ("packaging",)),
        ("suites/pytest.ini", get_args(Suite)),
        ("suites/conftest.py", get_args(Suite)),
        ("matrix/workloads/launch.py", get_args(Suite)),
        ("matrix/plugin.py", get_args(Suite)),
        ("matrix/load.py", get_args(Suite)),
        ("matrix/workloads/a_new_study.py", ()),
        ("matrix/gates.py", ()),
    ],
)
def test_a_change_is_of_the_suites_that_it_reaches(copied: Path, changed: str, stale: tuple[Suite, ...]) -> None:
    """Hours of measured training are not lost to a new export; what all share changes all."""
    before = definitions.suite_digests()
    with (copied / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    now = definitions.suite_digests()
    assert {suite for suite in now if now[suite] != before[suite]} == set(stale)


def test_what_only_prepares_and_what_commands_call_is_all_that_no_suite_reaches() -> None:
    """A module whose use no import statement tells must not fall out of every digest unseen."""
    read: dict[Path, tuple[Path, ...]] = {}
    reached = {path for suite in get_args(Suite) for path in definitions.deciding(suite, read)}
    workloads = definitions.PACKAGE / "workloads"
    left = {path.relative_to(workloads).as_posix() for path in workloads.rglob("*.py")} - {
        path.relative_to(workloads).as_posix() for path in reached if workloads in path.parents
    }
    assert left == {"prepare.py"}
