"""A Lambda function, emulated: its image with the student in it, in a container of the function's memory and share of a CPU.

Inside runs AWS's own Runtime Interface Emulator. Lambda gives memory / 1769 MB of a vCPU, as a quota of 20 ms periods (with
Docker's default of 100 ms a call of 7 ms is never throttled, whatever its memory); `full` init is unthrottled, as AWS says of
its init phase. The emulator takes one call at a time, starts the runtime at the first one, and dies of two at once.
"""

from __future__ import annotations

import http.client
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np

from matrix import engine, images
from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.job import Image, Prepared
from matrix.sample import Confinement
from matrix.workloads.cache import Cache
from matrix.workloads.examples import Float

FULL_MB: Final = 1769
"""Memory at which a function has one vCPU (AWS Lambda's documentation, "Configure Lambda function memory")."""

PERIOD_US: Final = 20_000
"""Lambda's own quota period, as measured on it by others (github.com/pwrdrvr/lambda-throttling)."""

_PATH: Final = "/2015-03-31/functions/function/invocations"
_PIDS: Final = 1024
_UP_S: Final = 120.0
_ONE_TRY_S: Final = 0.05
"""A packet that comes before the container's interface is up is lost, and sent again only after a second."""
_ANSWER_S: Final = 900.0
"""Lambda's longest time for a call."""
_FORMATS: Final = {"ort_int8": "onnx_int8", "ort_fp32": "onnx_fp32"}


def quota_us(memory_mb: int) -> int:
    """The CPU time of a function of this memory, in each period."""
    return round(PERIOD_US * memory_mb / FULL_MB)


class Ships(Protocol):
    """What a function is made of, as a launch knows it."""

    prepared: Prepared
    cache: Cache

    @property
    def image(self) -> Image:
        """The function's image, without a model."""

    def artifact(self, name: str) -> Path:
        """The model file of an export format."""


class Functions:
    """The functions of one launch: their network, and one image a model, both gone when the block ends."""

    def __init__(self, launch: Ships, owner: str) -> None:
        self.launch, self.owner, self.client = launch, owner, engine.connect()
        self.platform = launch.image.platform
        self._images: dict[str, str] = {}
        self._end = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    @cached_property
    def network(self) -> Any:  # noqa: ANN401 - the SDK's network
        """A network without a way out; this host reaches containers by their addresses on it."""
        network = self.client.networks.create(
            f"distill-matrix-{time.time_ns()}", internal=True, labels={engine.OWNER: self.owner}
        )
        self._end.enter_context(engine.removed_after(network))
        return network

    def model(self, variant: str) -> dict[str, Path]:
        """The files that a function of `variant` ships, by their names there."""
        launch = self.launch
        return {
            "model.onnx": launch.artifact(_FORMATS.get(variant, variant)),
            "tokenizer.json": launch.cache.folder("students", launch.prepared.student) / "tokenizer.json",
        }

    def image(self, variant: str) -> str:
        """The function's image with the student of `variant` in it, packed by the runtime that will load it."""
        if variant not in self._images:
            with tempfile.TemporaryDirectory() as scratch:
                packed = Path(scratch)
                self._pack(variant, packed)
                tag = f"distill-matrix/function:{self.owner[:12]}-{variant.replace('_', '-')}"
                self._bake(packed, tag)
            self._images[variant] = tag
            self._end.callback(self.client.images.remove, tag, force=True)
        return self._images[variant]

    def created(self, *command: str, **options: Any) -> Any:  # noqa: ANN401 - the SDK's container
        """A container of the function's image that is not started; `command` instead of the emulator."""
        options.setdefault("image", images.reference(self.launch.image.name))
        variables = {"QEMU_CPU": "neoverse-n1"} if "arm64" in self.platform else {}  # qemu's "max" is 15 times slower
        variables |= options.pop("environment", {})
        return self.client.containers.create(
            **options,
            entrypoint=list(command) or None,
            labels={engine.OWNER: self.owner},
            platform=self.platform,
            environment=variables,
            init=True,
        )

    def service(self, cell: Cell, requests: Sequence[str | Mapping[str, Any]]) -> Service:
        """What answers the requests of a warm cell."""
        return Service(self, cell, [_event(request) for request in requests])

    def cold_start(self, cell: Cell, text: str) -> ColdStart:
        """What a cold cell times."""
        return ColdStart(self, cell, _event(text))

    @contextmanager
    def at_full_speed(self, variant: str) -> Iterator[Callable[[Mapping[str, Any]], Float]]:
        """An instance that is never throttled: for what it answers, not for how fast."""
        with Function(self, variant, memory_mb=FULL_MB, init="full") as function:
            function.start()
            yield lambda inputs: function.logits(_event(inputs))

    def run_python(self, *arguments: str) -> str:
        """What a fresh Python of the function's image prints."""
        container = self.created("python3", *arguments, network_mode="none", read_only=True)
        with engine.removed_after(container, force=True):
            container.start()
            if container.wait(timeout=_UP_S)["StatusCode"]:
                raise EvidenceError("a program of the function's image failed", remedy=_tail(container))
            return str(container.logs(stdout=True, stderr=False).decode())

    def _pack(self, variant: str, out: Path) -> None:
        container = self.created("python3", "/var/task/pack.py", "/tmp/source", "/tmp/packed", network_mode="none")  # noqa: S108 - the container's own
        with engine.removed_after(container, force=True), tempfile.TemporaryDirectory() as scratch:
            labels = Path(scratch) / "labels.json"
            labels.write_text(json.dumps(list(self.launch.prepared.data.classes)), encoding="utf-8")
            files = {"labels.json": labels, **self.model(variant)}
            engine.put(container, "/tmp", {f"source/{name}": path for name, path in files.items()}, folders=["source"])  # noqa: S108 - the container's own
            container.start()
            if container.wait(timeout=_UP_S)["StatusCode"]:
                raise EvidenceError("the model could not be packed for the function", remedy=_tail(container))
            engine.get(container, "/tmp/packed", out)  # noqa: S108 - the container's own

    def _bake(self, packed: Path, tag: str) -> None:
        container = self.created()
        with engine.removed_after(container, force=True):
            files = {f"model/{path.name}": path for path in packed.iterdir()}
            engine.put(container, "/var/task", files, folders=["model"])
            repository, _, name = tag.partition(":")
            container.commit(repository, name)


def _tail(container: Any) -> str:  # noqa: ANN401 - the SDK's container
    return str(container.logs(tail=20).decode(errors="replace"))[-1_500:]


class Function:
    """One instance of a function, from its creation to its end; calls are made one at a time."""

    def __init__(self, functions: Functions, variant: str, *, memory_mb: int, init: str) -> None:
        self.functions, self.memory_mb, self.init = functions, memory_mb, init
        self._image, self._network = functions.image(variant), functions.network
        self._connection: http.client.HTTPConnection | None = None
        self.calls = 0
        self.container: Any = None
        self._end = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # first the connection: a farewell to an address that is gone makes the kernel ask for it once a second, and the next
        # instance, which gets that address, is then out of reach for up to a second
        if self._connection is not None:
            self._connection.close()
        self._end.close()

    def _limits(self) -> Confinement:
        size = self.memory_mb << 20
        return Confinement(
            user=engine.USER,
            read_only=True,
            interfaces=(),
            capabilities=0,
            no_new_privileges=True,
            seccomp=True,
            pids=_PIDS,
            memory_bytes=size,
            memory_swap_bytes=size,
            cpus=tuple(range(engine.cores())),
        )

    def start(self) -> None:
        """Create the container, throttled or not."""
        throttled = {"cpu_period": PERIOD_US, "cpu_quota": quota_us(self.memory_mb)} if self.init == "throttled" else {}
        self.container = self.functions.created(
            image=self._image,
            network=self._network.name,
            environment={"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb), "AWS_LAMBDA_FUNCTION_TIMEOUT": "900"},
            **throttled,
            **engine.confined(self._limits()),
        )
        self._end.enter_context(engine.removed_after(self.container, force=True))
        self.container.start()
        self.started = time.perf_counter()

    def throttle(self) -> None:
        """Give the function its share of a CPU from here on."""
        self.container.update(cpu_period=PERIOD_US, cpu_quota=quota_us(self.memory_mb))

    def _connect(self) -> http.client.HTTPConnection:
        """A connection to the emulator as soon as it listens."""
        self.container.reload()
        address = self.container.attrs["NetworkSettings"]["Networks"][self._network.name]["IPAddress"]
        until = time.monotonic() + _UP_S
        while True:
            connection = http.client.HTTPConnection(address, 8080, timeout=_ONE_TRY_S)
            try:
                connection.connect()
                connection.sock.settimeout(_ANSWER_S)
            except OSError as error:
                self.container.reload()
                if self.container.status == "exited" or time.monotonic() > until:
                    raise EvidenceError(
                        "the function's emulator does not listen", remedy=_tail(self.container)
                    ) from error
                time.sleep(0.002)
                continue
            return connection

    def invoke(self, event: bytes) -> dict[str, Any]:
        """The function's answer to one event.

        Raises:
            EvidenceError: it failed; the emulator says 200 for an exception and 502 for a runtime that died.
        """
        if self._connection is None:
            self._connection = self._connect()
        self.calls += 1
        self._connection.request("POST", _PATH, event)
        response = self._connection.getresponse()
        body = response.read()
        if response.status == 200 and not body.startswith(b'{"errorMessage"'):  # noqa: PLR2004 - HTTP
            answer: dict[str, Any] = json.loads(body)
            return answer
        told = body.decode(errors="replace") or _tail(self.container)
        if response.status == 502:  # noqa: PLR2004 - HTTP
            told = f"its runtime died, out of its {self.memory_mb} MB or of an exception: {told}"
        raise EvidenceError("the function gave no answer", remedy=told[-1_500:])

    def logits(self, event: bytes) -> Float:
        """The logits of one event, examples x classes."""
        return np.atleast_2d(np.array(self.invoke(event)["logits"], dtype=np.float32))

    def about(self) -> dict[str, Any]:
        """What the function says of itself."""
        return self.invoke(b'{"about": true}')

    def spent(self) -> tuple[float, float]:
        """CPU seconds of the whole container, emulator included, and seconds for which its quota stopped it."""
        if self.container is None:
            return 0.0, 0.0
        told = self.functions.client.api.stats(self.container.id, stream=False, one_shot=True)["cpu_stats"]
        return told["cpu_usage"]["total_usage"] * 1e-9, told["throttling_data"].get("throttled_time", 0) * 1e-9

    def init_s(self) -> float | None:
        """Seconds of the init phase as the emulator reports them (its REPORT line is wrong, its INIT REPORT right)."""
        told = re.search(
            r"INIT REPORT\(durationMs: ([\d.]+)\)", self.container.logs(stdout=False, stderr=True).decode()
        )
        return float(told.group(1)) * 1e-3 if told else None


def _event(request: str | Mapping[str, Any]) -> bytes:
    """The event for a text, or for encoded rows."""
    return json.dumps(
        {"text": request} if isinstance(request, str) else {"ids": request["input_ids"].tolist()}
    ).encode()


class Service:
    """What a latency cell calls, by requests that its probes were made into."""

    def __init__(self, functions: Functions, cell: Cell, requests: list[bytes]) -> None:
        self.cell, self.requests = cell, requests
        self.function = Function(functions, cell.variant, memory_mb=cell.memory_mb or FULL_MB, init="full")
        self._late = self._arrived = 0

    def __enter__(self) -> Self:
        self.function.start()
        self.function.invoke(self.requests[0])
        self.function.throttle()
        self._before, self._calls, self._since = self.function.spent(), self.function.calls, time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.function.__exit__()

    def call(self, request: bytes) -> Float:
        """Answer one request."""
        return self.function.logits(request)

    def arrivals(self) -> Iterator[tuple[tuple[bytes], dict[str, Any]]]:
        """The requests in turn, one each `every_ms` where the cell says so; a caller that comes late is counted."""
        every, due = (self.cell.every_ms or 0) * 1e-3, time.perf_counter()
        while True:
            for request in self.requests:
                wait = due - time.perf_counter()
                self._arrived += 1
                self._late += wait < -1e-3 and every > 0  # noqa: PLR2004 - a millisecond late is late
                time.sleep(max(wait, 0.0) if every else 0.0)
                due = max(due, time.perf_counter() - every) + every
                yield (request,), {}

    def cpu_s(self) -> float:
        """CPU seconds of the container so far."""
        return self.function.spent()[0]

    def facts(self) -> dict[str, float | None]:
        """CPU a call, that over the share of a CPU, and how long the quota stopped it, over all calls since the throttle."""
        cpu, stopped = self.function.spent()
        wall, calls = time.perf_counter() - self._since, self.function.calls - self._calls
        call_s = (cpu - self._before[0]) / calls
        about = self.function.about()
        return {
            "cpu_call_s": call_s,
            "share_s": call_s * FULL_MB / self.function.memory_mb,
            "throttled_share": (stopped - self._before[1]) / wall,
            "late_share": self._late / max(self._arrived, 1) if self.cell.every_ms else None,
            "peak_bytes": about["peak_bytes"],
            "period_s": PERIOD_US * 1e-6,
            "quota_s": quota_us(self.function.memory_mb) * 1e-6,
        }


class ColdStart:
    """An instance that is created and answers one request, inside the clock; it ends with the block, outside it."""

    def __init__(self, functions: Functions, cell: Cell, request: bytes) -> None:
        self.request = request
        self.function = Function(functions, cell.variant, memory_mb=cell.memory_mb or FULL_MB, init=cell.init or "full")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.function.__exit__()

    def first_answer(self) -> None:
        """Create, start, call."""
        self._begun = time.perf_counter()
        self.function.start()
        self._logits = self.function.logits(self.request)

    def told(self) -> tuple[Float, dict[str, float | None]]:
        """The logits, and where the time went."""
        about = self.function.about()
        facts = {"init_s": self.function.init_s(), "create_s": self.function.started - self._begun}
        return self._logits, {**facts, "peak_bytes": about["peak_bytes"], "resident_bytes": about["resident_bytes"]}

    def cpu_s(self) -> float:
        """CPU seconds of the container so far."""
        return self.function.spent()[0]
