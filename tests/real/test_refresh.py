"""The refresh exercise at the smallest size at which its conditions differ, and what its answers rest on."""

from __future__ import annotations

import re

import pytest

from matrix.stats import Interval
from tests.bench import refresh
from tests.bench.lessons import SIZES, Mode, Outcome
from tests.bench.refresh import Row, best, call
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope="module")
def told() -> list[dict[str, list[str]]]:
    """The cells of each condition's table, by mode; a run of 256 examples and two seeds."""
    small = "--examples 256 --evaluation 64 --epochs 3 --teacher-epochs 4 --seeds 2 --shares 0.5 --threads 1"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        tiny = PROFILE.recipe.model_dump(include={"vocabulary", "teacher", "student", "teacher_lr", "student_lr"})
        patch.setitem(SIZES, "small", tiny)
        patch.setattr("builtins.print", lambda *words: lines.append(" ".join(words)))
        assert refresh.main(small.split()) == 0
    parts = "\n".join(lines).split("### ")[1:]
    assert all(part.count("Works best: ") == 1 for part in parts)
    rows = [re.findall(r"^\| (\w.*) \|$", part, re.MULTILINE)[1:] for part in parts]
    return [{cells[0]: cells[1:] for cells in (row.split(" | ") for row in part)} for part in rows]


def test_a_frozen_teacher_on_fixed_inputs_needs_one_pass(told: list[dict[str, list[str]]]) -> None:
    """A third of the rows in three epochs, nothing stale, and the online student to the bit."""
    frozen = told[0]
    assert list(frozen) == ["online", "cached", "mixed 50 %"]
    assert frozen["cached"][:2] == ["33.3", "0"]
    assert frozen["cached"][4] == "equal to the bit"
    assert float(frozen["mixed 50 %"][0]) == pytest.approx(66.7, abs=0.1)


def test_augmentation_makes_logits_by_example_stale(told: list[dict[str, list[str]]]) -> None:
    """By content nearly every row misses and none is stale; by example refreshing half lies between that and nothing."""
    asked, stale = ({mode: float(cells[at]) for mode, cells in told[1].items()} for at in (0, 1))
    assert asked["cached, by content"] > 90
    assert stale["cached, by content"] < 1e-9
    assert 1e-6 < stale["mixed 50 %, by example"] < stale["cached, by example"]


def test_a_moving_teacher_leaves_its_cache_behind(told: list[dict[str, list[str]]]) -> None:
    """Refreshing half of the rows leaves it less far behind."""
    stale = {mode: float(cells[1]) for mode, cells in told[2].items()}
    assert stale["online"] == 0 < stale["mixed 50 %"] < stale["cached"]


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.004, 0.004, "equivalent"), (-0.03, -0.01, "worse"), (0.01, 0.03, "better"), (-0.03, 0.01, "cannot be told")],
)
def test_an_accuracy_is_called_on_its_interval(low: float, high: float, answer: str) -> None:
    """At a margin of half a point."""
    assert call(Interval((low + high) / 2, low, high), 0.005) == answer


@pytest.mark.parametrize(
    ("called", "seconds", "answer"),
    [
        ("equivalent", (0.5, 0.5), "cached: equivalent in accuracy, in 0.50 [0.50, 0.50] of online's time"),
        ("equivalent", (0.5, 1.5), "online: no mode was faster beyond doubt"),
        ("worse", (0.5, 0.5), "online: every faster mode is worse"),
        (
            "cannot be told",
            (0.5, 0.5),
            "cannot be told: cached took less time than online, at an accuracy that is not decided",
        ),
    ],
)
def test_the_best_mode_is_told_from_intervals(called: str, seconds: tuple[float, float], answer: str) -> None:
    """Two seeds whose online students took a second."""
    found = {
        "online": [Outcome(0.9, 1.0, 0.0, 1.0, "")] * 2,
        "cached": [Outcome(0.9, s, 0.0, 0.2, "") for s in seconds],
    }
    level = Interval(0.9, 0.8, 1.0)
    rows = [
        Row(Mode(name, share), level, level, refresh.slower(found[name], found["online"]), 0.0, 1.0, said)
        for name, share, said in (("online", None, "equal to the bit"), ("cached", 0.0, called))
    ]
    assert best(rows, found) == answer
