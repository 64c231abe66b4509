"""No planning number is believed to beat a machine's peak, and each is read against it."""

from __future__ import annotations

import pytest

from matrix.estimates import beside
from matrix.floors import Floor, seconds, training_flop
from matrix.profile import LlamaShape, Response
from tests.making import estimates, profiles

FULL = profiles().of("full")
NOTED = {one.estimate.what: one for one in beside(estimates(), [], FULL)}


def test_a_classifiers_step_by_hand() -> None:
    """Batch 128 of 128 tokens: 6 layers of width 768 once, 4 layers of width 312 three times: 1.909 TFLOP."""
    tokens = 128 * 128
    teacher = tokens * 6 * (2 * (4 * 768**2 + 2 * 768 * 3072) + 4 * 128 * 768)
    student = tokens * 4 * (2 * (4 * 312**2 + 2 * 312 * 1200) + 4 * 128 * 312)
    floor = Floor(peak="A100", model="classifier", examples=128, length=128)
    assert training_flop(floor, FULL) == teacher + 3 * student == 1_909_180_071_936
    assert seconds(floor, estimates().peak["A100"], FULL) == pytest.approx(6.118e-3, rel=1e-3)


def test_the_notes_step_is_29_to_49_times_an_a100s_floor() -> None:
    """0.18 and 0.30 s over 6.12 ms; a rate's floor is the highest one, and the factor is the same thing."""
    low, high = NOTED["step time on one A100"].above_floor or (0.0, 0.0)
    assert (round(low), round(high)) == (29, 49)
    rate = NOTED["samples/s on one A100"]
    assert rate.floor == pytest.approx(128 / 6.118e-3, rel=1e-3)
    assert [round(times, 1) for times in rate.above_floor or ()] == [29.5, 49.2]


def test_llama_3_8b_takes_46_gflop_a_token() -> None:
    """Three forwards of 2 (6.98e9 + 0.53e9 of the output) + attention over 512 tokens: 6,800 tokens/s at an A100's peak."""
    shape = LlamaShape(layers=32, dim=4096, heads=32, kv_heads=8, hidden=14336, vocabulary=128_256)
    full = FULL.model_copy(update={"response": Response(student=shape)})
    floor = Floor(peak="A100", model="response", examples=1, length=512)
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336
    by_hand = 3 * 512 * (32 * (2 * layer + 4 * 512 * 4096) + 2 * 4096 * 128_256)
    assert training_flop(floor, full) == by_hand
    assert 512 / seconds(floor, estimates().peak["A100"], full) == pytest.approx(6_810, rel=1e-3)


def test_no_estimate_beats_its_floor() -> None:
    """Every time and rate of the note with a counted floor lies above it: else the note, or the count, is wrong."""
    told = {what: one.above_floor for what, one in NOTED.items() if one.above_floor}
    assert len(told) >= 10
    assert all(low > 1 for low, _ in told.values()), told
