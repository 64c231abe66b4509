"""What ships: the image's size, layers and packages, and what its heavy imports cost a cold start."""

import pytest

from matrix.workloads import packaging


@pytest.mark.cells(suite="packaging")
def test_packaging(cell, launch, measure):
    """An import is timed by the process that makes it; an image is described by itself and by its build."""
    module = packaging.module_of(cell)
    if module:
        seconds = measure.once(lambda: packaging.import_seconds(module, launch))
        measure.facts(import_s=seconds)
    else:
        inventory = measure.once(lambda: packaging.inventory(launch))
        measure.facts(**packaging.facts(inventory, launch))
