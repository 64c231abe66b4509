"""Digests: SHA-256 over RFC 8785 canonical JSON, over files, and over trees of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rfc8785


def digest(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """SHA-256 (hex) of `value` in RFC 8785 canonical form.

    Raises:
        rfc8785.CanonicalizationError: the value has no canonical form (NaN, for instance).
    """
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_digest(files: Iterable[Path], root: Path) -> str:
    """SHA-256 (hex) over the relative names and bytes of `files`, in the order of their names."""
    return digest({path.relative_to(root).as_posix(): file_digest(path) for path in sorted(files)})
