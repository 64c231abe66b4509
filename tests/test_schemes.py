"""The lecture's ordering of schemes is decided by numbers, and undecided where they do not carry it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from matrix.bundle import Evidence
from matrix.catalog import VARIANTS
from matrix.cell import Cell
from matrix.report import html, machine, markdown, page
from matrix.report.tables import Table
from matrix.schemes import CASES, PERPLEXITIES, SIZES, STEPS, Compared, compared, summary
from tests.making import TORCH, evidence, logits
from tests.test_report import material

EXAMPLES = 400
CELLS = {name: Cell(suite="quantization_schemes", workload="intent", variant=name, batch=64) for name in PERPLEXITIES}
LOSSES = {name: 0.01 * (9 - place) if place else 1e-7 for place, name in enumerate(PERPLEXITIES)}
"""Each scheme of the table loses less than the one before it; fp32, which is first, nothing."""


def drawn(error: float, spoilt: int = 0) -> dict[str, float]:
    """A cell's facts: each case's mean, and ten draws, of which some have a hundredfold error."""
    facts = dict.fromkeys(CASES, error)
    return facts | {f"{case}:{n}": error * (100 if n < spoilt else 1) for case in CASES for n in range(10)}


def moved(by: float, seed: int = 1) -> npt.NDArray[np.float32]:
    """Logits that noise of this size moved away from fp32's."""
    noise = np.random.default_rng(seed).standard_normal((EXAMPLES, 10))
    return (logits([0] * EXAMPLES) + by * noise).astype(np.float32)


def studied(
    facts: Mapping[str, Mapping[str, float]] | None = None, outputs: Mapping[str, npt.NDArray[np.float32]] | None = None
) -> Evidence:
    """A bundle of the study whose every step holds; with other facts and outputs of some schemes."""
    held = {name: drawn(loss) for name, loss in LOSSES.items()} | dict(facts or {})
    answered = {name: moved(loss) for name, loss in LOSSES.items()} | dict(outputs or {})
    return evidence(
        outputs={CELLS[name]: array for name, array in answered.items()},
        labels=np.zeros(EXAMPLES, dtype=np.int64),
        facts={CELLS[name]: told for name, told in held.items()},
    )


def step(one: Evidence, lower: str, higher: str) -> Compared:
    """The step between two schemes."""
    (found,) = [c for c in compared(one) if (c.step.lower, c.step.higher) == (lower, higher)]
    return found


def test_the_papers_table_has_a_row_a_variant_and_a_column_a_size() -> None:
    """Row-wise is below absmax at 125M, 6.7B and 13B; the two LLM.int8() are equal at the largest two."""
    assert list(PERPLEXITIES) == [one.name for one in VARIANTS if one.suite == "quantization_schemes"]
    assert {len(row) for row in PERPLEXITIES.values()} == {len(SIZES)}
    assert step(studied(), "absmax_row_wise", "absmax").paper == "at 3 of 5 sizes"
    assert step(studied(), "llm_int8_zeropoint", "llm_int8").paper == "at 3 of 5 sizes (equal at 2)"


def test_ten_draws_of_ten_decide_and_nine_do_not() -> None:
    """The sign test: 10 of 10 by chance in 0.2 %, 9 in 2.1 %, more than a ninth of 5 % (0.56 %); either way."""
    found = step(studied(), "zeropoint", "absmax").matrices["product_error"]
    assert (found.answer, found.why) == ("holds", "0.875 times its error, smaller in 10 of 10 draws")  # 0.07 / 0.08
    nine = studied(facts={"zeropoint": drawn(LOSSES["zeropoint"], spoilt=1)})
    assert step(nine, "zeropoint", "absmax").matrices["product_error"].answer == "undecided"
    against = studied(facts={"zeropoint": drawn(0.5)})
    assert step(against, "zeropoint", "absmax").matrices["plain_error"].answer == "does not hold"
    alike = studied(facts={"zeropoint": drawn(LOSSES["absmax"])})
    assert step(alike, "zeropoint", "absmax").matrices["plain_error"].why == "the same error in each of 10 draws"


def test_the_student_decides_by_paired_divergences() -> None:
    """Half the noise is a quarter of the KL, beyond chance; noise of one size and two seeds is undecided; equal is equal."""
    half = studied(outputs={"absmax": moved(0.2), "zeropoint": moved(0.1)})
    assert step(half, "zeropoint", "absmax").student.answer == "holds"
    twice = studied(outputs={"absmax": moved(0.1), "zeropoint": moved(0.2)})
    assert step(twice, "zeropoint", "absmax").student.answer == "does not hold"
    chance = studied(outputs={"absmax": moved(0.1), "zeropoint": moved(0.1, seed=2)})
    found = step(chance, "zeropoint", "absmax").student
    assert found.answer == "undecided"
    assert "accuracy by +0.00 points" in found.why
    equal = step(studied(outputs={"absmax": moved(0.1), "zeropoint": moved(0.1)}), "zeropoint", "absmax").student
    assert (equal.answer, equal.why) == ("undecided", "the same logits on each of 400 examples")


def test_what_no_launch_measured_is_said() -> None:
    """A scheme without draws and outputs is not decided by another's."""
    lost = evidence(samples={cell: [[1.0]] for cell in CELLS.values()})
    found = step(lost, "zeropoint", "absmax")
    assert {found.student.answer, *(one.answer for one in found.matrices.values())} == {"not measured"}
    assert "planted, one sign: 0 of 9 hold, 9 not measured" in summary(compared(lost))


def tables(one: Evidence) -> list[Table]:
    """The two tables of the study's section."""
    (section,) = [found for found in page.build(material([one])).sections if found.id == "schemes-cpu-openvino"]
    return list(section.tables)


def test_the_section_sets_losses_beside_the_lectures_perplexities() -> None:
    """A row a scheme in the lecture's order, each number with its badge; the ordering step by step."""
    losses, ordering = tables(studied())
    assert [row[0].text for row in losses.rows][:3] == ["fp32", "absmax", "zero-point"]
    row = losses.rows[1]
    assert (row[2].text, row[2].mark) == ("0.08", "trusted")
    assert (row[1].text, row[1].note) == ("14.59", "125M 87.76, 1.3B 16.55, 2.7B 15.11, 13B 19.08")
    assert [row[0].text for row in ordering.rows] == [one.claim for one in STEPS]
    assert {entry.text for row in ordering.rows for entry in row[2:]} == {"holds"}
    assert "planted, either sign: 9 of 9 hold; no outlier: 9 of 9 hold; on the student: 9 of 9 hold." in ordering.lead


def test_a_report_without_the_study_says_which_command_makes_it() -> None:
    """An empty section is no section: it names the command, and with the study it is gone."""
    bare = page.build(material([evidence(outputs={TORCH: logits([0] * 9)}, labels=np.zeros(9, dtype=np.int64))]))
    assert "matrix run cpu --profile standard" in markdown.render(bare)
    assert "No bundle measured them" in html.render(bare)
    assert "No bundle measured them" not in html.render(page.build(material([studied()])))


def test_a_machine_reads_every_step() -> None:
    """With the paper's numbers, answers, and the sentence that a person reads."""
    told = json.loads(machine.render(material([studied()])))["schemes"]
    assert told["perplexities"]["absmax"]["6.7B"] == 14.59
    (bundle,) = told["bundles"]
    assert [one["claim"] for one in bundle["steps"]] == [one.claim for one in STEPS]
    first = bundle["steps"][0]
    assert (first["matrices"]["product_error"]["answer"], first["student"]["answer"]) == ("holds", "holds")
    assert first["says"].startswith(
        "Zero-point loses less than absmax at 5 of 5 sizes of the paper; on matrices: planted, one"
    )
