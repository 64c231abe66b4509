"""One self-contained page, the same tables in Markdown, and everything for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from matrix.bundle import Evidence
from matrix.catalog import METRICS
from matrix.deployment import choices
from matrix.estimates import beside
from matrix.gates import decide
from matrix.number import CONFIDENCE
from matrix.report import html, machine, markdown, page
from matrix.report.badges import MARKS
from matrix.report.material import Material
from matrix.verdict import PRECEDENCE
from tests.making import (
    BREWED,
    EAGER,
    HELD,
    HINTS,
    IMAGE,
    IMPORT,
    INT8,
    LIMITS,
    ORT,
    PACKED,
    PARTS,
    RAW,
    SERVED,
    STAGES,
    STARTED,
    TORCH,
    TRAINER,
    case_of,
    deployment,
    estimates,
    evidence,
    logits,
    policy,
    targets,
    tools,
)

WHOLE = evidence(
    samples={
        RAW: [[0.5] * 8] * 5,
        TRAINER: [[0.6] * 8] * 5,
        HINTS: [[0.55] * 8] * 5,
        STAGES: [[0.7] * 8] * 5,
        BREWED: [[0.8 + 0.02 * launch] * 8 for launch in range(5)],
        EAGER: [[0.010] * 100] * 5,
        ORT: [[0.002] * 100] * 5,
    },
    outputs={TORCH: logits([0] * 2000), INT8: logits([1, 1] + [0] * 1998)},
    labels=np.zeros(2000, dtype=np.int64),
    facts={RAW: {"step_flop": 1e10, "matmul_flop_per_s": 1e11}},
)

BOXED = evidence(
    samples={IMPORT: [[0.2]] * 5, PACKED: [[1.0]] * 2},
    facts={IMPORT: {"import_s": 0.1}, PACKED: PARTS},
    image=IMAGE,
    inventory=HELD,
    confined=(LIMITS, LIMITS),
)
FUNCTION = evidence(
    target="lambda-x86",
    samples={
        SERVED: [[0.004] * 100] * 5,
        SERVED.model_copy(update={"every_ms": 100}): [[0.005] * 100] * 5,
        STARTED: [[0.3]] * 5,
    },
    facts={
        SERVED: {"cpu_call_s": 0.002, "share_s": 0.008, "throttled_share": 0.5},
        STARTED: {"create_s": 0.2, "init_s": 0.1, "peak_bytes": 50e6},
    },
    image=IMAGE,
)


def material(bundles: Sequence[Evidence], torn: Sequence[str] = ()) -> Material:
    """Everything that a report shows of these bundles."""
    case = case_of(bundles, torn=torn)
    judged = case.judged(policy(), 30, CONFIDENCE)
    planned = beside(estimates(), judged, case.profiles.of("full"))
    sites = deployment()
    return Material(case, judged, decide(policy(), case), planned, policy(), tools(), sites, choices(sites, judged))


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
    assert "| transformers Trainer | output | 1.200× slower" in text  # noqa: RUF001
    assert "| ONNX Runtime INT8 | 16 tokens | 2.00 ms [2.00, 2.00] ms ✓ trusted | 2.00 ms ≤ 2.00 ms ✓ trusted |" in text
    assert "-0.10 points [-0.36, +0.09] points ✓ trusted" in text
    assert "— no bound from 100 samples" in text


def test_every_mark_has_a_glyph_a_word_and_a_meaning() -> None:
    """A state is never told by colour alone, and no badge lacks its mark."""
    assert set(PRECEDENCE) <= set(MARKS)
    assert all(mark.glyph and mark.word and mark.meaning for mark in MARKS.values())


def test_only_stacks_of_one_work_are_ranked_in_a_column() -> None:
    """FitNet hints have no ratio of their own; TextBrewer's features are ranked against raw PyTorch's features."""
    (table,) = [one for one in section(WHOLE, "training-cpu-openvino").tables if one.id == "training"]
    ranked, beside = (table.head.index(METRICS[name].title) for name in ("ratio", "method_ratio"))
    shown = {row[0].text: (row[ranked].text, row[beside].text) for row in table.rows}
    assert shown == {
        "raw PyTorch": ("—", "—"),
        "transformers Trainer": ("1.200×", "—"),  # noqa: RUF001 - a product
        "TinyBERT, two stages": ("—", "1.400×"),  # noqa: RUF001 - a product
        "TextBrewer: features and attention": ("1.199×", "—"),  # noqa: RUF001 - a product
        "KD-Zoo: FitNet hints": ("—", "1.100×"),  # noqa: RUF001 - a product
    }


def marks_of_the_map(one: Evidence) -> dict[str, dict[str, str | None]]:
    """What the map says of `one`, by target and by its rows' titles."""
    table = page.build(material([one])).sections[0].tables[0]
    targets = [re.fullmatch(r".* \(([\w-]+)\)", title) for title in table.head[1:]]
    return {
        found[1]: {row[0].text: row[number].mark for row in table.rows}
        for number, found in enumerate(targets, 1)
        if found
    }


def test_targets_that_were_never_measured_say_so() -> None:
    """A column for each target; the A100's cells are `not measured`, and never blank."""
    marks = marks_of_the_map(WHOLE)
    assert list(marks) == list(targets().target)
    assert set(marks["cuda-a100"].values()) == {"not measured", "excluded"}
    assert all(mark for found in marks.values() for mark in found.values())


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
    (told,) = [one for one in made.sections if one.id == "estimates"]
    marks = {row[5].mark for row in told.tables[0].rows}
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


def section(one: Evidence, name: str) -> page.Section:
    """One section of the report of a bundle."""
    return next(found for found in page.build(material([one])).sections if found.id == name)


def told(one: Evidence, name: str, table: str) -> list[list[str]]:
    """The texts of a table's rows."""
    found = next(found for found in section(one, name).tables if found.id == table)
    return [[entry.text for entry in row] for row in found.rows]


def test_an_images_numbers_are_judged_and_counts_are_whole() -> None:
    """Size, layers, packages, builds and age; a build is one time, and has no interval."""
    (row,) = told(BOXED, "packaging-cpu-openvino", "image")
    assert row == ["cpu-openvino", "1.20 GB", "370 MB", "2", "5", "—", "900 ms", "32 days"]
    (entries,) = section(BOXED, "packaging-cpu-openvino").tables[0].rows
    assert [entry.mark for entry in entries] == [None, *["trusted"] * 4, None, "unconfirmed", "trusted"]
    assert entries[6].note == "—"


def test_an_images_parts_licences_and_bill_of_materials_are_shown() -> None:
    """Layers, distributions by size, imports, licences by count, and who names none."""
    name = "packaging-cpu-openvino"
    assert told(BOXED, name, "layers")[1] == ["COPY /opt/venv", "1.12 GB", "340 MB"]
    assert [row[0] for row in told(BOXED, name, "distributions")] == ["torch", "numpy", "old", "Small_One"]
    assert [row[0] for row in told(BOXED, name, "imports")] == ["numpy"]
    assert told(BOXED, name, "licences")[-1] == ["2", "unknown", "Small_One, old"]
    text = html.render(page.build(material([BOXED])))
    assert f"sbom.cdx.json (CycloneDX 1.6) of bundle {BOXED.name}" in text
    assert 'id="plot-packaging-cpu-openvino"' in text


def test_a_functions_model_is_a_layer_of_its_own() -> None:
    """What the layers' table sums to is the image that was measured."""
    size = sum(layer.bytes for layer in IMAGE.layers)
    packed = sum(layer.compressed_bytes for layer in IMAGE.layers)
    facts = {"image_bytes": size + 2e7, "compressed_bytes": packed + 1e7, "bytes:model": 2e7}
    one = evidence(target="lambda-x86", samples={PACKED: [[1.0]]}, facts={PACKED: facts}, image=IMAGE)
    assert told(one, "packaging-lambda-x86", "layers")[-1][1:] == ["20.0 MB", "10.0 MB"]


def test_a_native_bundle_shows_its_imports_and_says_that_it_had_no_image() -> None:
    """No table of an image that was not there, and no plot."""
    one = evidence(samples={IMPORT: [[0.2]] * 5}, facts={IMPORT: {"import_s": 0.1}})
    found = section(one, "packaging-cpu-openvino")
    assert "without an image" in found.lead
    assert [table.id for table in found.tables] == ["imports"]
    assert [figure.svg for figure in found.figures] == [""]


def test_an_image_that_could_not_be_measured_says_why() -> None:
    """Its row stands, with the error; its layers are known from its build."""
    one = evidence(samples={PACKED: [[1.0]], IMPORT: [[0.2]]}, lost={(PACKED, 1): "ValueError: boom"}, image=IMAGE)
    found = section(one, "packaging-cpu-openvino")
    assert [table.id for table in found.tables] == ["image", "layers", "imports"]
    assert (found.tables[0].rows[0][1].mark, found.tables[0].rows[0][1].hint) == ("failed", "ValueError: boom")


def test_packaging_is_one_row_of_the_matrix() -> None:
    """The worst of the image and its imports."""
    marks = marks_of_the_map(BOXED)
    assert [name for name in marks["cpu-openvino"] if "import" in name or "packag" in name] == ["packaging"]
    assert marks["cpu-openvino"]["packaging"] == "unconfirmed"
    assert marks["lambda-x86"]["packaging"] == "not measured"


def test_a_suite_of_which_nothing_was_planned_has_no_section() -> None:
    """A function trains nothing."""
    assert [found.id for found in page.build(material([FUNCTION])).sections if "lambda" in found.id] == [
        "latency-lambda-x86",
        "reproduce-lambda-x86-quick",
    ]


def test_a_functions_latencies_are_told_by_memory_and_way_of_calling() -> None:
    """Warm beside what its share of a CPU explains, cold by its init; nothing of it is believed."""
    back, spaced = told(FUNCTION, "latency-lambda-x86", "function-warm")
    assert back[:4] == ["1024 MB, 58 % CPU", "16 tokens", "back to back", "4.00 ms"]
    assert back[5:] == ["2.00 ms", "8.00 ms", "0.500×", "50.00 %", "—"]  # noqa: RUF001 - the multiplication sign is what is meant
    assert (spaced[2], spaced[7]) == ("one each 100 ms", "—")
    (start,) = told(FUNCTION, "latency-lambda-x86", "function-cold")
    assert start[1:] == ["throttled", "300 ms", "200 ms", "100 ms", "50.0 MB"]
    warm = section(FUNCTION, "latency-lambda-x86").tables[0]
    assert {entry.mark for row in warm.rows for entry in row if entry.mark} == {"emulated"}
    assert "memory / 1769 MB" in warm.lead
    assert ">1024 MB, 58 % CPU, back to back<" in section(FUNCTION, "latency-lambda-x86").figures[0].svg


def test_the_image_and_the_limits_are_facts_of_the_environment() -> None:
    """By name and digest; what the container was denied; and which limit did not hold."""
    facts = dict(told(BOXED, "reproduce-cpu-openvino-quick", "environment"))
    assert facts["image"].startswith("cpu-openvino 1d1d1d1d1d1d for linux/amd64")
    assert "user 10001; files read-only; network lo; no capabilities" in facts["limits"]
    assert "limits broken" not in facts
    held = LIMITS.model_copy(update={"read_only": False})
    broken = evidence(samples={IMPORT: [[0.2]]}, image=IMAGE, confined=(LIMITS, held))
    facts = dict(told(broken, "reproduce-cpu-openvino-quick", "environment"))
    assert facts["limits broken"] == "launch 1: read_only is False, asked was True"


def test_a_variant_that_the_catalog_has_no_more_is_told_by_its_name() -> None:
    """A bundle outlives the code that measured it."""
    gone = IMPORT.model_copy(update={"variant": "import_gone"})
    one = evidence(samples={gone: [[0.2]]}, facts={gone: {"import_s": 0.1}})
    assert told(one, "packaging-cpu-openvino", "imports")[0][0] == "import_gone"
