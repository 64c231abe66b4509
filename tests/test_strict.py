"""Parsing at the border: faults come with their path and the nearest known key."""

from __future__ import annotations

import pytest

from matrix import definitions
from matrix.errors import DataError, ExitCode
from matrix.profile import Profiles, parse_profiles
from matrix.strict import parse_toml
from matrix.target import parse_targets


def test_an_unknown_key_names_its_path_and_the_nearest_known_one() -> None:
    """A misspelt key deep in a file is told with the path to it."""
    text = definitions.text("targets.toml").replace('title = "NVIDIA A100"', 'titel = "NVIDIA A100"')
    with pytest.raises(DataError) as caught:
        parse_targets(text, "mine.toml")
    assert "mine.toml is not valid" in str(caught.value)
    assert "target.cuda-a100.titel: unknown key, did you mean 'title'?" in str(caught.value)
    assert "target.cuda-a100.title: Field required" in str(caught.value)


def test_a_broken_file_says_where() -> None:
    """A TOML fault keeps its line and column."""
    with pytest.raises(DataError, match=r"mine\.toml is not TOML; mend it at line 2, column 5"):
        parse_toml(Profiles, "a = 1\nb = \n", "mine.toml")


def test_nan_is_refused() -> None:
    """TOML can write nan; a definition cannot mean it."""
    text = definitions.text("profiles.toml").replace("width = 0.05", "width = nan", 1)
    with pytest.raises(DataError, match="finite number"):
        parse_profiles(text)


def test_a_refusal_knows_its_exit_code() -> None:
    """Bad definitions are the user's to mend: usage."""
    assert DataError("x", remedy="y").exit_code is ExitCode.USAGE
