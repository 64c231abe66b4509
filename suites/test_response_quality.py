"""What each file of the response student says of held-out answers, token by token beside the checkpoint."""

import numpy as np
import pytest

from matrix.workloads import language
from matrix.workloads.language import study
from matrix.workloads.language.student import held_out


@pytest.mark.cells(suite="response_quality")
def test_response_quality(cell, launch, measure):
    """Every probability is a number; the tokens of a conversation stay together, for they are no independent examples."""
    student = language.prepared(launch)
    held = held_out(student.checkpoint)
    ours = study.answering(cell.variant, student, threads=measure.threads, context=launch.job.profile.language.context)
    theirs = study.checkpoint(student.checkpoint)
    rows, conversations = measure.once(lambda: study.token_by_token(ours, theirs, held))
    assert np.isfinite(rows).all(), "a probability is not a number"
    measure.facts(artifact_bytes=student.file(cell.variant).stat().st_size)
    measure.keep("outputs", rows)
    measure.keep("labels", conversations)
