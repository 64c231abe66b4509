"""The packaging cells: what is installed where a launch runs (or in the function's image), and what its imports cost."""

from __future__ import annotations

import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from matrix.catalog import variant
from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.sample import INVENTORY, Inventory
from matrix.strict import parse_json
from matrix.workloads import inventory as program
from matrix.workloads.launch import Launch

_CAUSES: Final = 12
"""Distributions whose bytes are noted: enough to name what makes an image large."""

_TIMED: Final = "import sys, time; t = time.perf_counter(); import {}; sys.stdout.write(str(time.perf_counter() - t))"


def module_of(cell: Cell) -> str | None:
    """The module that an import cell imports; None for the image."""
    return variant(cell.suite, cell.variant).module


def _python(launch: Launch, *arguments: str) -> str:
    """What a new Python prints: of the function's image where the launch is a client, else this one."""
    if launch.job.emulates:
        return launch.functions.run_python(*arguments)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode:
        raise EvidenceError("a program of this image failed", remedy=done.stderr[-1_500:])
    return done.stdout


def import_seconds(module: str, launch: Launch) -> float:
    """How long a new process takes to import `module`, by its own clock; files are in the page cache."""
    return float(_python(launch, "-c", _TIMED.format(module)))


def inventory(launch: Launch) -> Inventory:
    """What is installed; kept in the launch's folder for the SBOM."""
    found = parse_json(Inventory, _python(launch, "-c", Path(program.__file__).read_text(encoding="utf-8")), INVENTORY)
    launch.append(INVENTORY, found)
    return found


def facts(found: Inventory, launch: Launch) -> dict[str, float | None]:
    """Sizes, counts, build times and the age of the base (seconds); the largest distributions by bytes."""
    image, model = launch.image, _model_bytes(launch)
    largest = sorted(found.python, key=lambda one: one.bytes, reverse=True)[:_CAUSES]
    age = datetime.now(UTC) - datetime.fromisoformat(image.base_created) if image.base_created else None
    return {
        "image_bytes": image.bytes + model[0],
        "compressed_bytes": image.compressed_bytes + model[1],
        "layers": len(image.layers) + bool(model[0]),
        "packages": len(found.python) + len(found.debian),
        "cold_build_s": image.cold_build_s,
        "warm_build_s": image.warm_build_s,
        "base_age_s": age.total_seconds() if age else None,
        "bytes:base": image.layers[0].bytes,
        **({"bytes:model": model[0]} if model[0] else {}),
        **{f"bytes:{one.name}": one.bytes for one in largest},
    }


def _model_bytes(launch: Launch) -> tuple[int, int]:
    """Bytes that the function's model adds to its image, plain and deflated; nothing elsewhere."""
    if not launch.job.emulates:
        return 0, 0
    data = [path.read_bytes() for path in launch.functions.model("ort_int8").values()]
    return sum(len(one) for one in data), sum(len(zlib.compress(one)) for one in data)
