"""What each training stack's student has learnt after the same number of examples, beside what that took."""

import pytest

from matrix.workloads import trial


@pytest.mark.cells(suite="training_quality")
def test_training_quality(cell, launch, measure):
    """A whole training in timed parts; the student answers the validation split when the clock has stopped."""
    with trial.prepared(cell, launch) as run:
        measure.sampled(run.advance, run.sampling, run.parts)
        run.rest()
        measure.facts(**run.facts(measure.samples))
        logits, labels = run.judged()
    measure.keep("outputs", logits)
    measure.keep("labels", labels)
