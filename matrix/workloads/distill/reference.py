"""The losses written out from their definitions, in fp64 on the CPU (MPS has no fp64), sharing no code with the stacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

_IGNORED: Final = -100
"""The label of a token that no loss looks at: torch's own."""


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.logsumexp(-1, keepdim=True)


def hard(student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy, `mean(-log p_y)` with `p = softmax(student)`; logits batch x classes, labels batch."""
    return -_log_softmax(student.cpu().double()).gather(1, labels.cpu()[:, None]).mean()


def soft(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """`T^2 * mean(sum q (log q - log p))`, `p = softmax(student / T)`, `q = softmax(teacher / T)` (Hinton et al. 2015)."""
    log_p, log_q = (_log_softmax(logits.cpu().double() / temperature) for logits in (student, teacher))
    return temperature**2 * (log_q.exp() * (log_q - log_p)).sum(-1).mean()


def output_kd(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """`(1 - alpha) * hard + alpha * soft`: the work of every output-KD stack."""
    return (1 - alpha) * hard(student, labels) + alpha * soft(student, teacher, temperature)


def several_teachers(
    student: torch.Tensor, teachers: Sequence[torch.Tensor], labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """`(1 - alpha) * hard + alpha * T^2 * mean(sum q (log q - log p))`, `q = 1/K sum_k softmax(t_k / T)` of K teachers."""
    log_p = _log_softmax(student.cpu().double() / temperature)
    q = sum(_log_softmax(logits.cpu().double() / temperature).exp() for logits in teachers) / len(teachers)
    divergence = (torch.special.xlogy(q, q) - q * log_p).sum(-1).mean()
    return (1 - alpha) * hard(student, labels) + alpha * temperature**2 * divergence


def _predicted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probabilities where the next token has a label, in fp64: labelled tokens x vocabulary."""
    rows, positions = torch.nonzero(labels != _IGNORED, as_tuple=True)
    return _log_softmax(logits[rows, positions - 1].cpu().double())


def answers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`mean(-log p(y_t | y_<t))` over the batch's labelled tokens; logits batch x length x vocabulary, labels -100 elsewhere."""
    said = labels[labels != _IGNORED].cpu()
    return -_predicted(logits, labels).gather(1, said[:, None]).mean()


def token_divergence(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Mean over the labelled tokens of the generalised Jensen-Shannon divergence (Agarwal et al. 2024, eq. 1), temperature 1.

    `beta KL(q || m) + (1 - beta) KL(p || m)` with `m = beta q + (1 - beta) p`, student p, teacher q; its limits, each divided
    by its vanishing factor, are `KL(q || p)` at beta 0 and `KL(p || q)` at beta 1.
    """
    log_p, log_q = _predicted(student, labels), _predicted(teacher, labels)
    if beta in {0.0, 1.0}:
        of, to = (log_q, log_p) if beta == 0 else (log_p, log_q)
        return (of.exp() * (of - to)).sum(-1).mean()
    log_m = (beta * log_q.exp() + (1 - beta) * log_p.exp()).log()
    parts = [(log.exp() * (log - log_m)).sum(-1).mean() for log in (log_q, log_p)]
    return beta * parts[0] + (1 - beta) * parts[1]
