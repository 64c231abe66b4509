"""What files of a response student lose, and whether finer types lose less than coarser ones."""

from __future__ import annotations

from typing import Final

import numpy as np

from matrix import ordering
from matrix.bundle import Evidence
from matrix.number import CONFIDENCE
from matrix.report.figures import Figure, row_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, plot
from matrix.report.tables import Entry, Numbers, Table, name_of, rows_of, titles
from matrix.responses import SUITE, told_by
from matrix.units import show

_COLUMNS: Final = (
    "perplexity",
    "perplexity_ratio",
    "token_kl",
    "same_top",
    "mean_delta_p",
    "rms_delta_p",
    "artifact_bytes",
)


def _asked(evidence: Evidence) -> str:
    """How many tokens of how many conversations were judged."""
    told = next((found for cell in cells_of(evidence, SUITE) if (found := told_by(evidence, cell))), None)
    if told is None:
        return "No token"
    return f"{len(told.log_q):,} tokens of {len(np.unique(told.conversations)):,} held-out answers"


def _losses(evidence: Evidence, numbers: Numbers) -> Table:
    shape, response = evidence.bundle.profile.language.student, evidence.bundle.prepared.response
    lead = (
        f"{_asked(evidence)} ({response.source if response else '?'}), by a Llama of {shape.layers} layers and {shape.dim} "
        "dimensions that was trained on the answers to the other half of the questions. KL is from PyTorch fp32's distribution "
        "at each token, Δp the probability of the token that follows minus PyTorch's: the statistics of llama.cpp's perplexity "
        "tool, from logits in fp64, with 95 % intervals over conversations, whose tokens are not independent."
    )
    rows = rows_of(evidence, numbers, cells_of(evidence, SUITE), lambda cell: [name_of(cell)], _COLUMNS)
    return Table("responses", "What each file loses", lead, ("File", *titles(_COLUMNS)), rows)


def _ordering(evidence: Evidence) -> Table:
    steps = ordering.steps(evidence)
    lead = (
        f"{ordering.summary(steps)} Each step is decided by the difference at every token, and what is decided in a column is so "
        f"together with {show(CONFIDENCE, 'share')} confidence (Bonferroni)."
    )
    rows = tuple(
        (
            Entry(f"{name_of(one.coarser).text} loses more than {name_of(one.finer).text}"),
            *(Entry(found.answer, found.why) for found in (one.divergence, one.same)),
        )
        for one in steps
    )
    return Table("types", "Do coarser types lose more?", lead, ("Step", "By KL", "By the same first token"), rows)


def figure(evidence: Evidence, numbers: Numbers) -> Figure:
    """The divergence of each file."""
    rows = [
        row_of(name_of(cell).text, judged, ())
        for cell in cells_of(evidence, SUITE)
        if (judged := numbers.get((cell.id, "token_kl")))
    ]
    axis = Axis("KL a token from PyTorch fp32, nats, logarithmic", lambda value: f"{value:.1e}", log=True)
    svg = plot(f"plot-responses-{evidence.bundle.target}", "Divergence of each file with its interval", rows, axis)
    return Figure(svg, "The bar is the 95 % interval of the mean over conversations.")


def tables(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """What each file loses, and the ordering step by step."""
    found = _ordering(evidence)
    return (_losses(evidence, numbers), *([found] if found.rows else []))
