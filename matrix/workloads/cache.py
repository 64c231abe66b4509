"""What was made is kept under the digest of its inputs: a changed input has another key, an equal one is never made twice.

Everything is written beside its place and renamed into it, so a killed process leaves no half student.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from matrix.job import CacheKind


class Cache:
    """A folder of made things; a thing's folder appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: CacheKind, key: str) -> Path:
        """Where `kind` is kept under `key`."""
        return self.root / kind / key

    def keep(self, place: Path, make: Callable[[Path], None]) -> bool:
        """Fill `place` by `make` unless it exists; True when it did."""
        if place.exists():
            return True
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        make(beside)
        for path in beside.rglob("*"):
            if (
                path.is_file()
            ):  # safetensors 0.8.0 writes 0600 whatever the umask: another user of an image could not read
                path.chmod(0o644)
        try:
            beside.rename(place)
        except OSError:  # another process made the same meanwhile
            if not place.exists():
                raise
            shutil.rmtree(beside)
        return False


def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Installed versions of `packages`; None for one that is absent."""

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {package: version(package) for package in packages}
