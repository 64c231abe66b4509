"""Quantisation schemes: what each loses beside the lecture's perplexities, and whether the lecture's ordering holds."""

from __future__ import annotations

from typing import Final

from matrix import schemes
from matrix.bundle import Evidence
from matrix.catalog import REFERENCES
from matrix.report.figures import Figure, row_of
from matrix.report.material import cells_of
from matrix.report.svg import Axis, Row, plot
from matrix.report.tables import Entry, Numbers, Table, name_of, rows_of, titles
from matrix.units import DASH, show

_COLUMNS: Final = (
    *schemes.CASES,
    "mean_kl",
    "accuracy_delta",
    "flip_rate",
    "outlier_share",
)
_SHOWN: Final = "6.7B"
"""The paper's first size whose outliers are in every layer."""

_REFERENCE: Final = REFERENCES["quantization_schemes", "intent"]
"""fp32 rounds so little that no axis holds it and a scheme."""

TITLE: Final = "Quantisation schemes"
ABSENT: Final = (
    "No bundle measured them: what absmax, zero-point, row-wise, vector-wise and LLM.int8() lose on matrices with planted outliers "
    "and on the student. This would:"
)
COMMAND: Final = "matrix run cpu --profile standard"


def _perplexity(variant: str) -> Entry:
    """The paper's, of one size; of the others beside it."""
    told = dict(zip(schemes.SIZES, schemes.PERPLEXITIES.get(variant, ()), strict=False))
    if not told:
        return Entry(DASH)
    others = ", ".join(f"{size} {value:.2f}" for size, value in told.items() if size != _SHOWN)
    return Entry(f"{told[_SHOWN]:.2f}", others)


def _losses(evidence: Evidence, numbers: Numbers) -> Table:
    cells = cells_of(evidence, schemes.SUITE)
    data, examples = evidence.bundle.prepared.data, next((cell.examples for cell in cells if cell.examples), None)
    asked = min(examples or data.evaluation.examples, data.evaluation.examples)
    lead = (
        "An error is relative to the product (Frobenius norms), its mean over pairs of random matrices: one feature in a thousand "
        "has values of 20 to 60 beside ordinary ones of about 1, all of one sign, half of these features of either, or there is "
        "none; LLM.int8() is vector-wise with decomposition. "
        f"KL, accuracy and flips are the student's, paired with fp32 over {asked:,} evaluation examples of {data.source} "
        "(Tango's 95 % interval): the scheme takes every linear product of its encoder; pooler and classifier stay fp32. "
        "Features that reach 6.0 are taken out and multiplied in fp16. What the lecture shows stands beside it "
        f"({schemes.SOURCE}): no number of this student is a perplexity, only the order can be compared."
    )
    measured = rows_of(evidence, numbers, cells, lambda cell: [name_of(cell)], _COLUMNS)
    rows = tuple((row[0], _perplexity(cell.variant), *row[1:]) for row, cell in zip(measured, cells, strict=True))
    head = ("Scheme", f"The lecture's perplexity at {_SHOWN}", *titles(_COLUMNS))
    return Table("schemes", "What each scheme loses", lead, head, rows)


def _found(found: schemes.Found) -> Entry:
    return Entry(found.answer, found.why)


def _ordering(evidence: Evidence) -> Table:
    steps = schemes.compared(evidence)
    lead = (
        f"{schemes.summary(steps)} On matrices a step is decided by its sign in every draw, on the student by the paired "
        "difference of KL divergences from fp32; accuracy stands beside it. What is decided in a column is so together with "
        f"{show(1 - schemes.CHANCE * len(schemes.STEPS), 'share')} confidence (Bonferroni)."
    )
    rows = tuple(
        (Entry(one.step.claim), Entry(one.paper), *map(_found, one.matrices.values()), _found(one.student))
        for one in steps
    )
    head = ("The lecture's step", "In the paper", *schemes.CASES.values(), "On the student")
    return Table("ordering", "Does the lecture's ordering hold?", lead, head, rows)


def figure(evidence: Evidence, numbers: Numbers) -> Figure:
    """Each scheme's error on the study's matrices, a group a kind of matrix."""
    rows: list[Row] = []
    for metric, title in schemes.CASES.items():
        found = [
            row_of(name_of(cell).text, judged, tuple(schemes.draws(evidence, cell, metric).values()))
            for cell in cells_of(evidence, schemes.SUITE)
            if (judged := numbers.get((cell.id, metric))) and cell.variant != _REFERENCE
        ]
        rows += [Row(title), *found] if found else []
    axis = Axis("error of a product, relative to it, logarithmic", lambda value: f"{value:.2g}", log=True)
    described = "Error of each scheme's product with and without planted outliers"
    svg = plot(f"plot-schemes-{evidence.bundle.target}", described, rows, axis)
    return Figure(svg, "A dot is one pair of random matrices, the same for every scheme; the black tick is their mean.")


def tables(evidence: Evidence, numbers: Numbers) -> tuple[Table, ...]:
    """What each scheme loses, and the ordering step by step."""
    return (_losses(evidence, numbers), _ordering(evidence))
