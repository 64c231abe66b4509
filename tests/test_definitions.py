"""Which code measured: said before the first launch, and compared after the last."""

from __future__ import annotations

import pytest

from matrix import definitions
from matrix.bundle import Source

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
