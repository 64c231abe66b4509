"""Load is counted as it arrived: nobody's wait is hidden, no request is lost or asked twice, and an error is no answer."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.explain import explain
from matrix.findings import findings_of, launch_values
from matrix.ranks import quantile
from matrix.report import markdown, page
from matrix.units import show
from matrix.workloads.concurrent import (
    Answered,
    Service,
    UnderLoad,
    arrivals,
    closed,
    facts,
    latencies,
    opened,
    per_second,
)
from tests.making import case_of, evidence
from tests.story import asked
from tests.test_report import material

Logits = npt.NDArray[np.float32]
REQUESTS = [{"input_ids": np.array([[number]])} for number in range(3)]
_SERVICE_S = 0.004


def slow(inputs: Mapping[str, npt.NDArray[np.int64]]) -> Logits:
    """A runtime that takes its time, and answers with what it was asked."""
    time.sleep(_SERVICE_S)
    return inputs["input_ids"].astype(np.float32)


def torn(inputs: Mapping[str, npt.NDArray[np.int64]]) -> Logits:
    """A runtime that cannot answer one of the requests."""
    if inputs["input_ids"][0, 0] == 1:
        raise RuntimeError("no memory")
    return slow(inputs)


@pytest.mark.parametrize(("clients", "workers"), [(1, 1), (5, 1), (3, 2), (1, 4)])
def test_a_closed_loop_asks_each_request_once(clients: int, workers: int) -> None:
    """In turn, whoever asks; every answer is that of its own request."""
    found = closed([slow] * workers, REQUESTS, clients=clients, count=20)
    assert sorted(one.request for one in found) == sorted(number % 3 for number in range(20))
    assert all(one.answer is not None and one.answer[0, 0] == one.request for one in found)
    assert all(one.due <= one.begun <= one.ended for one in found)


def test_clients_that_wait_for_one_worker_wait_in_their_latency() -> None:
    """Four clients and one worker: an answer takes four services from where its client stands."""
    assert latencies(closed([slow], REQUESTS, clients=4, count=40)).mean() > 2.5 * _SERVICE_S


def test_an_open_loops_latency_begins_when_a_request_was_due() -> None:
    """All are due at once: the last waits for every one before it, though it was handed over the moment a worker was free."""
    found = opened([slow], REQUESTS, np.zeros(10))
    waits = sorted(one.ended - one.due for one in found)
    assert waits[-1] >= 10 * _SERVICE_S
    assert [one.begun >= one.due for one in found] == [True] * 10
    assert max(one.ended - one.begun for one in found) < waits[-1]


def test_an_open_loop_waits_for_nobody() -> None:
    """Arrivals far apart are served one by one, each when it is due and not before."""
    due = np.array([0.0, 0.05, 0.1])
    found = sorted(opened([slow, slow], REQUESTS, due), key=lambda one: one.due)
    assert [one.due - found[0].due for one in found] == pytest.approx(list(due))
    assert all(one.begun >= one.due for one in found)


def test_an_error_is_counted_and_has_no_latency_of_an_answer() -> None:
    """A third of the requests raise: their answer is None, and the worker goes on."""
    for found in (closed([torn], REQUESTS, clients=2, count=9), opened([torn], REQUESTS, np.zeros(9))):
        assert sorted(one.request for one in found if one.answer is None) == [1, 1, 1]
        assert len(found) == 9


def test_arrivals_are_those_of_a_seeded_poisson_process() -> None:
    """The same seed, the same arrivals; a thousand of them at a hundred a second take ten seconds, give or take."""
    ours = arrivals(100.0, 1_000, 7)
    assert np.array_equal(ours, arrivals(100.0, 1_000, 7))
    assert not np.array_equal(ours, arrivals(100.0, 1_000, 8))
    gaps = np.diff(ours)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(0.01, rel=0.15)
    assert gaps.std() == pytest.approx(0.01, rel=0.15)  # an exponential's deviation is its mean


def test_a_rate_is_from_the_first_begin_to_the_last_end() -> None:
    """Two answers in half a second; none is none."""
    one = Answered(0, 0.0, 1.0, 1.2, None)
    assert per_second([one, one._replace(begun=1.1, ended=1.5)]) == pytest.approx(4.0)
    assert per_second([]) == 0.0


class Moody:
    """A runtime that answers request 1 as another one's, or not at all, from the second time on that it is asked."""

    def __init__(self, *, raises: bool = False) -> None:
        self.raises, self.asked = raises, 0

    def __call__(self, inputs: Mapping[str, npt.NDArray[np.int64]]) -> Logits:
        """The inputs as logits, but for request 1."""
        if inputs["input_ids"][0, 0] != 1:
            return slow(inputs)
        self.asked += 1
        if self.raises and self.asked > 1:
            raise RuntimeError("no memory")
        return np.array([[1.0 if self.asked == 1 else 2.0]], dtype=np.float32)


def asking(**load: int) -> Cell:
    """A cell of this load."""
    return Cell(suite="concurrent_load", workload="intent", variant="ort_int8", mode="latency", **load)


@pytest.mark.parametrize("raises", [True, False])
def test_a_wrong_answer_is_as_much_an_error_as_none(*, raises: bool) -> None:
    """A third of the requests: counted, in no latency, and in no rate."""
    load = UnderLoad(Service([Moody(raises=raises)], REQUESTS, np.array_equal, 1), asking(clients=2), count=9, seed=1)
    answered = load.run()
    right = load.right(answered)
    assert sorted(one.request for one in right) == [0, 0, 0, 2, 2, 2]
    found = facts(answered, right)
    assert found["error_share"] == pytest.approx(1 / 3)
    assert found["requests_per_s"] == pytest.approx(per_second(right))
    assert len(latencies(right)) == 6


def test_capacity_counts_right_answers_only() -> None:
    """An error takes no time: counted as an answer it would raise the rate of arrivals by half."""
    load = UnderLoad(Service([Moody(raises=True)], REQUESTS, np.array_equal, 1), asking(load=50), count=36, seed=1)
    assert 0 < load.capacity <= 1 / _SERVICE_S


def test_arrivals_come_at_the_share_of_the_capacity_that_is_asked_for() -> None:
    """To the last one as the seed says, whatever the service makes of them."""
    load = UnderLoad(Service([slow], REQUESTS, np.array_equal, 1), asking(load=80), count=16, seed=5)
    due = sorted(one.due for one in load.run())
    assert np.diff(due) == pytest.approx(np.diff(arrivals(0.8 * load.capacity, 16, 5)), abs=1e-9)


def test_what_never_answers_right_has_no_capacity_to_take_a_share_of() -> None:
    """The error names the cell; no division by zero."""
    load = UnderLoad(Service([Moody(raises=True)], REQUESTS[1:2], np.array_equal, 1), asking(load=50), count=8, seed=1)
    with pytest.raises(EvidenceError, match="no request was answered as when it was alone") as refused:
        load.run()
    assert asking(load=50).id in str(refused.value)


LATENCIES = np.random.default_rng(1).exponential(0.004, (200, 1))


def loaded() -> Evidence:
    """A runtime with eight clients, and at four fifths of its capacity, three launches of latencies each."""
    same = {"suite": "concurrent_load", "workload": "intent", "batch": 1, "length": "data", "mode": "throughput"}
    clients, load = (Cell(**same, variant="ort_int8", **asked) for asked in ({"clients": 8}, {"load": 80}))
    told = {"requests_per_s": 500.0, "error_share": 0.0, "queued_s": 0.001, "workers": 2.0}
    return evidence(
        samples={clients: [[0.4]] * 3, load: [[0.5]] * 3},
        outputs={clients: LATENCIES, load: 2 * LATENCIES},
        labels=np.zeros(200, dtype=np.int64),
        facts={clients: told, load: told},
    )


def test_quantiles_are_each_launchs_own() -> None:
    """Their interval is over launches; latencies of a queue are not independent, and no order statistic bounds them."""
    found = {(one.cell.clients, one.metric): one for one in findings_of(loaded())}
    p95 = quantile(list(LATENCIES.ravel()), 0.95)
    assert (found[8, "p95_s"].value, found[None, "p95_s"].value) == pytest.approx((p95, 2 * p95))
    assert found[8, "requests_per_s"].value == 500.0
    assert found[8, "error_share"].value == 0.0


def test_a_launch_says_its_latencies_and_never_how_long_its_block_took() -> None:
    """To `matrix explain`, and to a comparison with another device: the blocks of 0.4 s hold 200 latencies each."""
    one = loaded()
    cell = next(cell for cell in one.bundle.planned if cell.clients == 8)
    p95 = quantile(list(LATENCIES.ravel()), 0.95)
    assert launch_values(one, cell, "p95_s") == pytest.approx([p95] * 3)
    assert launch_values(one, cell, "requests_per_s") == [500.0] * 3
    streamed = cell.model_copy(update={"workload": "response", "variant": "gguf_f16", "mode": "latency"})
    server = evidence(samples={streamed: [[0.4]] * 3}, facts={streamed: {"first_token_s": 0.01}})
    assert launch_values(server, streamed, "first_token_s") == [0.01] * 3
    told = explain(case_of([one]), asked(), cell.id, metric="p95_s")
    assert told.count(show(p95, "s")) >= 3
    assert "400 ms" not in told
    assert "binomial" not in told


def test_the_report_tells_clients_and_arrivals_apart() -> None:
    """A table each, with what was asked; the plot has those with most clients."""
    made = page.build(material([loaded()]))
    (section,) = [one for one in made.sections if one.id == "load-cpu-openvino"]
    waiting, arriving = section.tables
    assert [entry.text for entry in waiting.rows[0][:4]] == ["ONNX Runtime INT8", "one a thread", "8 clients", "500 /s"]
    assert arriving.rows[0][2].text == "arrivals at 80 % of capacity"
    assert "answers a second to 8 clients" in section.figures[0].svg
    assert "coordinated omission" in markdown.render(made)
