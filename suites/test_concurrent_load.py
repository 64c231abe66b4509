"""What a service answers, and when, while several clients ask it at once, or requests arrive whether it is ready or not."""

import numpy as np
import pytest

from matrix.ranks import quantile
from matrix.workloads import language, replicas
from matrix.workloads.concurrent import UnderLoad, facts, latencies, per_second
from matrix.workloads.language import server

ANSWERS = 100


def measured(service, cell, launch, measure, count):
    """Every answer is compared with what the service says when it is alone: what is wrong or missing is an error, no latency."""
    load = UnderLoad(service, cell, count=count, seed=launch.job.seed)
    answered = measure.once(load.run)
    right = load.right(answered)
    assert right, "no request was answered as it should be"
    measure.facts(**facts(answered, right))
    measure.facts(workers=service.at_once, capacity_per_s=load.capacity if cell.load else None)
    measure.keep("outputs", latencies(right)[:, None])
    measure.keep("labels", np.array([one.request for one in right], dtype=np.int64))
    return right


@pytest.mark.cells(suite="concurrent_load", workload="intent")
def test_runtime(cell, launch, measure):
    """A classifier's runtime, which answers as the reference before it is loaded."""
    service = replicas.service(cell, launch, measure.threads)
    measured(service, cell, launch, measure, launch.job.profile.inference.max_rounds)


@pytest.mark.cells(suite="concurrent_load", workload="response")
def test_server(cell, launch, measure):
    """llama.cpp's server, which answers one request at a time: what it streams, and when it begins to.

    It gets a hundred requests: as many as a classifier would take a quarter of an hour a launch.
    """
    profile = launch.job.profile
    with server.service(cell.variant, language.prepared(launch), profile.language, measure.threads) as service:
        right = measured(service, cell, launch, measure, ANSWERS)
    written = sum(one.answer.pieces for one in right) / len(right)
    measure.facts(decode_per_s=written * per_second(right))
    measure.facts(first_token_s=quantile([one.begun - one.due + one.answer.first_s for one in right], 0.5))
