"""Prints what this Python has installed, as JSON: a program of its own, for images that hold nothing of the matrix.

Distributions with version, licence and the bytes of their files; Debian packages as dpkg's status file lists them.
"""

import json
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

_LONGEST_NAME = 80
"""A longer "License" field holds the licence's text and no name."""


def _licence(found: Distribution) -> str:
    """The licence expression (PEP 639), or what older metadata say."""
    told = found.metadata
    classified = [one.rsplit(" :: ", 1)[-1] for one in told.get_all("Classifier") or [] if one.startswith("License ::")]
    short = (told["License"] or "").strip()
    return (
        told["License-Expression"]
        or " and ".join(classified)
        or (short if "\n" not in short and len(short) < _LONGEST_NAME else "")
    )


def _bytes(found: Distribution) -> int:
    """Bytes of the distribution's files that are there: an image may have been pruned."""
    paths = (Path(str(found.locate_file(file))) for file in found.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def python() -> list[dict[str, object]]:
    """Every installed distribution, by name."""
    rows = {
        found.metadata["Name"].lower(): {
            "name": found.metadata["Name"],
            "version": found.version,
            "licence": _licence(found),
            "bytes": _bytes(found),
        }
        for found in distributions()
    }
    return [rows[name] for name in sorted(rows)]


def debian(status: Path = Path("/var/lib/dpkg/status")) -> list[dict[str, str]]:
    """Every Debian package; none where the image has no dpkg."""
    if not status.is_file():
        return []
    found = []
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" ")
        )
        if "Package" in fields:
            found.append(
                {"name": fields["Package"], "version": fields["Version"], "architecture": fields["Architecture"]}
            )
    return found


if __name__ == "__main__":
    json.dump({"python": python(), "debian": debian()}, sys.stdout)
