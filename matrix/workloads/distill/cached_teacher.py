"""Knowledge distillation from cached teacher logits: the teacher is asked once an example (seed 001).

For a frozen teacher on fixed inputs, where online and cached logits are the same. What is timed is every epoch but the first.
"""

from __future__ import annotations

from matrix.workloads.distill import Work
from matrix.workloads.distill.from_cache import FromCache


def prepare(work: Work) -> FromCache:
    """The loop, ready to step, its cache full."""
    return FromCache(work)
