"""Two numbers may meet only if their workloads are the same."""

from __future__ import annotations

import pytest

from matrix.canonical import digest
from matrix.identity import workload_id
from tests.making import EAGER, ORT, RAW, prepared, profiles

QUICK = profiles().of("quick")


def identity(cell=EAGER, profile=QUICK, weights="w" * 64, suites="s" * 64, dtype="float32") -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """A cell's identity with one thing changed."""
    return workload_id(cell, profile, prepared(weights), suite_sha256=suites, dtype=dtype)


@pytest.mark.parametrize(
    "change",
    [
        {"cell": ORT},
        {"profile": profiles().of("standard")},
        {"profile": QUICK.seeded(7)},
        {"weights": "x" * 64},
        {"suites": "t" * 64},
        {"dtype": "bfloat16"},
    ],
)
def test_any_change_of_the_work_is_another_identity(change: dict[str, object]) -> None:
    """Variant, profile, seed, weights, suites and arithmetic all decide what a number means."""
    assert identity() == identity()
    assert identity(**change) != identity()


@pytest.mark.parametrize("change", [{"suites": ("training_step",)}, {"exports": None}, {"runtimes": ("torch_eager",)}])
def test_what_else_is_planned_changes_no_identity(change: dict[str, object]) -> None:
    """A run of one suite yields numbers that meet those of a run of all."""
    assert identity(profile=QUICK.model_copy(update=change)) == identity()


def test_a_training_step_does_not_depend_on_who_trained_the_student() -> None:
    """Its weights are random: two hosts with differently trained students time the same work."""
    assert identity(cell=RAW, weights="x" * 64) == identity(cell=RAW)


def test_the_digest_is_of_the_canonical_form() -> None:
    """RFC 8785: key order and spacing do not matter, and the value is known."""
    assert digest({"b": 1, "a": [1.0, "x"]}) == digest({"a": [1, "x"], "b": 1})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
