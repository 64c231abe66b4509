"""How a target would run on this host: in containers where an engine answers, natively where none does, nowhere else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from matrix import choose, engine, host
from matrix.errors import HostError
from matrix.executors import EXECUTORS, native
from matrix.sample import HostClass
from matrix.target import Expectation
from tests.making import HOST, targets

CPU = targets().of("cpu-openvino")
NONE = "needs a Docker engine (no Docker engine answers)"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host is what every target expects; its engine and its packages are the tests' to say."""
    monkeypatch.setattr(host, "mismatches", lambda _: [])
    monkeypatch.setattr(engine, "is_far", lambda: False)
    monkeypatch.setattr(native, "unready", lambda _: None)


def with_engine(monkeypatch: pytest.MonkeyPatch, *, image: str | None = None) -> None:
    """An engine answers, whose images are stale for this reason."""
    for name in ("docker", "emulator"):
        monkeypatch.setattr(EXECUTORS[name], "missing", lambda _: None)  # type: ignore[index]
        monkeypatch.setattr(EXECUTORS[name], "unready", lambda _: image)  # type: ignore[index]


def test_containers_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an engine answers; unless native is asked for."""
    with_engine(monkeypatch)
    assert choose.executor_of(CPU) == "docker"
    assert choose.executor_of(CPU, "native") == "native"
    assert choose.how(CPU, "docker") == "in containers of the image cpu-openvino"


def test_without_an_engine_it_runs_natively_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason stands in what the run says."""
    monkeypatch.setattr(engine, "lacking", lambda *_, **__: NONE)
    assert choose.executor_of(CPU) == "native"
    assert choose.how(CPU, "native") == f"natively, without an image ({NONE})"


def test_a_stale_image_is_no_reason_to_run_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail closed: it names what to build, and does not measure something else in silence."""
    with_engine(monkeypatch, image="needs its image cpu-openvino (not built: `matrix build`)")
    with pytest.raises(HostError, match="not built"):
        choose.choose(targets(), "cpu")
    assert choose.choose(targets(), "cpu", environment=False)[0] == "cpu-openvino"


def test_a_function_needs_its_image_and_the_one_that_prepares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are asked for at once."""
    with_engine(monkeypatch, image="stale")
    assert choose.obstacles(targets(), "lambda-x86") == ["stale", "stale"]
    assert choose.obstacles(targets(), "lambda-x86", "native") == ["runs by emulator, not by native"]


def test_an_engine_far_away_is_asked_and_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac may drive a Linux host; natively it would be refused."""
    with_engine(monkeypatch)
    monkeypatch.setattr(host, "mismatches", lambda _: ["needs Linux on x86_64 (this host is Darwin on arm64)"])
    assert choose.obstacles(targets(), "cpu-openvino") != []
    monkeypatch.setattr(engine, "is_far", lambda: True)
    assert choose.obstacles(targets(), "cpu-openvino") == []


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        (Expectation(system="Linux", machine="x86_64", cpu_flags=("avx2",)), []),
        (Expectation(system="Linux", machine="aarch64"), ["it ran on x86_64"]),
        (Expectation(system="Linux", machine="x86_64", cpu_flags=("amx_int8",)), ["its CPU lacks amx_int8"]),
        (
            Expectation(system="Linux", machine="x86_64", gpu_name="NVIDIA A100*"),
            ["its GPUs are NVIDIA H200, not 'NVIDIA A100*'"],
        ),
    ],
)
def test_another_machine_than_expected_is_found_out_afterwards(expect: Expectation, says: list[str]) -> None:
    """An H200 never lands in the A100's column, wherever its engine is."""
    ran: HostClass = HOST.model_copy(update={"gpus": ("NVIDIA H200",)})
    assert ran.differs(expect) == says


def test_a_gpu_needs_nvidias_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with a sentence before anything is started."""
    info = {"Runtimes": {"runc": {}}, "OSType": "linux"}
    monkeypatch.setattr(engine, "connect", lambda: SimpleNamespace(info=lambda: info))
    assert "nvidia-container-toolkit" in (engine.lacking("linux/amd64", gpu=True) or "")
    assert engine.lacking("linux/amd64", gpu=False) is None
    info["Runtimes"]["nvidia"] = {}  # type: ignore[index]
    assert engine.lacking("linux/amd64", gpu=True) is None
