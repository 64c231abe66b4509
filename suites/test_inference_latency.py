"""Batch-1 latency of each runtime: warm at each length, and cold from a new process to its first answer."""

import itertools

import pytest

from matrix.workloads import serving


@pytest.mark.cells(suite="inference_latency", mode="warm")
def test_warm(cell, launch, measure):
    """Every probe is answered as the reference answers it before the clock starts."""
    probes = launch.examples.probes(cell.length)
    predict = serving.load(cell.variant, launch, device=launch.job.device, threads=measure.threads)
    serving.agree(predict, probes, launch.examples.reference[str(cell.length)], exact="int8" not in cell.variant)
    measure.sampled(predict, launch.job.profile.inference, lambda: itertools.cycle(((probe,), {}) for probe in probes))


@pytest.mark.cells(suite="inference_latency", mode="cold")
def test_cold(cell, launch, measure):
    """A new process imports, loads and answers one example; its own clock says where the time went."""
    probe, reference = launch.examples.probes("data")[0], launch.examples.reference["data"][:1]
    with serving.ColdStart(cell.variant, launch, probe) as start:
        measure.once(start.first_answer)
        logits, facts = start.told()
    serving.same_answers(logits, reference, exact="int8" not in cell.variant)
    measure.facts(**facts)
