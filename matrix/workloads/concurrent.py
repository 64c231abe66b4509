"""A service under load: its workers, clients that wait for their answers, and arrivals that wait for nobody.

A closed loop has so many clients, each of which asks again as soon as it has its answer. An open loop asks at Poisson arrivals
whether or not the last request is answered, and a latency begins when a request was due, not when somebody got round to it:
otherwise a stall hides all requests that it delays (Tene's coordinated omission; wrk2).
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.ranks import quantile

_FULL: Final = 4
"""Clients for each request at work that find the capacity: a queue is never empty then."""


class Answered(NamedTuple):
    """One request: which, when it was due, when it began to be worked on, when it was answered (s), and the answer or None."""

    request: int
    due: float
    begun: float
    ended: float
    answer: Any


def _asked(worker: Callable[[Any], Any], request: Any) -> Any:  # noqa: ANN401 - whatever a service is asked and answers
    """The answer; None where the runtime raised: an error is counted, and what it took is no answer's time."""
    try:
        return worker(request)
    except Exception:  # noqa: BLE001 - whatever a runtime raises is an unanswered request
        return None


def closed(
    workers: Sequence[Callable[[Any], Any]], requests: Sequence[Any], *, clients: int, count: int
) -> list[Answered]:
    """`count` requests in turn by `clients`, each of which waits for a free worker and then for its answer."""
    free: queue.SimpleQueue[Callable[[Any], Any]] = queue.SimpleQueue()
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


def opened(
    workers: Sequence[Callable[[Any], Any]], requests: Sequence[Any], due_s: npt.NDArray[np.float64]
) -> list[Answered]:
    """A request at each of `due_s` (seconds from now), to whichever worker is free first; latencies begin when they are due."""
    waiting: queue.SimpleQueue[tuple[int, float] | None] = queue.SimpleQueue()
    found = list[Answered]()

    def work(worker: Callable[[Any], Any]) -> None:
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


class Service(NamedTuple):
    """What is put under load: functions that answer a request each, the requests, and whether an answer is as it should be.

    `alike` compares an answer with what the same request was answered when it was alone. `at_once` is how many requests are
    worked on at a time, where it is not a worker each: a server may keep others waiting out of sight.
    """

    workers: Sequence[Callable[[Any], Any]]
    requests: Sequence[Any]
    alike: Callable[[Any, Any], bool]
    at_once: int


class UnderLoad:
    """A service, and the load that its cell asks for: `count` requests by clients, or at a share of what it can answer.

    `capacity` is what it answered a second, as it should be, while it got warm: in an open loop with its queue never empty.
    """

    def __init__(self, service: Service, cell: Cell, *, count: int, seed: int) -> None:
        self._service, self._cell, self._count, self._seed = service, cell, count, seed
        self.alone = [service.workers[0](request) for request in service.requests]
        clients = cell.clients or _FULL * service.at_once
        warm = closed(service.workers, service.requests, clients=clients, count=count // 4)
        self.capacity = per_second(self.right(warm))

    def run(self) -> list[Answered]:
        """Every request of the block.

        Raises:
            EvidenceError: arrivals are asked for at a share of a capacity that is none.
        """
        workers, requests = self._service.workers, self._service.requests
        if self._cell.clients is not None:
            return closed(workers, requests, clients=self._cell.clients, count=self._count)
        if not self.capacity:
            raise EvidenceError(
                f"{self._cell.id}: under load no request was answered as when it was alone",
                remedy="ask it by one client (clients=1), and see whether its answers are the same twice",
            )
        rate = (self._cell.load or 0) / 100 * self.capacity
        return opened(workers, requests, arrivals(rate, self._count, self._seed))

    def right(self, answered: Sequence[Answered]) -> list[Answered]:
        """The requests that were answered as when they were alone, in the order of their ends."""
        ordered = sorted(answered, key=lambda one: one.ended)
        return [
            one
            for one in ordered
            if one.answer is not None and self._service.alike(one.answer, self.alone[one.request])
        ]


def facts(answered: Sequence[Answered], right: Sequence[Answered]) -> dict[str, float]:
    """What the clock of a block does not tell, by metric name; of requests that were answered as they should be."""
    return {
        "requests_per_s": per_second(right),
        "error_share": 1 - len(right) / len(answered),
        "queued_s": quantile([one.begun - one.due for one in right], 0.5),
    }


def per_second(answered: Sequence[Answered]) -> float:
    """Answers a second, from the first request's beginning to the last one's end; 0 without an answer."""
    if not answered:
        return 0.0
    return len(answered) / (max(one.ended for one in answered) - min(one.begun for one in answered))


def latencies(answered: Sequence[Answered]) -> npt.NDArray[np.float64]:
    """Seconds from when each request was due to its answer."""
    return np.array([one.ended - one.due for one in answered])
