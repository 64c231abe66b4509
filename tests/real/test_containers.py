"""Real containers: the same suites inside them, limits that hold, functions that answer, and every way in which a launch dies."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from matrix import engine, images
from matrix.bundle import Bundle, Evidence
from matrix.errors import HostError
from matrix.executors import docker as executor
from matrix.findings import findings_of
from matrix.job import Event
from matrix.run import Request, failures, run
from matrix.sample import Confinement
from matrix.store import Store, load
from matrix.target import Limits, Targets
from tests.real.tiny import Silent, request, targets

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

ONE = {"launches": 1}


@pytest.fixture(scope="session", autouse=True)
def _images() -> None:
    """The images of this source: the first build takes a minute or two, a later one seconds."""
    for name in ("cpu-openvino", "lambda-amd64", "lambda-arm64"):
        if images.stale(name):
            images.build(name, sys.stderr.write)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all runs here, so that one student is trained; its volume goes with the session."""
    root = tmp_path_factory.mktemp("containers")
    yield root
    engine.connect().volumes.get(executor.cache_volume(root / "cache")).remove(force=True)


@pytest.fixture(scope="session")
def contained(root: Path) -> Evidence:
    """A run of the CPU target in containers."""
    return load(run(request(root, executor="docker", stacks=None, **ONE), targets(), Silent()))


@pytest.fixture(scope="session")
def functions(root: Path, contained: Evidence) -> Evidence:
    """A run of the x86 function, by the student of the run before."""
    return load(run(request(root, target="lambda-x86", executor="emulator", **ONE), targets(), Silent()))


@pytest.fixture(scope="session")
def arm(root: Path, contained: Evidence) -> Evidence:
    """A run of the arm64 function."""
    return load(run(request(root, target="lambda-arm", executor="emulator", **ONE), targets(), Silent()))


def left(store: Store) -> list[str]:
    """Containers, volumes and networks of a store's runs that are still there."""
    client, marked = engine.connect(), {"label": f"{engine.OWNER}={store.owner}"}
    found = [*client.containers.list(all=True, filters=marked), *client.networks.list(filters=marked)]
    return [thing.name for thing in [*found, *client.volumes.list(filters=marked)]]


def test_every_planned_cell_is_measured_in_containers(root: Path, contained: Evidence) -> None:
    """The cells of a native run and the image's own; the bundle names the image that ran."""
    bundle = contained.bundle
    assert failures(bundle.launches) == 0
    assert {cell.id for cell in bundle.planned} == {cell for cell, _ in contained.measured}
    assert bundle.executor == "docker"
    assert bundle.image is not None
    assert {record.image for record in bundle.launches} == {bundle.image.id}
    assert left(Store(root / "reports")) == []


def test_every_limit_is_read_back_from_inside(contained: Evidence) -> None:
    """Not root, nothing writable, no network but loopback, no capability, a memory limit without swap."""
    for record in contained.bundle.launches:
        found = record.confinement
        assert record.asked == found
        assert record.broken == ()
        assert found is not None
        assert found.user != 0
        assert found.interfaces == ("lo",)
        assert found.memory_bytes == found.memory_swap_bytes == 12288 << 20


def test_a_launch_whose_limits_do_not_hold_is_invalid(
    root: Path, contained: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that gives a capability: no number of the launch counts, and the reason names the limit."""
    lax = engine.confined

    def careless(limits: Confinement) -> dict[str, Any]:
        return {**lax(limits), "cap_drop": ["NET_RAW"]}

    monkeypatch.setattr(engine, "confined", careless)
    watcher = Silent()
    found = findings_of(load(run(request(root, executor="docker", **ONE), targets(), watcher)))
    assert all(any(reason.rule == "limits" for reason in finding.faults) for finding in found)
    assert any("capabilities is " in said for said in watcher.said)


def test_the_image_is_described(contained: Evidence) -> None:
    """Sizes by layer, a commit, packages with licences."""
    found = {f.metric: f.value for f in findings_of(contained) if f.cell.variant == "image"}
    image = contained.bundle.image
    assert image is not None
    assert (found["image_bytes"] or 0) == sum(layer.bytes for layer in image.layers) > 500e6
    assert 0 < (found["compressed_bytes"] or 0) < (found["image_bytes"] or 0)
    assert (found["packages"] or 0) > 80
    assert len(image.revision) >= 40


def test_the_function_answers_as_the_checkpoint_does(functions: Evidence) -> None:
    """fp32 to rounding through the endpoint; INT8 nearly; every latency cell at three sizes."""
    found = {(f.cell.variant, f.metric): f.value for f in findings_of(functions)}
    assert failures(functions.bundle.launches) == 0
    assert (found["onnx_fp32", "max_dlogit"] or 1.0) <= 1e-4
    assert (found["onnx_int8", "flip_rate"] or 0.0) <= 0.05
    assert {c.memory_mb for c in functions.bundle.planned if c.mode} == {512, 1024, 1769}


def test_a_function_is_throttled_to_its_share(functions: Evidence) -> None:
    """Back to back at 512 MB the quota stops it most of the time; at 1769 MB hardly ever."""

    def stopped(memory: int) -> float:
        cells = [c for c in functions.bundle.planned if c.memory_mb == memory and c.every_ms == 0]
        facts = [one.evidence.facts for cell in cells for one in functions.launches_of(cell.id).values()]
        return float(np.mean([fact["throttled_share"] for fact in facts]))

    assert stopped(512) > 0.2 > stopped(1769)


def test_arm64_answers_as_x86_does(functions: Evidence, arm: Evidence) -> None:
    """Correctness only: no time is measured under emulated instructions; the same INT8 artifact, nearly the same answers.

    How near depends on this host too: without VNNI, x86's 8-bit products saturate, and single logits move by a quarter of the
    logits' own deviation (0.68 of 3.0, measured on an AVX2 host) where their root mean square moves by 3 %.
    """
    assert failures(arm.bundle.launches) == 0
    assert {cell.variant for cell in arm.bundle.planned} == {"torch_fp32", "onnx_int8", "image"}

    def logits(evidence: Evidence) -> npt.NDArray[np.float32]:
        (cell,) = [cell for cell in evidence.bundle.planned if cell.variant == "onnx_int8"]
        return evidence.arrays[str(evidence.launches_of(cell.id)[1].evidence.outputs)]

    ours, theirs = logits(arm), logits(functions)[:1500]
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.99
    assert float(np.sqrt(np.mean((ours - theirs) ** 2))) < 0.1 * float(theirs.std())


def test_the_cuda_image_builds_with_the_cpus_packages() -> None:
    """Its Dockerfile is exercised; what comes out says that it is no CUDA image."""
    made = images.build(images.STAND_IN, sys.stderr.write)
    labelled = engine.connect().images.get(images.reference(made.name)).labels
    assert "never published" in labelled["distill-matrix.stand-in"]


def test_the_same_inputs_give_the_same_layers() -> None:
    """The function's image, built twice from nothing."""
    first = images.build("lambda-amd64", sys.stderr.write, fresh=True)
    second = images.build("lambda-amd64", sys.stderr.write, fresh=True)
    assert first.id == second.id


class Killer(Silent):
    """Kills the container that measures its first cell."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act: Callable[[], object] | None = act

    def event(self, event: Event) -> None:
        """The first time that a sample is told."""
        super().event(event)
        if event.stage in {"look", "measure"} and self._act is not None:
            act, self._act = self._act, None
            act()


def containers(store: Store) -> list[Any]:
    """The running containers of a store."""
    return list(engine.connect().containers.list(filters={"label": f"{engine.OWNER}={store.owner}"}))


def limited(memory_mb: int) -> Targets:
    """The CPU target with less memory than its launch needs; preparing finds everything in the cache."""
    every = targets()
    cpu = every.of("cpu-openvino").model_copy(update={"limits": Limits(memory_mb=memory_mb, pids=1024)})
    return every.model_copy(update={"target": {**every.target, "cpu-openvino": cpu}})


def stories(bundle: Bundle) -> list[str]:
    """How each launch ended."""
    return [record.story for record in bundle.launches]


def test_a_killed_container_is_told_and_the_next_launch_goes_on(root: Path, contained: Evidence) -> None:
    """Kill -9 of the first of two launches: its cells say why, the second is whole, nothing is left."""
    order = request(root, executor="docker")
    watcher = Killer(lambda: [one.kill() for one in containers(order.store)])
    bundle = load(run(order, targets(), watcher)).bundle
    assert stories(bundle) == ["its container was killed (exit code 137)", "it ended with exit code 0"]
    assert {o.state for o in bundle.launches[1].outcomes} == {"measured"}
    assert left(order.store) == []


def test_a_launch_beyond_its_time_is_stopped(root: Path, contained: Evidence) -> None:
    """The reason names the limit; no container runs on. A slow host too has said by then what the launch runs on."""
    order = request(root, executor="docker", launch_timeout_s=15.0, **ONE)
    (story,) = stories(load(run(order, targets(), Silent())).bundle)
    assert "its time limit" in story
    assert left(order.store) == []


def test_a_launch_beyond_its_memory_says_so(root: Path, contained: Evidence) -> None:
    """The kernel's kill, with the limit in the reason."""
    order = request(root, executor="docker", **ONE)
    watcher = Silent()
    with pytest.raises(Exception, match="OOMKilled"):
        run(order, limited(300), watcher)
    assert left(order.store) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which root may")
def test_a_full_results_volume_is_told(
    root: Path, contained: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that can write no more ends with that reason, and nothing is left behind."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=200k,mode=1777", "tmpfs", str(small)], check=True)
    bound = {"driver": "local", "driver_opts": {"type": "none", "device": str(small), "o": "bind"}}
    order = request(root, executor="docker", **ONE)
    monkeypatch.setattr(executor, "_volume", lambda client, marks: client.volumes.create(labels=marks, **bound))
    monkeypatch.setattr("matrix.run.Runner._prepare", lambda _: contained.bundle.prepared)
    try:
        found = run(order, targets(), Silent())
        (record,) = load(found).bundle.launches
        assert "no space was left" in record.story
        assert left(order.store) == []
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(small)], check=True)


def forget_the_engine() -> None:
    """The next call connects anew, to where DOCKER_HOST then points."""
    with suppress(*engine.GONE):
        engine._client("auto").close()
    engine._client.cache_clear()


@contextmanager
def between(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Callable[[], None]]:
    """A socket between us and the engine, which the yielded function breaks for good, as a daemon's death does."""
    path, gone = folder / "engine.sock", threading.Event()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(64)

    def pipe(ours: socket.socket) -> None:
        with ours, socket.socket(socket.AF_UNIX) as theirs:
            theirs.connect("/var/run/docker.sock")
            other = {ours: theirs, theirs: ours}
            while not gone.is_set():
                for ready in select.select([ours, theirs], [], [], 0.05)[0]:
                    data = ready.recv(1 << 16)
                    if not data and ready is theirs:
                        return
                    if not data:
                        theirs.shutdown(socket.SHUT_WR)
                        other.pop(ours, None)
                        continue
                    other[ready].sendall(data)

    def quietly(ours: socket.socket) -> None:
        with suppress(OSError, KeyError):
            pipe(ours)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=quietly, args=(server.accept()[0],), daemon=True).start()

    def die() -> None:
        gone.set()
        server.close()
        path.unlink(missing_ok=True)

    threading.Thread(target=accept, daemon=True).start()
    forget_the_engine()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    try:
        yield die
    finally:
        die()
        forget_the_engine()
        monkeypatch.undo()


# docker-py 7.2 does not close the socket of a connection that fails (transport/unixconn.py)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_dies_ends_the_launch_and_resume_goes_on(
    root: Path, contained: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost launch keeps its reason; the container ends by itself; with the engine back, --resume completes the run."""
    order = request(root, executor="docker")
    with between(monkeypatch, tmp_path) as die, pytest.raises(HostError, match="no Docker engine answers"):
        run(order, targets(), Killer(die))
    bundle = load(run(Request(**{**vars(order), "resume": True}), targets(), Silent())).bundle
    assert stories(bundle)[0].startswith("the engine stopped answering")
    assert stories(bundle)[1] == "it ended with exit code 0"
    assert left(order.store) == []
