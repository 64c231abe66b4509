"""The feature losses written out from their definitions, in fp64 on the CPU, example by example, sharing no code with the stacks.

Tensors are as `features.Seen` describes them; a mask is batch x tokens, 0 where a token is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from matrix.workloads.distill.features import LayerMap, Seen

_LEAST = 1e-12
"""What is divided by is no smaller."""


def _real(*tensors: Tensor, mask: Tensor) -> Iterator[list[Tensor]]:
    """Each example's rows without padding, fp64."""
    exact = [one.cpu().double() for one in tensors]
    for index, kept in enumerate(mask.cpu().bool()):
        yield [one[index][kept] for one in exact]


def hidden_states(student: Tensor, teacher: Tensor, projection: torch.nn.Module, mask: Tensor) -> Tensor:
    """`mean (W s + b - t)^2` over real tokens and the teacher's width (Romero et al. 2015, eq. 3; Jiao et al. 2020, eq. 8)."""
    weight, bias = (one.cpu().double() for one in projection.parameters())
    squares = [(s @ weight.T + bias - t) ** 2 for s, t in _real(student, teacher, mask=mask)]
    return sum(one.sum() for one in squares) / sum(one.numel() for one in squares)


def attentions(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """`mean (A_s - A_t)^2` over heads and pairs of real tokens, of probabilities (Jiao et al. 2020, eq. 7, has scores)."""
    squares = []
    for example, kept in enumerate(mask.cpu().bool()):
        for mine, theirs in zip(student[example].cpu().double(), teacher[example].cpu().double(), strict=True):
            squares.append(((mine - theirs) ** 2)[kept][:, kept].flatten())
    return torch.cat(squares).mean()


def tinybert_features(
    student: Seen, teacher: Seen, projections: Sequence[torch.nn.Module], layers: LayerMap, mask: Tensor
) -> Tensor:
    """TinyBERT's first stage: every hidden state and every layer's attention, summed, all of weight 1, no labels.

    Jiao et al. 2020, eq. 7 to 9 and 11: `hidden_states` of the student's embeddings and layers m = 1 to M, each with a projection
    of its own (the paper shares one among the layers), and `attentions` of its layers, beside the teacher's `layers[m]`.
    """
    found = hidden_states(student.states[0], teacher.states[layers[0]], projections[0], mask)
    for m in range(1, len(layers)):
        found = found + hidden_states(student.states[m], teacher.states[layers[m]], projections[m], mask)
        found = found + attentions(student.attentions[m - 1], teacher.attentions[layers[m] - 1], mask)
    return found


def attention_transfer(pairs: Iterable[tuple[Tensor, Tensor]], mask: Tensor) -> Tensor:
    """Mean over layers of `mean (Q_s / |Q_s| - Q_t / |Q_t|)^2`, `Q = sum_heads A^2` (Zagoruyko, Komodakis 2017, eq. 2, p = 2)."""
    layers = []
    for student, teacher in pairs:
        squares = []
        for example, kept in enumerate(mask.cpu().bool()):
            maps = []
            for attention in (student, teacher):
                heads = attention[example].cpu().double()[:, kept][:, :, kept]
                summed = sum(head * head for head in heads)
                maps.append(summed / (summed * summed).sum().sqrt())
            squares.append(((maps[0] - maps[1]) ** 2).flatten())
        layers.append(torch.cat(squares).mean())
    return sum(layers) / len(layers)


def _huber(x: Tensor) -> Tensor:
    return torch.where(x.abs() <= 1, 0.5 * x**2, x.abs() - 0.5)


def _safe_norm(rows: Tensor) -> Tensor:
    """The norm of each row, whose gradient is 0 where a row is 0; rows x 1."""
    squared = (rows * rows).sum(-1, keepdim=True)
    return torch.where(squared > 0, squared, 1).sqrt() * (squared > 0)


def _distances(embeddings: Tensor) -> Tensor:
    """`|a_i - a_j| / mu` with mu the mean over i != j, N x N (Park et al. 2019, section 3.2.1)."""
    rows = torch.cat([_safe_norm(embeddings - one) for one in embeddings], 1)
    count = len(embeddings)
    return rows / (rows.sum() / max(1, count * (count - 1))).clamp_min(_LEAST)


def _angles(embeddings: Tensor, at: int) -> Tensor:
    """`cos` of the angle i-`at`-j, N x N, 0 where two examples are one (Park et al. 2019, section 3.2.2)."""
    arms = embeddings - embeddings[at]
    directions = arms / _safe_norm(arms).clamp_min(_LEAST)
    return torch.einsum("ic,jc->ij", directions, directions)


def relational(student: Tensor, teacher: Tensor, *, distance: float, angle: float) -> Tensor:
    """`distance * mean_ij huber + angle * mean_ijk huber` of the differences of relative distances and of cosines.

    Park et al. 2019, section 3.2, Huber's delta 1; means over all N^2 and N^3, of which those with an example twice are 0.
    """
    s, t = student.cpu().double(), teacher.cpu().double()
    far = _huber(_distances(s) - _distances(t)).mean()
    turned = [_huber(_angles(s, at) - _angles(t, at)).mean() for at in range(len(s))]
    return distance * far + angle * sum(turned) / len(turned)


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """`1/b^2 ||G_s - G_t||^2`, `G` the rows of `Q Q^T` over their norms (Tung, Mori 2019, section 3)."""
    s, t = student.cpu().double(), teacher.cpu().double()
    total = s.new_zeros(())
    for i in range(len(s)):
        mine, theirs = (torch.stack([(q[i] * other).sum() for other in q]) for q in (s, t))
        total = total + ((mine / (mine @ mine).sqrt() - theirs / (theirs @ theirs).sqrt()) ** 2).sum()
    return total / len(s) ** 2


def _kernel_mean(left: Tensor, right: Tensor) -> Tensor:
    """`mean_ij (f_i . g_j)^2`, a column a unit."""
    return (left.T @ right).pow(2).mean()


def selectivity(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """`mean k(t, t') + mean k(s, s') - 2 mean k(s, t)`, units over real tokens divided by their norm, mean over the batch.

    Huang, Wang 2017, section 4, with `k(x, y) = (x . y)^2`.
    """
    found = []
    for states in _real(student, teacher, mask=mask):
        s, t = (one / one.pow(2).sum(0).sqrt().clamp_min(_LEAST) for one in states)
        found.append(_kernel_mean(t, t) + _kernel_mean(s, s) - 2 * _kernel_mean(s, t))
    return torch.stack(found).mean()


def _conditional(embeddings: Tensor, i: int) -> Tensor:
    """`K(i, j) / sum_k K(i, k)`, `K(a, b) = (cos(a, b) + 1) / 2` (Passalis, Tefas 2018, section 3)."""
    lengths = (embeddings * embeddings).sum(1).sqrt()
    kernel = 0.5 * ((embeddings * embeddings[i]).sum(1) / (lengths * lengths[i]) + 1)
    return kernel / kernel.sum()


def neighbours(student: Tensor, teacher: Tensor, *, epsilon: float) -> Tensor:
    """`mean_ij p log(p / q)` of conditional probabilities + epsilon, p the teacher's (Passalis, Tefas 2018, section 3)."""
    s, t = student.cpu().double(), teacher.cpu().double()
    rows = []
    for i in range(len(s)):
        q, p = _conditional(s, i) + epsilon, _conditional(t, i) + epsilon
        rows.append(p * (p.log() - q.log()))
    return torch.stack(rows).mean()
