"""Knowledge distillation from cached teacher logits, a tenth of which is regenerated each step, oldest first (seed 001).

For a teacher that moves, or inputs that do, slowly enough for logits of some epochs ago to be of use. Under the frozen teacher
of this work it is the cost of never trusting the cache.
"""

from __future__ import annotations

from typing import Final

from matrix.workloads.distill import Work
from matrix.workloads.distill.from_cache import FromCache

SHARE: Final = 0.1
"""Of each step's rows, rounded up: the seed's `refresh_fraction`."""


def prepare(work: Work) -> FromCache:
    """The loop, ready to step, its cache full; every timed step asks the teacher for the same number of rows."""
    return FromCache(work, SHARE)
