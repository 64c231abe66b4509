"""Arithmetic of a transformer encoder, counted in matrix products: the floor that a step's time is read against.

A product of (m x k) and (k x n) is 2 m k n FLOPs. Softmax, normalisation, dropout and the optimizer are left out, as is
usual (Kaplan et al. 2020, table 1); the count agrees with torch's FlopCounterMode (tests/real/test_stacks.py).
"""

from __future__ import annotations


def encoder_forward(*, layers: int, dim: int, hidden: int, batch: int, length: int) -> int:
    """Forward FLOPs of the encoder: per token `2 (4 d^2 + 2 d f)` of weights and `4 S d` of attention, a layer.

    Args:
        layers: number of layers.
        dim: model width d.
        hidden: width f of the feed-forward part.
        batch: examples.
        length: tokens S an example.
    """
    tokens = batch * length
    return layers * (2 * tokens * (4 * dim**2 + 2 * dim * hidden) + 4 * tokens * length * dim)


def head_forward(*, dim: int, classes: int, batch: int) -> int:
    """Forward FLOPs of pooler and classifier on the first token: `2 (d^2 + d c)` an example (both DistilBERT and BERT)."""
    return 2 * batch * (dim**2 + dim * classes)


def distillation_step(teacher_forward: int, student_forward: int) -> int:
    """One step: the teacher's forward, the student's forward, and a backward pass of twice the student's forward."""
    return teacher_forward + 3 * student_forward
