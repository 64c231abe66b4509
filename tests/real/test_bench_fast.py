"""The script that compares the fast path with the Trainer, at tiny sizes: every way trains, and the tables are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.stats import Interval
from tests.bench.arms import ARMS, OTHERS
from tests.bench.fast import answer, main, speed_table
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
SIZES = {
    "train_examples": 96,
    "validation_examples": 20,
    "evaluation_examples": 50,
    "teacher_epochs": 1,
    "student_epochs": 2,
}
RECIPE = PROFILE.recipe.model_copy(update=SIZES)


def test_every_way_is_timed_in_one_run() -> None:
    """Two blocks of each: rates, and ratios to the online Trainer and to the fastest other way, with intervals."""
    table = main(["--examples", "48", "--online", "16", "--blocks", "2"], RECIPE).splitlines()
    assert "48 examples a block (16 online), batch 16, 2 blocks" in table[0]
    best = table[2].rpartition("steady (")[2].partition(")")[0]
    rows = [line.split(" | ") for line in table[4:]]
    assert [row[0].removeprefix("| ") for row in rows] == list(ARMS)
    assert [row[3] for row in rows[:1]] == ["1.00 [1.00, 1.00]"]
    (fastest,) = [row for row in rows if row[0].removeprefix("| ") == best]
    assert best in OTHERS
    assert fastest[5].startswith("1.00 [1.00, 1.00]")
    assert all(cell.count("[") == 1 for row in rows for cell in row[1:])


def test_the_tables_numbers_by_hand() -> None:
    """0.1 s an example online; 0.02 cached and 0.04 of the teacher once in two epochs: 25 a second, 2.5 times as fast."""
    found = {name: [0.1, 0.1] if "online" in name else [0.02, 0.02] for name in ARMS}
    last = speed_table(found, [0.04, 0.04], 2).splitlines()[-1]
    cells = (
        "fast path",
        "50.0 [50.0, 50.0]",
        "25.0 [25.0, 25.0]",
        "5.00 [5.00, 5.00]",
        "2.50 [2.50, 2.50]",
        "1.00 [1.00, 1.00]",
        "1.00 [1.00, 1.00]",
    )
    assert last == f"| {' | '.join(cells)} |"


def test_students_of_two_seeds_are_compared(tmp_path: Path) -> None:
    """By both ways, with the arithmetic of the shorter one shown to be the longer one's."""
    told = main(["--accuracy", "--seeds", "2", "--cache", str(tmp_path)], RECIPE)
    apart = next(line for line in told.splitlines() if line.startswith("Padded")).split()
    assert float(apart[apart.index("loss") + 1].rstrip(",")) < 1e-5
    assert float(apart[apart.index("gradient") + 1]) < 1e-5
    assert "96 examples x 2 epochs, 50 evaluated" in told
    assert told.count("\nDifference in points") == 2


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.004, 0.004, "equivalent within half a point"),
        (0.001, 0.02, "better"),
        (-0.006, 0.004, "cannot tell"),
        (-0.02, -0.006, "worse by more than half a point"),
    ],
)
def test_the_answer_is_the_intervals(low: float, high: float, said: str) -> None:
    """Half a point, on both sides."""
    assert answer(Interval((low + high) / 2, low, high)) == said
    assert answer(None) == "cannot be told from one seed"
