"""What each export answers on the evaluation set, example by example, so that differences are paired."""

import numpy as np
import pytest

from matrix.workloads import examples, serving


@pytest.mark.cells(suite="export_accuracy")
def test_export_accuracy(cell, launch, measure):
    """Every output is finite; how far a second run strays is part of the evidence."""
    ids, classes = launch.examples.evaluation_ids()[: cell.examples], len(launch.prepared.data.classes)
    with serving.answering(cell, launch, threads=measure.threads) as predict:
        logits = measure.once(lambda: examples.predict_all(predict, ids, cell.batch, classes))
        assert np.isfinite(logits).all(), "an output is not a number"
        measure.facts(rerun_max_dlogit=examples.rerun_difference(predict, ids, cell.batch, logits))
    measure.facts(artifact_bytes=launch.prepared.artifacts[cell.variant].bytes)
    measure.keep("outputs", logits)
    measure.keep("labels", launch.examples.labels[: cell.examples])
