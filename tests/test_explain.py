"""One number's derivation, step by step, as `matrix explain` prints it: compared whole with golden files.

`UPDATE_GOLDEN=1 python -m pytest tests/test_explain.py` writes them anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from matrix.errors import UsageError
from matrix.explain import explain
from tests.making import ORT, case_of, evidence
from tests.story import Story, agreeing, asked, called, contradicted, held, mac

GOLDEN = Path(__file__).parent / "golden" / "explain"


@pytest.mark.parametrize(
    ("name", "cell", "metric", "target"),
    [
        ("trusted-p95", "inference_latency", "p95_s", "cuda-h200"),
        ("trusted-delta", "onnx_int8", "accuracy_delta", "cuda-h200"),
        ("confirmed-ratio", "hf_trainer", "ratio", "mps"),
        ("confirmed-accuracy", "torch_fp32", "accuracy", "mps"),
        ("local-only-p95", "inference_latency", "p95_s", "mps"),
    ],
)
def test_each_step_from_samples_to_the_gate_is_told(
    tmp_path: Path, name: str, cell: str, metric: str, target: str
) -> None:
    """A rank and the worst launch, a pairing, a comparison with its p-value and what Holm makes of it, badge and gate."""
    story = Story(tmp_path)
    names = [story.measured(mac(), "nightly-mps"), story.measured(agreeing(), "nightly-cuda")]
    text = explain(story.case(), asked(), cell, metric=metric, target=target)
    held(GOLDEN / f"{name}.txt", called(text, names) + "\n")


def test_an_unconfirmed_ratio_says_who_could_confirm_it(tmp_path: Path) -> None:
    """And how to ask them."""
    story = Story(tmp_path)
    names = [story.measured(mac(), "nightly-mps")]
    text = explain(story.case(), asked(), "hf_trainer", metric="ratio")
    held(GOLDEN / "unconfirmed-ratio.txt", called(text, names) + "\n")


def test_a_contradicted_accuracy_names_who_contradicts(tmp_path: Path) -> None:
    """Bundle, difference with its interval, and the only two ways out."""
    story, names = contradicted(tmp_path)
    text = explain(story.case(), asked(), "torch_fp32", metric="accuracy", target="mps")
    held(GOLDEN / "contradicted-accuracy.txt", called(text, names) + "\n")


def test_a_development_key_is_told_apart_from_a_runners(tmp_path: Path) -> None:
    """Trusted, and no gate may rest on it."""
    story = Story(tmp_path)
    story.measured(mac(), "nightly-mps")
    names = ["no such bundle", story.measured(agreeing(), "development")]
    text = explain(story.case(), asked(), "torch_eager", metric="p50_s", target="cuda-h200")
    held(GOLDEN / "development.txt", called(text, names) + "\n")


def test_a_cell_that_failed_says_how_in_each_launch() -> None:
    """No value, no bound, and each launch's error."""
    lost = {(ORT, index): f"Traceback\nRuntimeError: no kernel {index}" for index in range(1, 6)}
    one = evidence(samples={ORT: [[0.01] * 60] * 5}, lost=lost)
    text = explain(case_of([one]), asked(), "ort_int8", metric="p95_s")
    held(GOLDEN / "failed.txt", text.replace(one.name, "cpu-openvino-1") + "\n")


def test_a_verdict_that_is_invalid_is_said_beside_every_gate(tmp_path: Path) -> None:
    """What is left may look well: the deleted contradiction is named."""
    story, names = contradicted(tmp_path)
    shutil.rmtree(tmp_path / "bundles" / names[2])
    text = called(explain(story.case(), asked(), "torch_fp32", metric="accuracy", target="mps"), names)
    assert "  verdict     invalid, whatever a gate says: cuda-a100-3 is gone" in text


def test_an_unknown_cell_is_answered_with_those_that_are_known() -> None:
    """The nearest ones, by any part of the name."""
    case = case_of([evidence(samples={ORT: [[0.01] * 60] * 5})])
    with pytest.raises(UsageError) as caught:
        explain(case, asked(), "inference_latency/intent/ort_int4")
    assert str(caught.value) == (
        f"no number of 'inference_latency/intent/ort_int4' is here; name a cell that was measured: {ORT.id}"
    )
    with pytest.raises(UsageError) as caught:
        explain(case_of([]), asked(), "ort_int8")
    assert caught.value.remedy == "name a cell that was measured: there is no bundle: `matrix run` measures"
