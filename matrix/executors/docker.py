"""Runs each process of a target in a fresh container: locked down, under limits that are read back from inside.

Nothing of this host is mounted, so an engine is reached by its API alone: a volume carries the job in and the
results out, another keeps what is made once (students, exports). The root file system is read-only, there is no network.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, get_args

from docker.errors import NotFound
from docker.types import DeviceRequest, Mount
from docker.utils.socket import frames_iter

from matrix import engine, images
from matrix.errors import HostError
from matrix.job import CacheKind, End, Event, Folders, Job, Order, Prepared, Watch
from matrix.sample import Confinement
from matrix.strict import parse_json
from matrix.target import Target

WORK, CACHE, SUITES = "/launch", "/cache", "/opt/matrix/suites"
_KINDS: Final = get_args(CacheKind)
_GRACE_S: Final = 30
_STDOUT: Final = 1


def missing(target: Target) -> str | None:
    """An engine that can run the target's image, with its GPU."""
    return engine.lacking(target.platform, gpu=target.device == "cuda")


def unready(target: Target) -> str | None:
    """The target's image, built from what lies here."""
    return images.stale(str(target.image))


def cores(target: Target) -> int:
    """The engine's CPUs, as far as the target may use them."""
    every, allowed = engine.cores(), target.limits.cores if target.limits else None
    return min(every, allowed or every)


def asked(target: Target) -> Confinement | None:
    """The limits of the target's containers. CPUs are the last ones, as launches pin their cells to the last."""
    limits = target.limits
    if limits is None:
        return None
    every = engine.cores()
    return Confinement(
        user=engine.USER,
        read_only=True,
        interfaces=("lo",),
        capabilities=0,
        no_new_privileges=True,
        seccomp=True,
        pids=limits.pids,
        memory_bytes=limits.memory_mb << 20,
        memory_swap_bytes=limits.memory_mb << 20,
        cpus=tuple(range(every - cores(target), every)),
    )


def _inputs(job: Job) -> tuple[Job, dict[str, Path]]:
    """The job with the container's paths, and the user's files that it names, by their place under WORK."""
    spec, files = job.spec.model_dump(), {}
    for name, value in spec.items():
        path = Path(value).expanduser() if value else None
        if path is None or not path.exists():
            continue
        files[f"inputs/{name}/{path.name}"] = path
        if name == "data" and (beside := path.with_name("domains.json")).exists():
            files[f"inputs/{name}/{beside.name}"] = beside
        spec[name] = f"{WORK}/inputs/{name}/{path.name}"
    folders = Folders(cache=CACHE, out=f"{WORK}/out")
    return job.model_copy(update={"folders": folders, "spec": type(job.spec)(**spec)}), files


def cache_volume(cache: Path) -> str:
    """The volume that stands for the folder `cache` on the engine."""
    return f"distill-matrix-cache-{hashlib.sha256(str(cache.resolve()).encode()).hexdigest()[:12]}"


def _command(job: Job) -> list[str]:
    return ["python", "-m", "matrix.supervised", *job.command(SUITES, f"{WORK}/job.json")]


def _gpus(order: Order) -> list[DeviceRequest] | None:
    """The GPU that the run chose, or one of an engine far away, whose launches say which it was."""
    if order.target.device != "cuda":
        return None
    chosen = order.variables.get("CUDA_VISIBLE_DEVICES")
    which = {"device_ids": [chosen]} if chosen else {"count": 1}
    return [DeviceRequest(capabilities=[["gpu"]], **which)]


def _volume(client: Any, marks: Mapping[str, str]) -> Any:  # noqa: ANN401 - the SDK's client and volume
    """The one thing that a launch can write to."""
    return client.volumes.create(labels=dict(marks))


@contextmanager
def _container(order: Order, job: Job, files: Mapping[str, Path]) -> Iterator[Any]:
    """A container that is ready to start, with its volume filled; neither outlives this block."""
    client, marks = engine.connect(), {engine.OWNER: order.job.owner}
    limits, prepares = asked(order.target), job.launch is None
    if limits is None:
        raise HostError("the target has no limits", remedy="give it some in targets.toml")
    results = _volume(client, marks)
    mounts = [
        Mount(WORK, results.id, type="volume"),
        Mount(CACHE, cache_volume(order.cache), type="volume", read_only=not prepares),
    ]
    with engine.removed_after(results, force=True):
        container = client.containers.create(
            # what is measured goes by the digest of its configuration, not by a tag that may have moved since the plan
            job.image.id if job.image and not prepares else images.reference(str(order.target.image)),
            _command(job),
            environment={**order.variables},
            labels=marks,
            mounts=mounts,
            init=True,
            stdin_open=True,
            device_requests=_gpus(order),
            network_mode="none",
            **engine.confined(limits),
        )
        with engine.removed_after(container, force=True), tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "job.json"
            file.write_text(job.model_dump_json(), encoding="utf-8")
            engine.put(container, WORK, {"job.json": file, **files}, folders=["out"])
            if prepares:
                _fill_cache(container, order.cache)
            yield container


def _entries(cache: Path) -> Iterator[str]:
    for kind in _KINDS:
        for path in sorted((cache / kind).glob("[!.]*")):
            yield f"{kind}/{path.name}"


def _fill_cache(container: Any, cache: Path) -> None:  # noqa: ANN401 - the SDK's container
    """Bring the engine's cache up to this host's: a student that was trained here is not trained again there."""
    engine.put(container, CACHE, {}, folders=_KINDS)
    for entry in _entries(cache):
        if not engine.exists(container, f"{CACHE}/{entry}"):
            engine.put(container, CACHE, {entry: cache / entry})


def _fetch_prepared(container: Any, order: Order) -> None:  # noqa: ANN401 - the SDK's container
    """Bring what was prepared to this host's cache."""
    path = order.folder / "prepared.json"
    if not path.exists():
        return
    prepared = parse_json(Prepared, path.read_bytes(), str(path))
    for entry in (f"students/{prepared.student}", f"exports/{prepared.exports}", f"examples/{prepared.examples}"):
        place = order.cache / entry
        if place.exists():
            continue
        beside = place.with_name(f".{place.name}.fetched")
        beside.mkdir(parents=True, exist_ok=True)
        engine.get(container, f"{CACHE}/{entry}", beside)
        beside.replace(place)


class _Follower:
    """Reads a container's output while it runs: events to whoever watches, the rest to the log."""

    def __init__(self, order: Order, watch: Watch) -> None:
        self.log, self.watch, self._part = order.folder / "log.txt", watch, b""

    def follow(self, stream: Any) -> None:  # noqa: ANN401 - the SDK's socket
        """Until the container ends, or the engine."""
        with self.log.open("ab") as log:
            for kind, data in frames_iter(stream, tty=False):
                if kind == _STDOUT:
                    self._events(data)
                else:
                    log.write(data)
                    log.flush()

    def _events(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            self.watch(parse_json(Event, line, "an event of the container"))


def _run(container: Any, order: Order, watch: Watch) -> End:  # noqa: ANN401 - the SDK's container
    """Start, follow and wait; how it ended."""
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    late, started = threading.Event(), time.monotonic()

    def stop() -> None:
        late.set()
        with suppress(*engine.GONE):
            container.kill()

    timer = threading.Timer(order.timeout_s, stop)
    try:
        container.start()
        timer.start()
        _Follower(order, watch).follow(stream)
        code = int(container.wait(timeout=_GRACE_S)["StatusCode"])
        container.reload()
    finally:
        timer.cancel()
        # docker-py 7.2 keeps the connection there, and closing the stream alone leaks it; over ssh the far end may be gone first
        with suppress(OSError):
            stream._response.close()  # noqa: SLF001 - likewise
    seconds = time.monotonic() - started
    return End(code, timed_out=late.is_set(), seconds=seconds, why=_why(container.attrs["State"], order, code))


def _why(state: Mapping[str, Any], order: Order, code: int) -> str | None:
    """What the engine knows of a bad end."""
    limit = order.target.limits.memory_mb if order.target.limits else 0
    if state.get("OOMKilled"):
        return f"the kernel killed a process of it at the memory limit of {limit} MB (OOMKilled, exit code {code})"
    if code == 0:
        return None
    if _said(order, "No space left on device"):
        return f"no space was left on the engine's results volume (exit code {code})"
    if code == 137:  # noqa: PLR2004 - 128 and SIGKILL
        return "its container was killed (exit code 137)"
    return f"its container ended with exit code {code}" + (f": {state['Error']}" if state.get("Error") else "")


def _said(order: Order, text: str) -> bool:
    log = order.folder / "log.txt"
    return log.exists() and text in log.read_text(encoding="utf-8", errors="replace")


def execute(order: Order, watch: Watch) -> End:
    """Run the process in a container of its own and bring its results back."""
    engine.sweep(order.job.owner)
    job, files = _inputs(order.job)
    started = time.monotonic()
    try:
        with _container(order, job, files) as container:
            end = _run(container, order, watch)
            engine.get(container, f"{WORK}/out", order.folder)
            if job.launch is None:
                _fetch_prepared(container, order)
    except engine.GONE as error:
        if isinstance(error, NotFound):
            why = "its container was removed while it ran"
        else:
            why = f"the engine stopped answering ({str(error).strip().splitlines()[-1][:200]})"
        return End(-1, timed_out=False, seconds=time.monotonic() - started, why=why)
    return end
