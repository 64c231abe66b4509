"""One optimizer step of each training stack, beside the stacks of the same work; where its time goes."""

import pytest

from matrix.workloads import training


@pytest.mark.cells(suite="training_step")
def test_training_step(cell, launch, measure):
    """The stack's loss and gradients equal its work's definition before the clock starts, and its weights move while it runs."""
    with training.prepared(cell, launch) as run:
        training.agree(cell.variant, run.stack, run.work)
        run.watch_memory()
        rounds = measure.sampled(run.step, launch.job.profile.training, run.between)
        assert run.moved(), "what the stack trains did not change: no training was timed"
        measure.facts(**run.facts(rounds))
