"""Batch-1 latency of each runtime: warm at each length, and cold from nothing to the first answer."""

import pytest

from matrix.workloads import serving


@pytest.mark.cells(suite="inference_latency", mode="warm")
def test_warm(cell, launch, measure):
    """Every probe is answered as the reference answers it before the clock starts."""
    with serving.service(cell, launch, threads=measure.threads) as service:
        serving.agree(cell.variant, service, launch.examples.reference[str(cell.length)])
        measure.sampled(service.call, launch.job.profile.inference, service.arrivals, service.cpu_s)
        measure.facts(**service.facts())


@pytest.mark.cells(suite="inference_latency", mode="cold")
def test_cold(cell, launch, measure):
    """A new process or instance imports, loads and answers one example; its own clock says where the time went."""
    with serving.cold_start(cell, launch) as start:
        measure.once(start.first_answer, start.cpu_s)
        logits, facts = start.told()
    serving.same_answers(cell.variant, logits, launch.examples.reference["data"][:1])
    measure.facts(**facts)
