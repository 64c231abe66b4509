"""Joules that this machine counts itself: RAPL's of its CPU packages, NVML's of its GPUs. None where it does not tell.

RAPL counts a whole package, whoever keeps it busy: what disturbs a time disturbs an energy too. Where several packages are
and one cannot be read, none is told: a part would pass for the whole. Most systems let only root read RAPL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from matrix.host import read_text

POWERCAP: Final = Path("/sys/class/powercap")
"""Linux' powercap interface (Documentation/power/powercap/powercap.rst); AMD's packages are in it under Intel's name."""


class Counter(NamedTuple):
    """A package's counter in microjoules; after `largest` it begins again at 0."""

    value: int
    largest: int

    def since(self, before: Counter) -> int:
        """Microjoules since `before`, over which the counter began anew at most once (some minutes at full power)."""
        spent = self.value - before.value
        return spent if spent >= 0 else spent + self.largest


@dataclass(frozen=True)
class EnergyMark:
    """A moment's counters; None: not told."""

    packages: Mapping[str, Counter] | None
    gpus_j: float | None

    @classmethod
    def now(cls, gpus: Sequence[str] = (), root: Path = POWERCAP) -> EnergyMark:
        """The counters of every CPU package, and of the GPUs with these UUIDs."""
        return cls(_packages(root), _gpus_j(gpus))

    def until(self, end: EnergyMark) -> dict[str, float | None]:
        """Joules from this mark to `end`, by metric name."""
        cpu = gpu = None
        if self.packages and end.packages and self.packages.keys() == end.packages.keys():
            cpu = sum(end.packages[name].since(before) for name, before in self.packages.items()) / 1e6
        if self.gpus_j is not None and end.gpus_j is not None:
            gpu = end.gpus_j - self.gpus_j
        return {"cpu_energy_j": cpu, "gpu_energy_j": gpu}


def _packages(root: Path) -> dict[str, Counter] | None:
    """Every package's counter. Their zones (core, dram) are parts of them or not everywhere told; `psys` holds them all."""
    found = {}
    for place in sorted(root.glob("intel-rapl:*")):
        name = (read_text(str(place / "name")) or "").strip()
        if not name.startswith("package-"):
            continue
        told = [(read_text(str(place / file)) or "").strip() for file in ("energy_uj", "max_energy_range_uj")]
        if not all(number.isdecimal() for number in told):
            return None
        found[name] = Counter(*map(int, told))
    return found or None


@cache
def _nvml() -> Any:  # noqa: ANN401 - a C library
    """NVIDIA's management library; None without its driver. By ctypes: torch 2.13 does not bring nvidia-ml-py."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None


def _gpus_j(uuids: Sequence[str]) -> float | None:
    """Joules of these GPUs since their driver was loaded; None where one does not tell (before Volta; a MIG slice)."""
    library = _nvml() if uuids else None
    if library is None:
        return None
    total = 0
    for uuid in uuids:
        device, spent = ctypes.c_void_p(), ctypes.c_ulonglong()
        if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)):
            return None
        if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(spent)):  # millijoules
            return None
        total += spent.value
    return total / 1e3
