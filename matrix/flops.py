"""Arithmetic of a transformer encoder, counted in matrix products: the floor that a step's time is read against.

A product of (m x k) and (k x n) is 2 m k n FLOPs. Softmax, normalisation, dropout and the optimizer are left out, as is
usual (Kaplan et al. 2020, table 1); the count agrees with torch's FlopCounterMode (tests/real/test_stacks.py).
"""

from __future__ import annotations

from matrix.profile import LlamaShape


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


def decoder_forward(shape: LlamaShape, *, batch: int, length: int) -> int:
    """Forward FLOPs of a Llama: per token `2 (2 d^2 + 2 d k + 3 d f) + 4 S d` a layer, and `2 d V` of the output's product.

    `k = d * kv_heads / heads` is the width of keys and values; the feed-forward part is gated, with three products. Attention
    counts all S^2 pairs, as FlopCounterMode does, though a causal mask needs half of them.

    Args:
        shape: layers, width d, heads, width f of the feed-forward part, rows V of the output.
        batch: examples.
        length: tokens S an example.
    """
    tokens, narrow = batch * length, shape.dim * shape.kv_heads // shape.heads
    weights = 2 * shape.dim**2 + 2 * shape.dim * narrow + 3 * shape.dim * shape.hidden
    layers = shape.layers * (2 * tokens * weights + 4 * tokens * length * shape.dim)
    return layers + 2 * tokens * shape.dim * shape.vocabulary


def distillation_step(teacher_forward: int, student_forward: int) -> int:
    """One step: the teacher's forward, the student's forward, and a backward pass of twice the student's forward."""
    return teacher_forward + 3 * student_forward


def output_forward(shape: LlamaShape, tokens: int) -> int:
    """The part of `decoder_forward` that makes logits: `2 d V` a token."""
    return 2 * tokens * shape.dim * shape.vocabulary


def attention_forward(shape: LlamaShape, *, batch: int, length: int) -> int:
    """The part of `decoder_forward` that holds no weights: `4 S d` a token and layer."""
    return 4 * shape.layers * batch * length**2 * shape.dim


def decoder_generation(shape: LlamaShape, *, batch: int, prompt: int, new: int) -> int:
    """Generating `new` tokens after `prompt` tokens with a cache of keys and values; the last one passes through no layer."""
    begun = decoder_forward(shape, batch=batch, length=prompt) - output_forward(shape, batch * (prompt - 1))
    one, alone = decoder_forward(shape, batch=batch, length=1), attention_forward(shape, batch=batch, length=1)
    seen = sum(range(prompt + 1, prompt + new))  # the one token of a pass attends to all before it and to itself
    return begun + (new - 1) * (one - alone) + seen * alone


def adapters_forward(shape: LlamaShape, *, rank: int, tokens: int) -> int:
    """LoRA on query and value projections: `2 r (in + out)` a token and projection."""
    narrow = shape.dim * shape.kv_heads // shape.heads
    return 2 * tokens * shape.layers * rank * (2 * shape.dim + shape.dim + narrow)


def adapted_training(forward: int, attention: int, adapters: int) -> int:
    """Forward and backward of a student whose weights are frozen but for adapters; `attention` is a part of `forward`.

    A frozen weight has one product in the backward pass, for the gradient of its input, and none for its own. That the first
    layer needs no gradient of its input is left out of account.
    """
    return 2 * (forward - attention) + 3 * attention + 3 * adapters
