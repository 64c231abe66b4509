"""A runtime under load: its workers, clients that wait for their answers, and arrivals that wait for nobody.

A closed loop has so many clients, each of which asks again as soon as it has its answer. An open loop asks at Poisson arrivals
whether or not the last request is answered, and a latency begins when a request was due, not when somebody got round to it:
otherwise a stall hides all requests that it delays (Tene's coordinated omission; wrk2).
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from matrix.cell import Cell
from matrix.ranks import quantile
from matrix.workloads import serve, serving
from matrix.workloads.launch import Launch
from matrix.workloads.serve import Inputs, Predict

Float = npt.NDArray[np.float32]

_ALIKE: Final = 1e-4
"""How far a logit may be from the worker's own answer when it was alone, relative to the largest."""
_FULL: Final = 4
"""Clients a worker that find its capacity: a queue is never empty then."""


class Answered(NamedTuple):
    """One request: which, when it was due, when it began to be worked on, when it was answered (s), and the answer or None."""

    request: int
    due: float
    begun: float
    ended: float
    answer: Float | None


def _asked(worker: Predict, request: Inputs) -> Float | None:
    """The answer; None where the runtime raised: an error is counted, and what it took is no answer's time."""
    try:
        return worker(request)
    except Exception:  # noqa: BLE001 - whatever a runtime raises is an unanswered request
        return None


def closed(workers: Sequence[Predict], requests: Sequence[Inputs], *, clients: int, count: int) -> list[Answered]:
    """`count` requests in turn by `clients`, each of which waits for a free worker and then for its answer."""
    free: queue.SimpleQueue[Predict] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)
    numbers, found = iter(range(count)), list[Answered]()

    def client() -> None:
        for number in numbers:  # a range's next is one step of the interpreter: no two clients get one number
            due = time.perf_counter()
            worker = free.get()
            begun = time.perf_counter()
            answer = _asked(worker, requests[number % len(requests)])
            ended = time.perf_counter()
            free.put(worker)
            found.append(Answered(number % len(requests), due, begun, ended, answer))

    _together([client] * clients)
    return found


def arrivals(rate: float, count: int, seed: int) -> npt.NDArray[np.float64]:
    """`count` arrivals of a Poisson process of `rate` a second, in seconds from its beginning."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def opened(workers: Sequence[Predict], requests: Sequence[Inputs], due_s: npt.NDArray[np.float64]) -> list[Answered]:
    """A request at each of `due_s` (seconds from now), to whichever worker is free first; latencies begin when they are due."""
    waiting: queue.SimpleQueue[tuple[int, float] | None] = queue.SimpleQueue()
    found = list[Answered]()

    def work(worker: Predict) -> None:
        while (request := waiting.get()) is not None:
            number, due = request
            begun = time.perf_counter()
            answer = _asked(worker, requests[number % len(requests)])
            found.append(Answered(number % len(requests), due, begun, time.perf_counter(), answer))

    def arrive() -> None:
        start = time.perf_counter()
        for number, after in enumerate(due_s):
            time.sleep(max(0.0, start + after - time.perf_counter()))
            waiting.put((number, start + float(after)))
        for _ in workers:
            waiting.put(None)

    _together([arrive, *(lambda worker=worker: work(worker) for worker in workers)])
    return found


def _together(parts: Sequence[Callable[[], None]]) -> None:
    threads = [Thread(target=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _streams(launch: Launch, variant: str, threads: int) -> list[Predict]:
    """Requests of one OpenVINO model under its throughput hint, a stream each."""
    import openvino  # noqa: PLC0415 - no other worker needs it, and not every platform has it

    config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = launch.artifact(serve.SERVINGS[variant].format)
    compiled = openvino.Core().compile_model(str(model), "CPU", config)
    names = [port.any_name for port in compiled.inputs]

    def stream() -> Predict:
        request = compiled.create_infer_request()

        def predict(inputs: Inputs) -> Float:
            request.infer({name: inputs[name] for name in names}, share_inputs=True)
            logits: Float = request.get_output_tensor(0).data.copy()
            return logits

        return predict

    return [stream() for _ in range(int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")))]


def workers_of(cell: Cell, launch: Launch, threads: int) -> list[Predict]:
    """One worker with every thread ("latency"), or one a thread ("throughput", which OpenVINO has a hint for)."""
    if cell.mode == "latency":
        return [serving.load(cell.variant, launch, device="cpu", threads=threads)]
    if serve.SERVINGS[cell.variant].module == "openvino_cpu":
        return _streams(launch, cell.variant, threads)
    return [serving.load(cell.variant, launch, device="cpu", threads=1) for _ in range(threads)]


class UnderLoad:
    """A runtime's workers, and the load that its cell asks for."""

    def __init__(self, cell: Cell, launch: Launch, threads: int) -> None:
        self._cell, self._seed, self._count = cell, launch.job.seed, launch.job.profile.inference.max_rounds
        self.workers = workers_of(cell, launch, threads)
        self._requests = launch.examples.probes("data")
        self._alone = [self.workers[0](request) for request in self._requests]
        serving.same_answers(cell.variant, np.vstack(self._alone), launch.examples.reference["data"])
        clients = cell.clients or _FULL * len(self.workers)
        self._warm = closed(
            self.workers, self._requests, clients=clients, count=max(len(self._requests), self._count // 4)
        )

    def run(self) -> list[Answered]:
        """Every request of the block."""
        if self._cell.clients is not None:
            return closed(self.workers, self._requests, clients=self._cell.clients, count=self._count)
        rate = (self._cell.load or 0) / 100 * per_second(self._warm)
        return opened(self.workers, self._requests, arrivals(rate, self._count, self._seed))

    def right(self, one: Answered) -> bool:
        """Whether a request was answered, and as the runtime answers it when it is alone."""
        alone = self._alone[one.request]
        return one.answer is not None and bool(
            np.allclose(one.answer, alone, rtol=0, atol=_ALIKE * max(1.0, float(np.abs(alone).max())))
        )

    def facts(self, answered: Sequence[Answered]) -> dict[str, float]:
        """What the clock of the block does not tell, by metric name."""
        right = [one for one in answered if self.right(one)]
        waited = [one.begun - one.due for one in right]
        return {
            "requests_per_s": per_second(right),
            "error_share": 1 - len(right) / len(answered),
            "queued_s": quantile(waited, 0.5) if waited else float("nan"),
            "workers": float(len(self.workers)),
        }


def per_second(answered: Sequence[Answered]) -> float:
    """Answers a second, from the first request's beginning to the last one's end; 0 without an answer."""
    if not answered:
        return 0.0
    return len(answered) / (max(one.ended for one in answered) - min(one.begun for one in answered))


def latencies(answered: Sequence[Answered]) -> npt.NDArray[np.float64]:
    """Seconds from when each request was due to its answer, in the order of their ends."""
    return np.array([one.ended - one.due for one in sorted(answered, key=lambda one: one.ended)])
