"""The script that sweeps calibration: what its numbers are, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.bench.calibration import METHODS, Cost, cost, drawn, sentence, table

pytestmark = pytest.mark.frameworks


def test_a_cost_by_hand() -> None:
    """Of four examples one changes from (3/4, 1/4) to its mirror, from right to wrong: 25 % flips, -25 points."""
    three = math.log(3)
    expected = np.array([[three, 0], [0, three], [three, 0], [0, three]], dtype=np.float32)
    found = expected.copy()
    found[0] = (0, three)
    kl, flips, delta = cost(expected, found, np.array([0, 1, 0, 0]))
    assert kl == pytest.approx((0.75 - 0.25) * three / 4)
    assert (flips, delta) == (0.25, -0.25)


def test_a_draw_can_be_drawn_again() -> None:
    """The same utterances of the same draw, others of another, none twice."""
    assert drawn(1000, 300, 0) == drawn(1000, 300, 0)
    assert set(drawn(1000, 300, 0)) != set(drawn(1000, 300, 1))
    assert len(set(drawn(1000, 300, 0))) == 300


def test_the_table_shows_median_and_range() -> None:
    """Of three draws; KL in thousandths, shares in percent."""
    found = {"MinMax": {32: [Cost(0.001, 0.01, -0.02), Cost(0.004, 0.03, 0.0), Cost(0.002, 0.02, 0.01)]}}
    row = table(found).splitlines()[2]
    assert row == "| MinMax | 32 | 2.000 [1.000, 4.000] | 2.00 [1.00, 3.00] | 0.00 [-2.00, 1.00] |"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([1.0, 2.0, 3.0], "no size differs from another"),
        ([1.0], "cannot be told from one size or one draw"),
        ([0.5, 0.51, 0.49], "matters beyond the spread of draws; the mean KL of 300 is 0.25 times that of 32"),
    ],
)
def test_size_matters_beyond_the_spread_only(more: list[float], said: str) -> None:
    """Three draws of one size beside those of another; of one draw there is no spread to be beyond."""
    assert said in sentence("MinMax", {300: more, 32: [1.9, 2.0, 2.1]})


def test_every_static_format_is_swept() -> None:
    """The catalog's three."""
    assert list(METHODS.values()) == ["onnx_static_int8", "onnx_static_int8_percentile", "onnx_static_int8_entropy"]
