"""One self-contained page, the same tables in Markdown, and everything for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from matrix.bundle import Evidence
from matrix.estimates import compare
from matrix.gates import decide
from matrix.report import html, machine, markdown, page
from matrix.report.badges import MARKS
from matrix.report.material import Material
from matrix.trust import judge
from matrix.verdict import PRECEDENCE
from tests.making import (
    EAGER,
    INT8,
    NOW,
    ORT,
    RAW,
    TODAY,
    TORCH,
    TRAINER,
    estimates,
    evidence,
    logits,
    policy,
    profiles,
    targets,
)

WHOLE = evidence(
    samples={RAW: [[0.5] * 8] * 5, TRAINER: [[0.6] * 8] * 5, EAGER: [[0.010] * 100] * 5, ORT: [[0.002] * 100] * 5},
    outputs={TORCH: logits([0] * 2000), INT8: logits([1, 1] + [0] * 1998)},
    labels=np.zeros(2000, dtype=np.int64),
    facts={RAW: {"step_flop": 1e10, "matmul_flop_per_s": 1e11}},
)


def material(bundles: Sequence[Evidence], torn: Sequence[str] = ()) -> Material:
    """Everything that a report shows of these bundles."""
    judged = judge(bundles, targets(), policy(), TODAY, days=30)
    names = [one.name for one in bundles]
    verdict = decide(policy(), judged, targets(), profiles(), invalid=torn, bundles=names)
    planned = [compare(estimate, judged) for estimate in estimates().estimate]
    return Material(bundles, judged, verdict, planned, policy(), targets(), profiles(), NOW, torn)


def test_the_page_needs_no_network_and_no_script() -> None:
    """A content policy that forbids both, no script element, and no address to fetch."""
    text = html.render(page.build(material([WHOLE])))
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "url(" not in text


def test_the_same_evidence_gives_the_same_bytes() -> None:
    """Twice, and with the bundles in the order of their age."""
    first, again = (html.render(page.build(material([WHOLE]))) for _ in range(2))
    assert first == again
    assert machine.render(material([WHOLE])) == machine.render(material([WHOLE]))


def test_every_number_of_the_suites_has_an_interval_or_a_bound_and_a_badge() -> None:
    """Rows of the three suites hold value, interval and word."""
    text = markdown.render(page.build(material([WHOLE])))
    assert "| raw PyTorch | 500 ms [500, 500] ms ✓ trusted |" in text
    assert "| ONNX Runtime INT8 | 16 tokens | 2.00 ms [2.00, 2.00] ms ✓ trusted | 2.00 ms ≤ 2.00 ms ✓ trusted |" in text
    assert "-0.10 points [-0.36, +0.09] points ✓ trusted" in text
    assert "— no bound from 100 samples" in text


def test_every_mark_has_a_glyph_a_word_and_a_meaning() -> None:
    """A state is never told by colour alone, and no badge lacks its mark."""
    assert set(PRECEDENCE) <= set(MARKS)
    assert all(mark.glyph and mark.word and mark.meaning for mark in MARKS.values())


def test_targets_that_were_never_measured_say_so() -> None:
    """A row for each target; the A100's cells are `not measured`, and never blank."""
    table = page.build(material([WHOLE])).sections[0].tables[0]
    rows = {row[0].note: [entry.mark for entry in row[1:]] for row in table.rows}
    assert list(rows) == list(targets().target)
    assert set(rows["cuda-a100"]) == {"not measured", "excluded"}
    assert all(mark for marks in rows.values() for mark in marks)


def test_a_cell_that_failed_in_every_launch_stands_in_its_row_with_its_error() -> None:
    """Planned, raised, and visible."""
    lost = {(ORT, index): "Traceback\nValueError: boom" for index in range(1, 6)}
    one = evidence(samples={EAGER: [[0.01] * 100] * 5, ORT: [[0.01] * 100] * 5}, lost=lost)
    text = html.render(page.build(material([one])))
    assert 'title="ValueError: boom"' in text
    assert "failed" in text


def test_a_damaged_and_a_torn_bundle_are_shown_and_do_not_break_the_page() -> None:
    """Nothing of them is drawn; both are named as invalid, and the verdict is."""
    damaged = replace(WHOLE, measured={}, arrays={}, faults=("outputs/x.npy: changed",))
    made = page.build(material([damaged], torn=["mps-123: no readable manifest"]))
    text = markdown.render(made)
    assert made.sentence.startswith("mangaassist-production: INVALID")
    assert "mps-123: no readable manifest" in text
    assert "⊘ invalid" in text


def test_an_empty_store_gives_a_page_of_what_is_missing() -> None:
    """No bundle: every estimate is not measured or not comparable, and the verdict fails."""
    made = page.build(material([]))
    assert made.answer == "fail"
    marks = {row[4].mark for row in made.sections[2].tables[0].rows}
    assert marks == {"not measured", "not comparable"}


def test_text_from_outside_cannot_become_markup() -> None:
    """An error message with angle brackets stays text."""
    lost = {(ORT, index): "<script>alert(1)</script>" for index in range(1, 6)}
    one = evidence(samples={EAGER: [[0.01] * 100] * 5, ORT: [[0.01] * 100] * 5}, lost=lost)
    assert "<script>" not in html.render(page.build(material([one])))


def test_the_machine_readable_report_holds_every_number_with_its_reasons() -> None:
    """JSON without NaN; each number with state and bundle."""
    facts = json.loads(machine.render(material([WHOLE])))
    assert {one["bundle"] for one in facts["numbers"]} == {WHOLE.name}
    (p99,) = [one for one in facts["numbers"] if one["metric"] == "p99_s" and one["cell"] == ORT.id]
    assert p99["value"] is None
    assert p99["state"]["reasons"][0]["rule"] == "minimum"


@pytest.mark.parametrize("metric", ["training", "exports", "latency"])
def test_each_suite_has_a_plot_with_a_text_alternative(metric: str) -> None:
    """An image that says what it shows."""
    text = html.render(page.build(material([WHOLE])))
    assert re.search(rf'<svg id="plot-{metric}-cpu-openvino" [^>]*role="img" aria-label="[^"]+"', text)
