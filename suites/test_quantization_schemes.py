"""What each quantisation scheme loses on planted matrices, and what the student then answers, example by example."""

import numpy as np
import pytest

from matrix.workloads import examples, planted, quantised


@pytest.mark.cells(suite="quantization_schemes")
def test_quantization_schemes(cell, launch, measure):
    """Every output is finite; a second run answers alike, for nothing in the arithmetic is random."""
    ids, classes = launch.examples.evaluation_ids()[: cell.examples], len(launch.prepared.data.classes)
    student = quantised.load(cell.variant, launch.artifact("torch_fp32"), threads=measure.threads)
    logits = measure.once(lambda: examples.predict_all(student.predict, ids, cell.batch, classes))
    assert np.isfinite(logits).all(), "an output is not a number"
    measure.facts(outlier_share=student.outlier_share(), **dict(planted.errors(cell.variant)))
    measure.facts(rerun_max_dlogit=examples.rerun_difference(student.predict, ids, cell.batch, logits))
    measure.keep("outputs", logits)
    measure.keep("labels", launch.examples.labels[: cell.examples])
