"""What a runtime answers, and when, while several clients ask it at once, or requests arrive whether it is ready or not."""

import numpy as np
import pytest

from matrix.workloads.concurrent import UnderLoad, latencies


@pytest.mark.cells(suite="concurrent_load")
def test_concurrent_load(cell, launch, measure):
    """Every answer is compared with the runtime's own when it is alone; what is wrong or missing is an error and no latency."""
    load = UnderLoad(cell, launch, measure.threads)
    answered = measure.once(load.run)
    right = [one for one in answered if load.right(one)]
    assert right, "no request was answered"
    measure.facts(**load.facts(answered))
    measure.keep("outputs", latencies(right)[:, None])
    measure.keep("labels", np.array([one.request for one in sorted(right, key=lambda one: one.ended)], dtype=np.int64))
