"""A bundle: all that one run of one target found. Content-addressed, append-only, complete.

Refuses to exist when planned is not measured plus explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from matrix.canonical import digest
from matrix.cell import Cell, Exclusion, Suite
from matrix.job import Image, Prepared, WorkloadSpec
from matrix.profile import Profile
from matrix.sample import CellEvidence, Inventory, LaunchRecord
from matrix.strict import Moment, Strict

MANIFEST = "bundle.json"
ENVELOPE = "bundle.intoto.json"
"""The signed statement about a bundle, beside its manifest, which lists every other file."""


class FileEntry(Strict):
    """One file of a bundle."""

    sha256: str
    bytes: int


class Source(Strict):
    """The code that measured. `commit` is None outside a checkout; `dirty` lists changed files that decide numbers.

    `tree` is git's digest of the commit's files. `suite_sha256` is of all that could decide a number, `suites` of what decides
    the numbers of each suite.
    """

    version: str
    commit: str | None
    tree: str | None = None
    dirty: tuple[str, ...]
    suite_sha256: str
    suites: dict[Suite, str] = Field(default_factory=dict)


class Bundle(Strict):
    """The manifest: everything but raw samples and outputs, which it names by digest.

    `environment_id`, `host_class_id` and `host_instance` say what a number may be compared with; `nonce` is the run's, which
    each of its launches gives back. Who vouches for a bundle stands beside it (`ENVELOPE`).
    """

    schema_version: Literal[1] = 1
    target: str
    executor: str
    image: Image | None
    created: Moment
    attempt: int
    nonce: str = ""
    profile: Profile
    spec: WorkloadSpec
    prepared: Prepared
    source: Source
    environment_id: str
    host_class_id: str
    host_instance: str
    planned: tuple[Cell, ...]
    excluded: tuple[Exclusion, ...]
    launches: tuple[LaunchRecord, ...]
    files: dict[str, FileEntry]

    @property
    def digest(self) -> str:
        """The bundle's name: SHA-256 of its canonical manifest."""
        return digest(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        planned = [cell.id for cell in self.planned]
        if len(set(planned)) != len(planned):
            raise ValueError("a cell is planned twice")
        indices = [launch.index for launch in self.launches]
        if len(set(indices)) != len(indices):
            raise ValueError("two launches have one number")
        for launch in self.launches:
            told = [outcome.cell for outcome in launch.outcomes]
            if sorted(told) != sorted(launch.order):
                raise ValueError(f"launch {launch.index}: planned cells differ from measured and explained ones")
            unexplained = [o.cell for o in launch.outcomes if o.state != "measured" and not o.error]
            if unexplained:
                raise ValueError(f"launch {launch.index}: {unexplained[0]} is neither measured nor explained")
        ordered = {name for launch in self.launches for name in launch.order}
        if ordered != set(planned):
            raise ValueError("the launches' cells are not the planned cells")
        return self


@dataclass(frozen=True)
class Measured:
    """One cell in one launch: its raw samples in seconds, and its evidence."""

    samples: npt.NDArray[np.float64]
    evidence: CellEvidence


@dataclass(frozen=True)
class Evidence:
    """A bundle as read back: what judgement works on. `faults` name every file that does not match its digest.

    `inventory` is that of the first launch that took one: what its image holds.
    """

    bundle: Bundle
    name: str
    measured: Mapping[tuple[str, int], Measured]
    arrays: Mapping[str, npt.NDArray[Any]]
    faults: tuple[str, ...] = field(default=())
    inventory: Inventory | None = None

    def launches_of(self, cell: str) -> dict[int, Measured]:
        """What each launch measured of the cell with this identifier."""
        return {launch: found for (name, launch), found in self.measured.items() if name == cell}
