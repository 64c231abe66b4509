"""Joules from counters that begin anew, and none where a part would pass for the whole."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from matrix import energy
from matrix.energy import Counter, EnergyMark


def package(root: Path, number: int, joules: str, *, name: str = "package", largest: int = 262_143_328_850) -> None:
    """A powercap zone that has counted so many microjoules."""
    place = root / f"intel-rapl:{number}"
    place.mkdir(exist_ok=True)
    (place / "name").write_text(f"{name}-{number}\n" if name == "package" else f"{name}\n")
    (place / "energy_uj").write_text(f"{joules}\n")
    (place / "max_energy_range_uj").write_text(f"{largest}\n")


def test_a_counter_that_began_anew_is_no_negative_energy() -> None:
    """From 900 to 100 of 1,000: 200 were spent. Without a wrap it is the difference."""
    assert Counter(100, 1_000).since(Counter(900, 1_000)) == 200
    assert Counter(900, 1_000).since(Counter(100, 1_000)) == 800
    assert Counter(5, 1_000).since(Counter(5, 1_000)) == 0


def test_packages_add_up_and_psys_is_not_added(tmp_path: Path) -> None:
    """Two packages spend 3 J and, over a wrap, 2 J; `psys` holds both and is left out."""
    package(tmp_path, 0, "1000000")
    package(tmp_path, 1, "9000000", largest=10_000_000)
    package(tmp_path, 2, "0", name="psys")
    before = EnergyMark.now(root=tmp_path)
    package(tmp_path, 0, "4000000")
    package(tmp_path, 1, "1000000", largest=10_000_000)
    package(tmp_path, 2, "50000000", name="psys")
    assert before.until(EnergyMark.now(root=tmp_path)) == {"cpu_energy_j": 5.0, "gpu_energy_j": None}


def test_a_package_that_cannot_be_read_leaves_nothing_told(tmp_path: Path) -> None:
    """As where only root may read it: not the sum of the others."""
    package(tmp_path, 0, "1000000")
    package(tmp_path, 1, "1000000")
    before = EnergyMark.now(root=tmp_path)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert before.until(EnergyMark.now(root=tmp_path))["cpu_energy_j"] is None
    assert EnergyMark.now(root=tmp_path / "nowhere").packages is None


class Nvml:
    """NVML's two calls, with ctypes' own references: one GPU that has counted so many millijoules."""

    def __init__(self, millijoules: int, fails: int = 0) -> None:
        self.millijoules, self.fails = millijoules, fails

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, _: object) -> int:  # noqa: N802 - NVML's name
        """Every GPU but this one is unknown (NVML_ERROR_NOT_FOUND)."""
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, _: ctypes.c_void_p, spent: Any) -> int:  # noqa: ANN401, N802 - a reference; NVML's name
        """NVML_ERROR_NOT_SUPPORTED is 3."""
        spent._obj.value = self.millijoules
        return self.fails


def test_a_gpu_tells_millijoules_since_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """1.5 J between two marks; an unknown GPU, or one that does not count, tells nothing."""
    nvml = Nvml(10_000)
    monkeypatch.setattr(energy, "_nvml", lambda: nvml)
    before = EnergyMark.now(["GPU-1"], tmp_path)
    nvml.millijoules = 11_500
    assert before.until(EnergyMark.now(["GPU-1"], tmp_path)) == {"cpu_energy_j": None, "gpu_energy_j": 1.5}
    assert EnergyMark.now(["GPU-1", "GPU-2"], tmp_path).gpus_j is None
    nvml.fails = 3
    assert EnergyMark.now(["GPU-1"], tmp_path).gpus_j is None
