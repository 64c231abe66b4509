"""A set of confirmations: more of them need more proof."""

from __future__ import annotations

from matrix.confirm import Comparison, adjusted


def test_a_lonely_confirmation_stands_and_one_of_many_may_not() -> None:
    """P 0.0123 passes alone; beside eight others it is 0.1107, and inconclusive for that reason."""
    sure, near = Comparison("confirmed", (), 0.0), Comparison("confirmed", (), 0.0123)
    (alone,) = adjusted({"near": near}).values()
    assert (alone.answer, alone.reasons[0].number) == ("confirmed", "p 0.0123, 0.0123 adjusted over 1 comparison")
    others = {f"untold {i}": Comparison("inconclusive", (), 1.0) for i in range(8)}
    found = adjusted({"near": near, **others})
    (reason,) = found["near"].reasons
    assert (found["near"].answer, found["near"].p) == ("inconclusive", 0.0123)
    assert str(reason) == (
        "holm: p 0.0123, 0.1107 adjusted over 9 comparisons (at most 0.05); measure more examples or launches"
    )
    pair = adjusted({"near": near, "sure": sure})
    assert [one.answer for one in pair.values()] == ["confirmed", "confirmed"]
    assert [one.reasons[0].number for one in pair.values()] == [
        "p 0.0123, 0.0123 adjusted over 2 comparisons",
        "p below 0.0001, below 0.0001 adjusted over 2 comparisons",
    ]


def test_contradictions_stay_and_count() -> None:
    """A set is not smaller for what failed in it: 3 x 0.02 is too much."""
    found = adjusted({1: Comparison("contradicted", (), 1.0), 2: Comparison("confirmed", (), 0.02), 3: UNTOLD})
    assert [one.answer for one in found.values()] == ["contradicted", "inconclusive", "inconclusive"]
    assert found[3] is UNTOLD
    assert adjusted({}) == {}


UNTOLD = Comparison("inconclusive", (), 0.3)
