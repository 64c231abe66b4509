"""How fast each file of the response student reads a prompt, writes an answer, and begins one behind a prefix that it has read."""

import pytest

from matrix.workloads import language
from matrix.workloads.language.generation import Generation


@pytest.mark.cells(suite="generation")
def test_generation(cell, launch, measure):
    """Behind a kept prefix the first token is the same as without, before the clock starts."""
    profile = launch.job.profile
    run = Generation(cell, language.prepared(launch), profile.language, measure.threads)
    run.agree()
    measure.sampled(run.call, profile.inference, run.arrivals)
    measure.facts(**run.facts())
