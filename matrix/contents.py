"""Reads what a bundle's files hold: the samples of its launches and its arrays, both at the border.

Refuses an array that is not the bytes which its header declares, and never allocates what a header only claims; a sample that
no clock can show; a cell that is measured twice in one launch; outputs that no file holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from matrix.bundle import Bundle, Measured
from matrix.errors import DataError
from matrix.job import BENCHMARK
from matrix.sample import CellEvidence, LaunchRecord
from matrix.strict import Strict, parse_json

Seconds = Annotated[float, Field(gt=1e-12, lt=1e9)]
"""What a clock can show: between a picosecond and thirty years, so that no ratio of two of them over- or underflows."""

Arrays = Mapping[str, npt.NDArray[Any]]


class _Stats(Strict):
    model_config = ConfigDict(extra="ignore")

    data: tuple[Seconds, ...] = Field(min_length=1)


class _Extra(Strict):
    matrix: CellEvidence  # matrix.sample.EXTRA


class _Entry(Strict):
    model_config = ConfigDict(extra="ignore")

    stats: _Stats
    extra_info: _Extra


class _Benchmarks(Strict):
    """pytest-benchmark's JSON, as far as we read it."""

    model_config = ConfigDict(extra="ignore")

    benchmarks: tuple[_Entry, ...]


_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype><f[248]|<i[48])', 'fortran_order': (?P<fortran>False|True), "
    rb"'shape': \((?P<shape>\d{1,12}(?:, \d{1,12}){0,3}),?\), \} *\n",
    re.DOTALL,
)
"""The header that `numpy.save` writes for plain numbers (NEP 1, version 1.0): no pickle, no structure, no Python to evaluate."""


def array_of(data: bytes, where: str) -> npt.NDArray[Any]:
    """The array in `data`, a `.npy` file of plain numbers.

    Raises:
        DataError: it is none, or not of the size that it declares.
    """
    found = _HEADER.match(data)
    if not found or found.end() != 10 + int.from_bytes(found["length"], "little"):
        raise DataError(f"{where} is no array of plain numbers", remedy="restore it, or measure again")
    dtype, shape = np.dtype(found["dtype"].decode()), tuple(map(int, found["shape"].split(b", ")))
    if len(data) - found.end() != math.prod(shape) * dtype.itemsize:
        raise DataError(f"{where} is not of the size that it declares", remedy="restore it, or measure again")
    flat = np.frombuffer(data, dtype, offset=found.end())
    return flat.reshape(shape, order="F" if found["fortran"] == b"True" else "C")


def arrays(folder: Path, bundle: Bundle) -> Arrays:
    """Every array of the bundle in `folder`, by the digest that is its name.

    Raises:
        DataError: a file is no array.
    """
    names = [name for name in bundle.files if name.startswith("outputs/")]
    return {Path(name).stem: array_of((folder / name).read_bytes(), name) for name in names}


def measured(folder: Path, bundle: Bundle, held: Arrays) -> dict[tuple[str, int], Measured]:
    """What each launch measured, by cell and launch; `held` are the bundle's arrays.

    pytest-benchmark also keeps the samples of a cell that failed after its clock ran: those are left out.

    Raises:
        DataError: a launch's file is none, or contradicts itself or the arrays.
    """
    found: dict[tuple[str, int], Measured] = {}
    for record in bundle.launches:
        for one in _of_launch(folder, record):
            key = one.evidence.cell.id, record.index
            if key in found:
                raise DataError(f"{key[0]} is measured twice in launch {record.index}", remedy="measure again")
            found[key] = one
    _check_outputs([one.evidence for one in found.values()], held)
    return found


def _of_launch(folder: Path, record: LaunchRecord) -> Iterator[Measured]:
    name = f"launches/{record.index:02d}/{BENCHMARK}"
    if not (folder / name).exists():
        return
    kept = {outcome.cell for outcome in record.outcomes if outcome.state == "measured"}
    for entry in parse_json(_Benchmarks, (folder / name).read_bytes(), name).benchmarks:
        if entry.extra_info.matrix.cell.id in kept:
            yield Measured(np.array(entry.stats.data, dtype=np.float64), entry.extra_info.matrix)


def _check_outputs(cells: list[CellEvidence], held: Arrays) -> None:
    """Logits (and what else a suite keeps) are examples x columns, as many in a suite's cells; labels are one an example."""
    classes: dict[tuple[str, str], int] = {}
    for one in cells:
        for name in filter(None, (one.outputs, one.labels)):
            if name not in held:
                raise DataError(f"{one.cell.id} names outputs/{name}.npy, which is not here", remedy="restore it")
        if one.outputs is None or one.labels is None:
            continue
        logits, labels = held[one.outputs], held[one.labels]
        whole = logits.ndim == 2 and 0 not in logits.shape and logits.dtype.kind == "f"  # noqa: PLR2004 - a table
        if not whole or labels.dtype.kind != "i" or labels.shape != logits.shape[:1]:
            raise DataError(f"the outputs of {one.cell.id} are no logits with a label each", remedy="measure again")
        if classes.setdefault((one.cell.suite, one.cell.workload), logits.shape[1]) != logits.shape[1]:
            raise DataError(f"the outputs of {one.cell.id} have other classes than its suite's", remedy="measure again")
