"""What a run does around its launches: whose GPU it asks about, and the nonce that it draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix import definitions, engine, host, images
from matrix.host import Gpu
from matrix.job import End, Order, Watch, WorkloadSpec
from matrix.run import EXECUTORS, Request, Runner, _begun
from matrix.store import Store
from matrix.target import Executor
from tests.making import IMAGE, evidence, profiles, targets
from tests.real.tiny import Silent


def request(root: Path, target: str, executor: Executor) -> Request:
    """A quick run below `root`."""
    return Request(target, profiles().of("quick"), WorkloadSpec(), Store(root), root / "cache", executor=executor)


def runner(root: Path, target: str, executor: Executor) -> Runner:
    """A run of the target that has begun."""
    asked = request(root, target, executor)
    return Runner(asked, targets(), _begun(asked, target, targets().of(target), Silent()), Silent())


@pytest.fixture(autouse=True)
def _one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with one GPU on which somebody computes, an image that is current, and an engine that is here."""
    monkeypatch.setattr(host, "gpu_for", lambda pattern: Gpu("GPU-1", pattern))
    monkeypatch.setattr(host, "gpu_processes", lambda uuid: (f"python on {uuid}",))
    monkeypatch.setattr(definitions, "source", lambda: evidence().bundle.source)
    monkeypatch.setattr(images, "current", lambda _: IMAGE)
    monkeypatch.setattr(engine, "is_far", lambda: False)


def test_a_launch_asks_who_else_is_on_its_gpu(tmp_path: Path) -> None:
    """In a container or not; a target without a GPU asks nothing."""
    for executor in ("native", "docker"):
        assert runner(tmp_path, "cuda-h200", executor)._foreign_gpu() == ("python on GPU-1",)
    assert runner(tmp_path, "cpu-openvino", "native")._foreign_gpu() is None


def test_a_far_engines_gpu_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU of this host is not the one that is measured; a native launch runs here whatever DOCKER_HOST says."""
    monkeypatch.setattr(engine, "is_far", lambda: True)
    assert runner(tmp_path, "cuda-h200", "docker")._foreign_gpu() is None
    assert runner(tmp_path, "cuda-h200", "native")._foreign_gpu() == ("python on GPU-1",)


def test_a_gpu_that_is_not_found_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no answer."""
    monkeypatch.setattr(host, "gpu_for", lambda _: None)
    assert runner(tmp_path, "cuda-h200", "native")._foreign_gpu() is None


def test_every_run_draws_a_nonce_and_its_jobs_carry_it(tmp_path: Path) -> None:
    """128 bits, different each time."""
    runs = [runner(tmp_path, "cpu-openvino", "native") for _ in range(2)]
    nonces = [run.state.nonce for run in runs]
    assert [len(bytes.fromhex(nonce)) for nonce in nonces] == [16, 16]
    assert nonces[0] != nonces[1]
    assert [run._job(tmp_path, 1, None).nonce for run in runs] == nonces


@pytest.mark.parametrize("policy", [None, "PASSIVE"])
def test_a_container_waits_as_its_host_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str | None
) -> None:
    """OMP_WAIT_POLICY reaches a launch that inherits no environment, and nothing is said where the user said nothing."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    given: list[Order] = []

    class Executes:
        """Runs nothing."""

        def execute(self, order: Order, _: Watch) -> End:
            """Remember the order."""
            given.append(order)
            return End(exit_code=0, timed_out=False, seconds=0.0)

    run = runner(tmp_path, "cpu-openvino", "docker")
    job = run._job(tmp_path, 1, None)
    monkeypatch.setitem(EXECUTORS, "docker", Executes())
    run._execute(job, tmp_path, {}, 1.0)
    assert given[0].variables.get("OMP_WAIT_POLICY") == policy
