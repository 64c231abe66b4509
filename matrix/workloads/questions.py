"""The canaries: questions to which the right answer is known, each from a bug that gave a wrong one in silence.

Each is a function of the device that tells how far its answer is from the right one, and how far it may be. The right one is
fp64 on the CPU where one makes sense. Numbers of issues are pytorch/pytorch's unless another project is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.workloads import step
from matrix.workloads.answers import Answer, Question, against_reference, distance, step_error, with_gradients, worst
from matrix.workloads.inductor import compiler
from matrix.workloads.step import normal, rounding

_DEEP: Final = step.HIDDEN * step.LAYERS
"""Terms of a step's deepest sums: a hidden layer's, once a layer."""


def training_step(device: str) -> Answer:
    """Logits and gradients of one distillation step. #92615, #109457, #137964, transformers #17971."""
    given = step.batch(*step.SHAPES[1], seed=1)
    error = step_error(step.step(step.weights(device), given.on(device)), step.reference(given))
    return Answer(error, rounding(torch.float32, _DEEP))


def strided_inputs(device: str) -> Answer:
    """Transposed and strided inputs of linear, layer_norm and matmul, and a sum's expanded gradient. #162730, #180201."""
    x, w = normal(34, 48, seed=1), normal(34, 20, seed=2)
    errors = [
        against_reference(lambda x, w: F.linear(x.t()[::2], w.t()), (x, w), device),
        against_reference(lambda x, w: F.linear(x.t()[::2], w.t()).sum().reshape(1), (x, w), device),
        against_reference(lambda x: F.layer_norm(x.t()[:, 1::3], (11,)), (x,), device),
        against_reference(lambda x, w: x.t()[3:31] @ w[:, ::3], (x, w), device),
    ]
    return Answer(worst(errors), rounding(torch.float32, 34))  # the longest sum is over 34 features


def batched(device: str) -> Answer:
    """Five padded rows in one batch, and each of them alone without its padding. #170837, #82707."""
    given = step.batch(5, 40, seed=2, padded=True)
    assert given.mask is not None  # noqa: S101 - asked for padded
    w = step.weights(device)
    with torch.no_grad():
        together = step.logits(w, given.on(device))
        alone = [
            step.logits(w, given._replace(ids=row[None, seen], mask=None).on(device))
            for row, seen in zip(given.ids, given.mask, strict=True)
        ]
    return Answer(distance(together, torch.cat(alone)), rounding(torch.float32, _DEEP))


def _linear(device: str, *shape: int, inputs: int, outputs: int) -> Answer:
    given = normal(*shape, inputs, seed=3), normal(outputs, inputs, seed=4), normal(outputs, seed=5)
    error = against_reference(F.linear, given, device)
    return Answer(error, rounding(torch.float32, max(math.prod(shape), inputs, outputs)))  # a gradient's longest sum


def many_rows(device: str) -> Answer:
    """A linear layer with a bias on 65,636 rows, and on as many pairs of rows. #189495: beyond 65,536, of pairs alone."""
    flat, pairs = _linear(device, 65_636, inputs=8, outputs=4), _linear(device, 65_636, 2, inputs=8, outputs=4)
    return Answer(worst([flat.error, pairs.error]), flat.limit)


def _products(device: str, rows: int, outputs: int) -> float:
    """The error of a linear layer from one feature: every output is one product, which fp32 rounds alike everywhere."""
    x, w = normal(rows, 1, seed=25), normal(outputs, 1, seed=26)
    found, largest = F.linear(x.to(device), w.to(device)), float(x.abs().max() * w.abs().max())
    parts = zip(found.split(128), x.split(128), strict=True)  # of 128 MiB, so that the reference is small
    return worst(float((part.cpu() - some * w.t()).abs().max()) / largest for part, some in parts)


def many_features(device: str) -> Answer:
    """A linear layer from, and one to, 32,868 features. #116769, #122045: beyond 32,768, where 2^25 outputs were exceeded."""
    wide, tall = _linear(device, 3, inputs=32_868, outputs=5), _linear(device, 3, inputs=5, outputs=32_868)
    return Answer(worst([wide.error, tall.error, _products(device, 1_025, 32_868)]), wide.limit)


def shape_change(device: str) -> Answer:
    """Backward passes of one model on batches of changing shapes, as length buckets are. #153957, #177116."""
    w, errors = step.weights(device), []
    for size, length in ((8, 40), (5, 17), (8, 40), (3, 33)):
        given = step.batch(size, length, seed=length)
        errors.append(step_error(step.step(w, given.on(device)), step.reference(given)))
    return Answer(worst(errors), rounding(torch.float32, _DEEP))


def many_tokens(device: str) -> Answer:
    """Gradients over 32,776 tokens after those over fewer. #177116: 10^3 to 10^5 times too large beyond 2^15."""
    given, errors = (normal(50, 16, seed=28), normal(16, 16, seed=29), normal(50, 16, seed=30)), []

    def loss(ids: torch.Tensor, words: torch.Tensor, inner: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        ids = ids.to(words.device)
        x = F.embedding(ids, words)
        x = x + F.linear(x, inner).tanh()
        return F.cross_entropy(F.linear(x, head).flatten(0, 1), ids.flatten()).reshape(1)

    for size in (1_024, 8_194):
        ids = torch.randint(50, (size, 4), generator=torch.Generator().manual_seed(size))
        errors.append(against_reference(partial(loss, ids), given, device))
    return Answer(worst(errors), rounding(torch.float32, 4 * 8_194))  # gradients are sums over all tokens


def _attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool) -> torch.Tensor:
    """Attention by its formula."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1) & is_causal
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


def _attention(device: str, dtype: torch.dtype) -> Answer:
    errors = []
    for queries, keys, causal in ((33, 33, True), (64, 64, True), (77, 77, True), (4, 70, False)):
        given = normal(2, 2, queries, 64, seed=6), normal(2, 2, keys, 64, seed=7), normal(2, 2, keys, 64, seed=8)
        fused = partial(F.scaled_dot_product_attention, is_causal=causal)
        right = partial(_attended, is_causal=causal)
        errors.append(against_reference(fused, given, device, dtype, right=right))
    # probabilities and results are rounded to `dtype`; sums are kept in fp32, whatever their length
    return Answer(worst(errors), rounding(dtype))


def attention_fp16(device: str) -> Answer:
    """Causal fp16 attention, and a few queries, over keys that no tile of 32 fits. #195910: saw later keys; #169222."""
    return _attention(device, torch.float16)


def attention_bf16(device: str) -> Answer:
    """As `attention_fp16`, in bf16. #195910, #169222."""
    return _attention(device, torch.bfloat16)


def _mixed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, str]:
    """LayerNorm of a half input with fp32 weights, and how: torch refuses it on some devices, and autocast then widens it."""
    try:
        return F.layer_norm(x, weight.shape, weight, bias), ""
    except RuntimeError:
        return F.layer_norm(
            x.float(), weight.shape, weight, bias
        ), "as autocast does it: torch refuses the mixture here"


def mixed_layer_norm(device: str) -> Answer:
    """LayerNorm of fp16 and bf16 inputs with fp32 weights."""
    x, weight, bias = normal(6, 50, seed=9), normal(50, seed=10), normal(50, seed=11)
    shares, how = [], ""
    for dtype in (torch.float16, torch.bfloat16):
        found, how = _mixed(x.to(device, dtype), weight.to(device), bias.to(device))
        right = F.layer_norm(x.to(dtype).double(), (50,), weight.double(), bias.double())
        shares.append(distance(found, right) / rounding(dtype))  # only the result is rounded
    return Answer(worst(shares) * rounding(torch.float16), rounding(torch.float16), how)


def frozen_layer_norm(device: str) -> Answer:
    """Gradients of LayerNorm's weights where its input needs none, as after a frozen embedding. #183825."""
    x = normal(40, 64, seed=12)

    def over_frozen(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.to(weight.device, weight.dtype), (64,), weight, bias)

    error = against_reference(over_frozen, (normal(64, seed=13), normal(64, seed=14)), device)
    return Answer(error, rounding(torch.float32, 40))  # gradients are sums over 40 rows


def _hard_to_rank() -> Iterator[torch.Tensor]:
    """Ties; the largest and smallest numbers; all below zero; infinities; integers."""
    yield (2 * normal(5, 7, 33, seed=15)).round()
    yield normal(5, 7, 33, seed=16) * torch.finfo(torch.float32).max / 8
    yield -normal(5, 7, 33, seed=17).abs() - 1
    yield torch.full((5, 7, 33), -torch.inf).index_fill(2, torch.tensor([20, 30]), -1e38)
    yield (2 * normal(5, 7, 33, seed=27)).round().long()


def argmax(device: str) -> Answer:
    """The first of the largest along each dimension of a permuted tensor. #92311, #98191: always -2^63, of integers too."""
    wrong = 0
    for values in _hard_to_rank():
        permuted = values.permute(2, 0, 1)
        for dim in range(3):
            found = values.to(device).permute(2, 0, 1).argmax(dim).cpu().numpy()
            wrong += int((found != permuted.numpy().argmax(dim)).sum())
    return Answer(float(wrong), 0.0, f"{wrong} wrong indices" if wrong else "")


_RATE, _DECAY, _BETAS, _EPS, _STEPS = 0.1, 0.01, (0.9, 0.999), 1e-8, 3


def _adamw(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """AdamW by its formula (Loshchilov and Hutter, algorithm 2), in fp64."""
    first, second, w = torch.zeros(()).double(), torch.zeros(()).double(), weight.double()
    for number, gradient in enumerate(gradients, start=1):
        g = gradient.double()
        first, second = _BETAS[0] * first + (1 - _BETAS[0]) * g, _BETAS[1] * second + (1 - _BETAS[1]) * g * g
        scale = (second / (1 - _BETAS[1] ** number)).sqrt() + _EPS
        w = w - _RATE * _DECAY * w - _RATE * first / (1 - _BETAS[0] ** number) / scale
    return w


def _fused(weight: torch.Tensor) -> tuple[torch.optim.Optimizer, str]:
    """AdamW, fused where the device has it."""
    common: dict[str, Any] = {"lr": _RATE, "weight_decay": _DECAY, "betas": _BETAS, "eps": _EPS}
    try:
        return torch.optim.AdamW([weight], fused=True, **common), "fused"
    except RuntimeError:
        return torch.optim.AdamW([weight], **common), "not fused: torch refuses it here"


def optimizer(device: str) -> Answer:
    """Three steps of AdamW on a transposed weight. #118115: addcdiv was wrong on one."""
    start, gradients = normal(30, 20, seed=18), [normal(20, 30, seed=19 + number) for number in range(_STEPS)]
    weight = start.to(device, copy=True).t().requires_grad_()
    made, how = _fused(weight)
    for gradient in gradients:
        # in the weight's own layout, as autograd gives it: torch 2.13's fused AdamW on the CPU goes through the memory of
        # both side by side, and takes a gradient of another layout for another gradient, in silence
        weight.grad = torch.empty_like(weight).copy_(gradient)
        made.step()
    return Answer(
        distance(weight, _adamw(start.t(), gradients)), rounding(torch.float32, 4 * _STEPS), how
    )  # four roundings a step


def same_seed(device: str) -> Answer:
    """A step with dropout and a draw, twice from one seed: the same masks and numbers."""
    w, given = step.weights(device), step.batch(*step.SHAPES[1], seed=20).on(device)

    def drawn() -> tuple[step.Step, torch.Tensor]:
        torch.manual_seed(21)
        return step.step(w, given, dropout=0.1), torch.randn(100, device=device)

    (first, one), (second, two) = drawn(), drawn()
    # gradients are added by atomics on some devices, in an order of their own
    return Answer(worst([step_error(second, first), distance(two, one)]), rounding(torch.float32, _DEEP))


def compiled(device: str) -> Answer:
    """A block compiled and not, with its gradients. #191976: a compiled LayerNorm was off by its own range."""
    given = normal(4, 34, seed=22), normal(512, 34, seed=23), normal(512, seed=24)

    def block(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(F.gelu(F.linear(x, w, bias)), (512,)).softmax(-1)

    made = torch.compile(block, backend=compiler(device), dynamic=False)
    off, on = (with_gradients(one, given, device, torch.float32) for one in (block, made))
    error = worst(distance(a, b) for a, b in zip(on, off, strict=True))
    return Answer(error, rounding(torch.float32, 512))  # the longest sum is over the normed width


CANARIES: Final[dict[str, Question]] = {
    question.__name__: question
    for question in (
        training_step,
        strided_inputs,
        batched,
        many_rows,
        many_features,
        shape_change,
        many_tokens,
        attention_fp16,
        attention_bf16,
        mixed_layer_norm,
        frozen_layer_norm,
        argmax,
        optimizer,
        same_seed,
        compiled,
    )
}
"""Every canary, in the order in which it is asked."""
