"""What a launch's process says before its first cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix import plugin
from matrix.job import Folders, Job, WorkloadSpec
from matrix.sample import Battery, Canary
from matrix.workloads import canary, clock
from matrix.workloads.launch import Launch
from tests.making import RAW, RIGHT_CLOCK, prepared, profiles

ASKED = Battery(device="cpu", canaries=(Canary(name="argmax", error=0.0, limit=0.0),))


@pytest.mark.parametrize(("emulates", "battery"), [(False, ASKED), (True, None)])
def test_a_client_of_functions_has_no_device_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, emulates: bool, battery: Battery | None
) -> None:
    """Everyone else asks before the clock is tested; the run's nonce is given back by both."""
    asked: list[str] = []
    monkeypatch.setattr(canary, "ask", lambda device: asked.append(f"canaries of {device}") or ASKED)
    monkeypatch.setattr(clock, "check", lambda device: asked.append(f"clock of {device}") or RIGHT_CLOCK)
    job = Job(
        target="cpu-openvino",
        device="cpu",
        profile=profiles().of("quick"),
        spec=WorkloadSpec(),
        suite_sha256="s",
        cells=(RAW,),
        folders=Folders(cache=str(tmp_path), out=str(tmp_path)),
        threads=1,
        launch=1,
        prepared=prepared(),
        emulates=emulates,
        nonce="n",
    )
    facts = plugin._facts(Launch(job))
    assert (facts.battery, facts.nonce) == (battery, "n")
    assert asked == ([] if emulates else ["canaries of cpu"]) + ["clock of cpu"]
