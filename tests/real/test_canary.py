"""A device that answers right passes every canary, and each wrong answer that was reported of one fails its own."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from matrix import definitions
from matrix.job import End, Folders, Job, WorkloadSpec
from matrix.launches import record_of
from matrix.sample import Battery
from matrix.workloads import answers, battery, canary, questions, step
from tests.making import RAW, prepared, profiles

pytestmark = pytest.mark.frameworks

Call = Callable[[], Any]
Wrong = Callable[[Call, Any], Any]
"""What a faulty operator gives, from a call of the right one and its arguments."""


class Faulty(TorchDispatchMode):
    """Makes one operator wrong, in backward passes too; operators on fp64 are the reference's and stay right."""

    def __init__(self, operator: str, wrong: Wrong) -> None:
        super().__init__()
        self.operator, self.wrong = f"aten::{operator}", wrong

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own signature
        """The operator, wrong if it is the faulty one."""

        def call() -> Any:  # noqa: ANN401 - whatever the operator gives
            return func(*args, **(kwargs or {}))

        exact = any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in tree_leaves(args))
        return call() if exact or func._schema.name != self.operator else self.wrong(call, args)


def reads_as_contiguous(call: Call, args: Any) -> Any:  # noqa: ANN401 - an operator's arguments
    """The strides of a transposed input are ignored (#162730)."""
    x, w = args
    return call() if x.is_contiguous() else x.t().contiguous().view(x.shape) @ w


def a_batch_is_another(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """Rows after the first are a little off (#170837)."""
    found = call()
    found[0][1:] *= 1.001
    return found


def rows_are_lost(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """Nothing is computed beyond row 65,536 (#189495)."""
    found = call()
    found[65_536:] = 0
    return found


def columns_are_lost(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """The first 1,024 columns are right, where there are more than 32,768 (#116769)."""
    found = call()
    if found.shape[-1] > 32_768:
        found[:, 1_024:] = 0
    return found


def remembers_a_shape() -> Wrong:
    """The gradient is a thousand times too large after another shape's (#177116)."""
    seen: list[torch.Size] = []

    def wrong(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
        seen.append(args[0].shape)
        found = call()
        return found if seen[-1] == seen[0] else tuple(1e3 * part for part in found)

    return wrong


def overflows(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """The gradient is a thousand times too large from 2^15 tokens on (#177116)."""
    return call() * (1e3 if args[1].numel() > 2**15 else 1)


def sees_later_keys(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """The causal mask is applied once per group of four queries (#195910)."""
    found, (q, k, v) = call(), args[:3]
    if args[4:5] == (True,):
        group = torch.arange(q.shape[-2])[:, None] // 4 * 4 + 3
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).float()
        found[0].copy_(scores.masked_fill(torch.arange(k.shape[-2]) > group, -torch.inf).softmax(-1).to(v.dtype) @ v)
    return found


def reads_past_the_keys(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """A partial tile of 32 keys is read as a whole one (#169222)."""
    found = call()
    if args[1].shape[-2] % 32:
        found[0].mul_(1.2)
    return found


def forgets_the_weights(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """A half input is normed, and not scaled by fp32 weights."""
    x, shape, _, _, eps = args
    return call() if x.dtype == torch.float32 else torch.native_layer_norm(x, shape, None, None, eps)


def gamma_is_garbage(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """The weight's gradient is what was in memory, where the input needs none (#183825)."""
    found = list(call())
    if not args[-1][0]:
        found[1] = torch.full_like(found[1], 3.0)
    return tuple(found)


def no_index(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """Every index is -2^63 (#92311)."""
    return call().fill_(-(2**63))


def off_by_one(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """Every index is one too large."""
    return call() + 1


def skips_strided_weights(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """A weight that is not contiguous is not updated (#118115)."""
    return None if not args[0][0].is_contiguous() else call()


def ignores_the_seed() -> Wrong:
    """Masks come from a generator that nobody seeds."""
    own = torch.Generator().manual_seed(1)
    return lambda _, args: args[0].copy_(torch.rand(args[0].shape, generator=own) < 0.9)


def loses_a_gradient(call: Call, args: Any) -> Any:  # noqa: ANN401 - likewise
    """The first row that was looked up gets no gradient."""
    found = call()
    found[args[1].flatten()[0]] = 0
    return found


ATTENTION: Final = "_scaled_dot_product_flash_attention_for_cpu"
FAULTS: Final[Mapping[str, list[tuple[str, Callable[[], Wrong]]]]] = {
    "training_step": [("embedding_dense_backward", lambda: loses_a_gradient)],
    "strided_inputs": [("mm", lambda: reads_as_contiguous)],
    "batched": [(ATTENTION, lambda: a_batch_is_another)],
    "many_rows": [("addmm", lambda: rows_are_lost)],
    "many_features": [("mm", lambda: columns_are_lost), ("addmm", lambda: columns_are_lost)],
    "shape_change": [("native_layer_norm_backward", remembers_a_shape)],
    "many_tokens": [("embedding_dense_backward", lambda: overflows)],
    "attention_fp16": [(ATTENTION, lambda: sees_later_keys), (ATTENTION, lambda: reads_past_the_keys)],
    "attention_bf16": [(ATTENTION, lambda: sees_later_keys), (ATTENTION, lambda: reads_past_the_keys)],
    "mixed_layer_norm": [("native_layer_norm", lambda: forgets_the_weights)],
    "frozen_layer_norm": [("native_layer_norm_backward", lambda: gamma_is_garbage)],
    "argmax": [("argmax", lambda: no_index), ("argmax", lambda: off_by_one)],
    "optimizer": [("_fused_adamw_", lambda: skips_strided_weights)],
    "same_seed": [("bernoulli_", ignores_the_seed)],
}
"""The faults that each canary was written for, as its bug report describes them."""

PLANTED: Final = [(name, operator, wrong) for name, faults in FAULTS.items() for operator, wrong in faults]


@pytest.fixture(scope="module")
def asked() -> Battery:
    """What this CPU answers, in a process of its own."""
    return canary.ask("cpu")


def test_this_cpu_passes_every_canary(asked: Battery) -> None:
    """Each one is asked, and answered right; nothing fell back, and a CPU has no TF32."""
    assert [one.name for one in asked.canaries] == list(questions.CANARIES)
    assert [one for one in asked.canaries if not one.passed] == []
    assert (asked.fallbacks, asked.tf32) == ((), None)


def test_three_batches_of_two_shapes_are_compared(asked: Battery) -> None:
    """Logits and gradients, to rounding: no row is corrupted, and a rerun agrees."""
    cases = {(one.name, one.batch, one.shape) for one in asked.tensors}
    shapes = [(batch, shape) for batch in (1, 2, 3) for shape in step.SHAPES]
    assert cases == {(name, *case) for name in ("logits", "gradient") for case in shapes}
    assert all(one.rmse is not None and one.rmse < one.tolerance / 10 for one in asked.tensors)
    assert {(one.corrupted_rows, one.rerun) for one in asked.tensors} == {(0, 0.0)}


def test_every_canary_has_a_fault() -> None:
    """The compiler's is planted in `torch.compile` itself."""
    assert {*FAULTS, "compiled"} == set(questions.CANARIES)


@pytest.mark.parametrize("name", list(FAULTS))
def test_without_a_fault_the_canary_sings(name: str) -> None:
    """The harness itself makes no operator wrong."""
    with Faulty("no_operator", rows_are_lost):
        found = battery.answer(name, "cpu")
    assert found.passed, found


@pytest.mark.parametrize(("name", "operator", "wrong"), PLANTED)
def test_a_fault_fails_its_canary(name: str, operator: str, wrong: Callable[[], Wrong]) -> None:
    """The device's operator is made wrong as its report says; the reference's is not."""
    with Faulty(operator, wrong()):
        found = battery.answer(name, "cpu")
    assert found.error is not None
    assert not found.passed, found


def test_a_wrong_compiler_fails_its_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled LayerNorm that is off (#191976)."""

    def compiling(block: Callable[..., torch.Tensor], **_: object) -> Callable[..., torch.Tensor]:
        return lambda *inputs: 1.01 * block(*inputs)

    monkeypatch.setattr(torch, "compile", compiling)
    assert not battery.answer("compiled", "cpu").passed


@pytest.mark.parametrize("name", ["training_step", "batched", "many_rows", "shape_change"])
def test_no_number_is_no_answer(name: str) -> None:
    """One NaN in a product: the canary has no error, and failed."""

    def spoilt(call: Call, args: Any) -> Any:  # noqa: ANN401 - an operator's arguments
        found = call()
        found.view(-1)[-1] = torch.nan
        return found

    with Faulty("addmm", spoilt):
        found = battery.answer(name, "cpu")
    assert (found.error, found.passed, found.detail) == (None, False, "the error is nan")


def test_the_worst_of_several_errors_is_the_one_without_a_number() -> None:
    """Python's `max` would say 1.0 of either order, or NaN, by luck."""
    for errors in ([1.0, float("nan")], [float("nan"), 1.0]):
        assert answers.worst(errors) != answers.worst(errors)


def test_corrupted_rows_are_counted() -> None:
    """One of five rows of logits is off by 1, then not a number: one row, and no root mean square."""
    batch = step.batch(5, 17, seed=1)
    right = step.reference(batch).logits
    for off, rmse in ((1.0, (10 / 50) ** 0.5), (float("nan"), None)):
        found = right.clone()
        found[3] += off
        told = step._compared("logits", (1, batch), (found, right, right))
        assert told.corrupted_rows == 1
        assert told.rmse == pytest.approx(rmse)


def test_a_shape_is_no_distance() -> None:
    """An answer of another shape would be broadcast to the right one's."""
    with pytest.raises(ValueError, match=r"the answer's shape is \(1,\), the right one's \(3,\)"):
        answers.distance(torch.ones(1), torch.ones(3))


def test_a_device_that_is_not_there_fails_every_canary() -> None:
    """Each says what torch said; the tensors too."""
    found = canary.ask("xpu")
    assert [one.name for one in found.canaries] == [*questions.CANARIES, "tensors"]
    assert {(one.error, one.passed) for one in found.canaries} == {(None, False)}
    assert all(one.detail for one in found.canaries)


def test_what_falls_back_in_a_canary_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch warns at an operator's first call; a warning of anything else is not one of these."""
    text = "The operator 'aten::x' is not currently supported on the MPS backend and will fall back to run on the CPU."

    def warns(_: str) -> answers.Answer:
        for said in (f"{text} (Triggered internally at MPSFallback.mm:15.)", text, "something else"):
            warnings.warn(said, stacklevel=1)
        return answers.Answer(0.0, 0.0)

    monkeypatch.setattr(battery, "CANARIES", {"warns": warns})
    assert battery.battery("cpu").fallbacks == (text,)


def answering(monkeypatch: pytest.MonkeyPatch, code: str, timeout_s: float = 60.0) -> str:
    """The detail of the one failed canary of a battery whose process is this code."""
    monkeypatch.setattr(canary, "_command", lambda *_: [sys.executable, "-X", "faulthandler", "-c", code])
    found = canary.ask("cpu", timeout_s)
    (only,) = found.canaries
    assert (only.name, only.error, only.passed, found.tensors) == ("battery", None, False, ())
    return only.detail


def test_a_crash_is_a_failed_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the signal and the last words, without this machine's paths."""
    code = "import os, sys; print(sys.prefix, file=sys.stderr); sys.stderr.flush(); os.abort()"
    detail = answering(monkeypatch, code)
    assert detail.startswith("its process ended with exit code -6: <env>\nFatal Python error: Aborted")
    assert sys.prefix not in detail


def test_a_device_that_hangs_is_a_failed_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is stopped."""
    assert answering(monkeypatch, "import time; time.sleep(600)", 0.5) == "it was stopped after 0 s"


def test_a_process_that_says_nothing_is_a_failed_battery(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended well and wrote nothing."""
    assert answering(monkeypatch, "pass").startswith("its process wrote no battery: ")


def test_without_a_compiler_the_graph_alone_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image, which has none: nothing fails for want of it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    found = canary.ask("cpu")
    assert found.compiler == "aot_eager"
    assert [one for one in found.canaries if not one.passed] == []


def test_nothing_of_it_stays_in_the_process_that_measures() -> None:
    """The plug-in, which asks, has not loaded torch."""
    code = "import sys, matrix.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=definitions.PACKAGE.parent).returncode == 0


_WARNS = """
import warnings
import pytest

@pytest.mark.cells(suite="training_step")
def test_training_step(cell_id):
    text = "The operator 'aten::x' is not currently supported on the MPS backend and will fall back to run on the CPU."
    warnings.warn(text + " This may have performance implications. (Triggered internally at MPSFallback.mm:15.)")
    warnings.warn("something else")
"""


def test_a_fallback_in_a_cell_is_recorded(tmp_path: Path) -> None:
    """Though the suites' settings ignore warnings of its class; other warnings are not kept."""
    (tmp_path / "test_warns.py").write_text(_WARNS, encoding="utf-8")
    job = Job(
        target="cpu-openvino",
        device="cpu",
        profile=profiles().of("quick"),
        spec=WorkloadSpec(),
        suite_sha256=definitions.suite_digest(),
        cells=(RAW,),
        folders=Folders(cache=str(tmp_path), out=str(tmp_path)),
        threads=1,
        launch=1,
        prepared=prepared(),
        emulates=True,
        nonce="n",
    )
    (tmp_path / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    settings = ["-c", str(definitions.suites() / "pytest.ini"), "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", "test_warns.py", *settings, "--matrix-job", "job.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    record = record_of(tmp_path, job, End(0, timed_out=False, seconds=1.0), datetime.now(UTC))
    (told,) = record.fallbacks
    assert told.startswith("The operator 'aten::x' is not currently supported on the MPS backend")
    assert told.endswith("will fall back to run on the CPU. This may have performance implications.")
    assert (record.battery, record.nonce) == (None, "n")
