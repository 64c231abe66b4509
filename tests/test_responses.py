"""What a response student's files lose is judged over conversations, and an ordering is decided by numbers alone."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from matrix import ordering, stats
from matrix.bundle import Evidence
from matrix.cell import Cell
from matrix.findings import findings_of
from matrix.report import machine, markdown, page
from matrix.responses import told_by
from matrix.units import show
from tests.making import evidence
from tests.test_report import material

NAMES = ("torch_fp32", *ordering.ORDER)
CELLS = {name: Cell(suite="response_quality", workload="response", variant=name) for name in NAMES}
CONVERSATIONS, TOKENS = 40, 5
LABELS = np.repeat(np.arange(CONVERSATIONS), TOKENS)


def rows(loss: float, apart: int = 0, seed: int = 1) -> npt.NDArray[np.float64]:
    """A file that finds every token less probable by `loss` nats, diverges by about as much, and has `apart` other first tokens."""
    rng = np.random.default_rng(seed)
    log_p = np.log(rng.uniform(0.2, 0.9, LABELS.size))
    divergence = loss * rng.uniform(0.5, 1.5, LABELS.size)
    same = np.ones(LABELS.size)
    same[rng.permutation(LABELS.size)[:apart]] = 0
    return np.stack([log_p - loss, log_p, divergence, same], axis=1)


LOSSES = {
    "torch_fp32": (0.0, 0),
    "gguf_f16": (1e-6, 0),
    "gguf_q8_0": (1e-3, 20),
    "gguf_q6_k": (1e-2, 60),
    "gguf_q4_k_m": (1e-1, 130),
}


def judged(**other: npt.NDArray[np.float64]) -> Evidence:
    """A bundle whose every step holds by divergence; with other rows of some files."""
    outputs = {name: rows(*loss) for name, loss in LOSSES.items()} | other
    return evidence(outputs={CELLS[name]: array for name, array in outputs.items()}, labels=LABELS)


def test_the_statistics_are_those_of_the_perplexity_tool() -> None:
    """Perplexity is exp of the mean negative log probability; the ratio, KL, first tokens and Δp are against the reference."""
    found = {(one.cell.variant, one.metric): one for one in findings_of(judged())}
    told = rows(1e-2, 60)
    assert found["gguf_q6_k", "perplexity"].value == pytest.approx(math.exp(-told[:, 0].mean()))
    assert found["gguf_q6_k", "perplexity_ratio"].value == pytest.approx(math.exp(1e-2))
    assert found["gguf_q6_k", "token_kl"].value == pytest.approx(told[:, 2].mean())
    assert found["gguf_q6_k", "same_top"].value == pytest.approx(140 / 200)
    delta = np.exp(told[:, 0]) - np.exp(told[:, 1])
    assert found["gguf_q6_k", "mean_delta_p"].value == pytest.approx(delta.mean())
    assert found["gguf_q6_k", "rms_delta_p"].value == pytest.approx(math.sqrt((delta**2).mean()))
    assert {metric for name, metric in found if name == "torch_fp32"} == {"perplexity"}


def test_an_interval_is_over_conversations() -> None:
    """Tokens that repeat their conversation's value say no more than one of them; a lone conversation has no interval."""
    values = np.repeat(np.random.default_rng(2).normal(size=CONVERSATIONS), TOKENS)
    ours, one_each = stats.clustered_interval(values, LABELS), stats.mean_interval(list(values[::TOKENS]))
    assert ours is not None
    assert one_each is not None
    assert ours == pytest.approx(one_each)
    assert stats.clustered_interval(values[:TOKENS], LABELS[:TOKENS]) is None
    assert stats.clustered_interval(values * np.nan, LABELS) is None


def test_a_file_that_never_differs_is_not_beyond_doubt() -> None:
    """All first tokens alike in 40 conversations: up to 8.8 % of conversations may yet differ (exact, 95 %)."""
    (found,) = [one for one in findings_of(judged()) if (one.cell.variant, one.metric) == ("gguf_f16", "same_top")]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / CONVERSATIONS))


def test_every_step_holds_where_each_type_loses_more() -> None:
    """By divergence and by first token, each with its difference."""
    steps = ordering.steps(judged())
    assert [(one.divergence.answer, one.same.answer) for one in steps] == [("holds", "holds")] * 3
    assert "by KL 3 of 3 hold; by the same first token 3 of 3 hold" in ordering.summary(steps)


def test_a_step_is_reversed_undecided_or_not_measured_by_its_numbers() -> None:
    """A finer type that loses more is said to; equal ones and lost ones decide nothing."""
    reversed_ = ordering.steps(judged(gguf_q8_0=rows(0.05, 100)))
    assert (reversed_[1].divergence.answer, reversed_[1].same.answer) == ("does not hold", "does not hold")
    equal = ordering.steps(judged(gguf_q8_0=rows(*LOSSES["gguf_f16"])))
    assert (equal[0].divergence.answer, equal[0].divergence.why) == ("undecided", "the same on each of 200 tokens")
    chance = ordering.steps(judged(gguf_q8_0=rows(1e-2, seed=3)))
    assert chance[1].divergence.answer == "undecided"
    lost = evidence(samples={cell: [[1.0]] for cell in CELLS.values()})
    assert told_by(lost, CELLS["gguf_f16"]) is None
    assert {one.divergence.answer for one in ordering.steps(lost)} == {"not measured"}
    assert "by KL 0 of 3 hold (not measured, not measured, not measured)" in ordering.summary(ordering.steps(lost))


def test_the_report_has_the_losses_and_the_steps() -> None:
    """A row a file with its badge, a row a step; a machine reads the same."""
    made = page.build(material([judged()]))
    (section,) = [one for one in made.sections if one.id == "responses-cpu-openvino"]
    losses, steps = section.tables
    assert "200 tokens of 40 held-out answers" in losses.lead
    assert [row[0].text for row in losses.rows] == ["PyTorch fp32", "GGUF f16", "GGUF Q8_0", "GGUF Q6_K", "GGUF Q4_K_M"]
    assert steps.rows[0][0].text == "GGUF Q8_0 loses more than GGUF f16"
    assert "GGUF Q4_K_M loses more than GGUF Q6_K" in markdown.render(made)
    told = json.loads(machine.render(material([judged()])))
    assert any(one["metric"] == "token_kl" for one in told["numbers"])


def generating(variant: str) -> dict[Cell, list[list[float]]]:
    """Three launches of each kind of call: a prompt in 20 ms, behind a kept prefix in 2 ms, 64 tokens in 40 ms."""
    same = {"suite": "generation", "workload": "response", "variant": variant, "batch": 1}
    return {
        Cell(**same, mode="prefill", length=256): [[0.020] * 9] * 3,
        Cell(**same, mode="prefix", length=256): [[0.002] * 9] * 3,
        Cell(**same, mode="decode", length=64): [[0.040] * 9] * 3,
    }


def test_rates_are_tokens_of_a_call_by_its_time() -> None:
    """256 tokens in 20 ms are 12,800 a second; the first token comes with the call's end; a ratio is against f16's call."""
    slower = {
        cell: [[2 * value for value in launch] for launch in launches]
        for cell, launches in generating("gguf_q8_0").items()
    }
    one = evidence(samples={**generating("gguf_f16"), **slower})
    found = {(found.cell.variant, found.cell.mode, found.metric): found.value for found in findings_of(one)}
    assert found["gguf_f16", "prefill", "prefill_per_s"] == pytest.approx(12_800)
    assert found["gguf_f16", "prefill", "first_token_s"] == pytest.approx(0.020)
    assert found["gguf_f16", "prefix", "first_token_s"] == pytest.approx(0.002)
    assert ("gguf_f16", "prefix", "prefill_per_s") not in found
    assert found["gguf_q8_0", "decode", "decode_per_s"] == pytest.approx(800)
    assert found["gguf_q8_0", "decode", "ratio"] == pytest.approx(2)
    (section,) = [part for part in page.build(material([one])).sections if part.id == "generation-cpu-openvino"]
    (table,) = section.tables
    told = [entry.text for entry in table.rows[1]][:6]
    assert told == ["GGUF Q8_0", "6400 /s", "40.0 ms", "4.00 ms", "800 /s", show(2.0, "ratio")]
    assert "a prompt of 256 tokens is read from nothing" in table.lead
